package member_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dray/cache"
	"dray/cache/disk"
	"dray/cache/fleet/fleettest"
	"dray/cmd/dray/config"
	"dray/cmd/dray/member"
)

// TestZone: a member works without a zone until it has found the one of its machine. Others see it
// when that member next renews its leases. A zone of the configuration is not looked for.
func TestZone(t *testing.T) {
	for name, c := range map[string]struct {
		configured    string
		found         string
		before, after string
		asked         int
	}{
		"found":      {"", "machine", "", "machine", 1},
		"none":       {"", "", "", "", 1},
		"configured": {"mine", "machine", "mine", "mine", 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				secret := filepath.Join(dir, "secret")
				if err := os.WriteFile(secret, []byte(strings.Repeat("x", 32)), 0o600); err != nil {
					t.Fatal(err)
				}
				d, err := disk.Open(disk.Options{Path: t.TempDir()})
				if err != nil {
					t.Fatal(err)
				}
				defer d.Close()
				asked, answer, leases := 0, make(chan bool), &fleettest.Memory{}
				m, err := member.New(member.Options{
					Config: config.Config{
						State: config.State{Directory: dir}, Metadata: config.Metadata{URL: "redis://127.0.0.1:1"},
						Fleet: config.Fleet{Address: "127.0.0.1:1", Advertise: "127.0.0.1:1", SecretFile: secret, Zone: c.configured},
					},
					Leases: leases, Cache: cache.New(cache.Options{Disk: d}), Logger: slog.New(slog.DiscardHandler),
					Zone: func(ctx context.Context) (string, error) {
						asked++
						select {
						case <-answer:
						case <-ctx.Done():
						}
						if c.found == "" {
							return "", errors.New("no instance")
						}
						return c.found, nil
					},
				})
				if err != nil {
					t.Fatal(err)
				}
				shows := func(want string) {
					t.Helper()
					if all, err := leases.Members(t.Context()); err != nil || len(all) != 1 || all[0].Zone != want || m.Live()[0].Zone != want {
						t.Errorf("the members are %+v, %v, and %+v; want the zone %q", all, err, m.Live(), want)
					}
				}
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error)
				go func() { ended <- m.Run(ctx) }()
				time.Sleep(5 * time.Second)
				shows(c.before)
				close(answer)
				time.Sleep(4 * time.Second)
				shows(c.after)
				cancel()
				if err := <-ended; err != nil || asked != c.asked {
					t.Errorf("asked %d times, %v", asked, err)
				}
			})
		})
	}
}
