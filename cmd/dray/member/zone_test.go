package member_test

import (
	"bytes"
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
	"dray/cache/fleet"
	"dray/cache/fleet/fleettest"
	"dray/cmd/dray/config"
	"dray/cmd/dray/member"
)

// TestZone: a member works without a zone until it has found the one of its machine, for which it
// looks three times. Others see it when that member next renews its leases. A zone of the
// configuration is not looked for. If there is none, the log says so where another member has one.
func TestZone(t *testing.T) {
	for name, c := range map[string]struct {
		configured    string
		found         string
		fails         int
		other         string // the zone of another member
		before, after string
		asked         int
		said          bool
	}{
		"found":           {"", "machine", 0, "", "", "machine", 1, false},
		"found later":     {"", "machine", 2, "its", "", "machine", 3, false},
		"none":            {"", "", 3, "", "", "", 3, false},
		"none but others": {"", "", 3, "its", "", "", 3, true},
		"configured":      {"mine", "machine", 0, "its", "mine", "mine", 0, false},
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
				asked, answer, leases := 0, make(chan bool), &fleettest.Memory{TTL: time.Hour}
				var log bytes.Buffer
				if c.other != "" { // its ID is the last
					if _, err := leases.Renew(t.Context(), fleet.Member{ID: "~", Address: "127.0.0.1:2", Zone: c.other, Protocol: fleet.Protocol()}, nil); err != nil {
						t.Fatal(err)
					}
				}
				m, err := member.New(member.Options{
					Config: config.Config{
						State: config.State{Directory: dir}, Metadata: config.Metadata{URL: "redis://127.0.0.1:1"},
						Fleet: config.Fleet{Address: "127.0.0.1:1", Advertise: "127.0.0.1:1", SecretFile: secret, Zone: c.configured},
					},
					Leases: leases, Cache: cache.New(cache.Options{Disk: d}), Logger: slog.New(slog.NewTextHandler(&log, nil)),
					Zone: func(ctx context.Context) (string, error) {
						asked++
						select {
						case <-answer:
						case <-ctx.Done():
						}
						if asked <= c.fails {
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
					if all, err := leases.Members(t.Context()); err != nil || len(all) == 0 || all[0].Zone != want || m.Live()[0].Zone != want {
						t.Errorf("the members are %+v, %v, and %+v; want the zone %q", all, err, m.Live(), want)
					}
				}
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error)
				go func() { ended <- m.Run(ctx) }()
				time.Sleep(5 * time.Second)
				shows(c.before)
				close(answer)
				time.Sleep(2 * time.Minute)
				shows(c.after)
				cancel()
				if err := <-ended; err != nil || asked != c.asked {
					t.Errorf("asked %d times, %v", asked, err)
				}
				if said := strings.Contains(log.String(), "set fleet.zone"); said != c.said {
					t.Errorf("the log is:\n%s", log.String())
				}
			})
		})
	}
}
