package ctl

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"dray/cmd/dray/config"
	"dray/mirror/admin"
)

// healthOf runs the subcommand against a handler.
func healthOf(t *testing.T, h http.Handler, args ...string) (string, error) {
	t.Helper()
	server := httptest.NewServer(h)
	defer server.Close()
	return healthAt(t, append(args, "--admin", server.URL)...)
}

func healthAt(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := healthCommand(Options{Stdout: &out, Stderr: &out, Load: func() (config.Config, error) { return config.Config{}, errors.New("line 1: bogus") }})
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func TestHealth(t *testing.T) {
	fails := func(name string, critical bool) admin.Check {
		return admin.Check{Name: name, Critical: critical, Run: func(context.Context) error { return errors.New("no luck") }}
	}
	ready := func(checks ...admin.Check) http.Handler {
		o := admin.Options{Gatherer: prometheus.NewRegistry(), Checks: checks}
		o.Operators.Token = func() string { return "secret" }
		return admin.NewHandler(o)
	}
	page := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) })
	hangs := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	for name, c := range map[string]struct {
		handler   http.Handler
		args      []string
		out, fail string
	}{
		"ready, without the token": {handler: ready(), out: "ready\n"},
		"degraded":                 {handler: ready(fails("upstream hub", false)), out: "degraded\nupstream hub  no luck\n"},
		"not ready":                {handler: ready(fails("cache", true)), out: "not ready\ncache  no luck\n", fail: "is not ready"},
		"JSON":                     {handler: ready(), args: []string{"--json"}, out: "{\n  \"status\": \"ready\",\n  \"checks\": []\n}\n"},
		"another program":          {handler: page, fail: "is another program listening there?"},
		"no answer":                {handler: hangs, args: []string{"--timeout", "20ms"}, fail: "deadline exceeded"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := healthOf(t, c.handler, c.args...)
			if out != c.out || (err == nil) != (c.fail == "") || err != nil && !strings.Contains(err.Error(), c.fail) {
				t.Errorf("%q, %v", out, err)
			}
		})
	}
}

// TestHealthWithoutConfiguration: an invalid file hides no dray at the default address, and is
// named if there is none.
func TestHealthWithoutConfiguration(t *testing.T) {
	listener, err := net.Listen("tcp", config.Default(nil).Admin.Address)
	if err == nil { // otherwise another test or program is there
		_ = listener.Close()
		if _, err := healthAt(t); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "line 1: bogus") {
			t.Errorf("%v", err)
		}
	}
	if _, err := healthAt(t, "--admin", "127.0.0.1:1"); !errors.Is(err, ErrUnreachable) || strings.Contains(err.Error(), "bogus") {
		t.Errorf("with --admin: %v", err)
	}
}

// TestHealthAddress: without an admin listener, health asks at the address of health and metrics.
func TestHealthAddress(t *testing.T) {
	server := httptest.NewServer(admin.NewHealth(admin.Options{Gatherer: prometheus.NewRegistry()}))
	defer server.Close()
	var out bytes.Buffer
	cmd := healthCommand(Options{Stdout: &out, Stderr: &out, Load: func() (config.Config, error) {
		return config.Config{Admin: config.Admin{Address: config.AdminOff, HealthAddress: strings.TrimPrefix(server.URL, "http://")}}, nil
	}})
	cmd.SetArgs(nil)
	if err := cmd.ExecuteContext(t.Context()); err != nil || out.String() != "ready\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
}
