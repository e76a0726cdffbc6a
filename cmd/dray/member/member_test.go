package member_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dray/cache"
	"dray/cache/disk"
	"dray/cache/fleet/fleettest"
	"dray/cmd/dray/config"
	"dray/cmd/dray/member"
)

// TestNew: a member keeps its ID in the state directory, and there is none without a Redis.
func TestNew(t *testing.T) {
	dir, secret := t.TempDir(), filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(strings.Repeat("x", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := disk.Open(disk.Options{Path: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	o := member.Options{
		Config: config.Config{
			State: config.State{Directory: dir}, Metadata: config.Metadata{URL: "redis://127.0.0.1:1"},
			Fleet: config.Fleet{Address: "127.0.0.1:0", Advertise: "127.0.0.1:0", SecretFile: secret},
		},
		Leases: &fleettest.Memory{}, Cache: cache.New(cache.Options{Disk: d}), Logger: slog.New(slog.DiscardHandler),
	}
	file := filepath.Join(dir, "fleet-id")
	var ids []string
	for _, text := range []string{"", "", "known\n"} { // at the first start the file is empty, as after a full disk
		if text != "" || len(ids) == 0 {
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if m, err := member.New(o); err != nil || m == nil {
			t.Fatalf("got %v, %v", m, err)
		}
		id, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, strings.TrimSpace(string(id)))
	}
	if len(ids[0]) < 20 || ids[1] != ids[0] || ids[2] != "known" {
		t.Errorf("the IDs are %q", ids)
	}
	o.Config.Metadata.URL = ""
	if m, err := member.New(o); m != nil || err != nil {
		t.Errorf("without a Redis: %v, %v", m, err)
	}
	o.Config.Metadata.URL, o.Config.Fleet.SecretFile = "redis://127.0.0.1:1", file
	if _, err := member.New(o); err == nil || strings.Contains(err.Error(), "known") {
		t.Errorf("a short secret: %v", err)
	}
}
