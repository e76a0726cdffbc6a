package config

import (
	"strings"
	"testing"
)

// TestFleet: dray reports missing and wrong settings of a fleet. A fleet needs a Redis.
func TestFleet(t *testing.T) {
	for text, want := range map[string]string{
		`fleet: {address: "10.0.0.1:5443", secret_file: x}`:                               "",
		`fleet: {address: ":5443", advertise: "dray-0.dray:5443", secret_file: x}`:        "",
		`fleet: {address: ":5443", secret_file: x}`:                                       "fleet.advertise: is missing, and address names no host",
		`fleet: {address: ":5443", advertise: ":5443", secret_file: x}`:                   `fleet.advertise: ":5443" is not a host:port that others can reach`,
		`fleet: {address: ":5443", advertise: "0.0.0.0:5443", secret_file: x}`:            `fleet.advertise: "0.0.0.0:5443" is not`,
		`fleet: {address: "10.0.0.1", secret_file: x}`:                                    `fleet.address: "10.0.0.1" is not host:port`,
		`fleet: {address: "10.0.0.1:5443"}`:                                               "fleet.secret_file: is missing",
		`{fleet: {address: "10.0.0.1:5443", secret_file: x}, cache: {stall_timeout: 2s}}`: "fleet: needs a cache.stall_timeout of at least 5s, not 2s",
		`fleet: {zone: a}`: "fleet.address: is missing",
		`fleet: {address: "127.0.0.1:5000", secret_file: x}`: "fleet.address: 127.0.0.1:5000 is already used by listener",
	} {
		cfg, err := Load(write(t, "dray.yaml", text), nil)
		switch {
		case want == "" && err != nil, want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v, want %q", text, err, want)
		case err == nil && (!strings.Contains(strings.Join(cfg.Notices(), "\n"), "fleet: has no effect without metadata.url") || cfg.Fleet.On(cfg.Metadata)):
			t.Errorf("%s without Redis: %q", text, cfg.Notices())
		}
	}
	cfg, err := Load(write(t, "dray.yaml", `{fleet: {address: "10.0.0.1:5443", secret_file: x}, metadata: {url: "redis://127.0.0.1:6379"}}`), nil)
	if err != nil || !cfg.Fleet.On(cfg.Metadata) || cfg.Fleet.Advertise != "10.0.0.1:5443" || strings.Contains(strings.Join(cfg.Notices(), "\n"), "fleet:") {
		t.Errorf("got %+v, %v, %q", cfg.Fleet, err, cfg.Notices())
	}
	for section, told := range map[string]bool{"{fleet: {address: '10.0.0.1:5443', secret_file: x}": true, "{": false} {
		text := strings.Replace(section+"metadata: {url: 'redis://127.0.0.1:6379'}, upstreams: [{name: ecr, url: 'http://127.0.0.1:1', push: true, acknowledge: local}]}", "}metadata", "}, metadata", 1)
		cfg, err := Load(write(t, "dray.yaml", text), nil)
		if err != nil || told != strings.Contains(strings.Join(cfg.Notices(), "\n"), "upstream ecr: acknowledge: local in a fleet") {
			t.Errorf("%s: %v, %q", text, err, cfg.Notices())
		}
	}
	if cfg, err = Load("", nil); err != nil || cfg.Fleet != (Fleet{}) {
		t.Errorf("without a section: %+v, %v", cfg.Fleet, err)
	}
}
