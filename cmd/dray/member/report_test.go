package member_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"dray/cache"
	"dray/cache/disk"
	"dray/cache/fleet"
	"dray/cache/fleet/fleettest"
	"dray/cmd/dray/config"
	"dray/cmd/dray/member"
	"dray/mirror/admin"
	"dray/mirror/admin/api"
)

// running is a member, and the API of its admin listener.
type running struct {
	*member.Member
	testing.TB
	stop func()
	api  *httptest.Server
}

// run starts a member, which waits for others for as long as patience.
func run(t *testing.T, leases fleet.Leases, id, zone string, patience time.Duration) *running {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"secret": strings.Repeat("x", 32), "fleet-id": id} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d, err := disk.Open(disk.Options{Path: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	metrics, address := prometheus.NewRegistry(), ln.Addr().String()
	r := &running{TB: t}
	r.Member, err = member.New(member.Options{
		Config: config.Config{
			State: config.State{Directory: dir}, Metadata: config.Metadata{URL: "redis://127.0.0.1:1"},
			Fleet:     config.Fleet{Address: address, Advertise: address, SecretFile: filepath.Join(dir, "secret"), Zone: zone},
			Upstreams: []config.Upstream{{Name: "hub", URL: "http://127.0.0.1:1"}, {Name: "quay", URL: "http://127.0.0.1:2", RepositoryPrefix: zone}},
		},
		Leases: leases, Cache: cache.New(cache.Options{Disk: d}), Logger: slog.New(slog.DiscardHandler), Version: "v1", Metrics: metrics,
		Patience: fleet.Patience{Answer: patience, Dial: time.Minute, Store: time.Minute},
	})
	if err != nil {
		t.Fatal(err)
	}
	metrics.MustRegister(r.Collectors()...)
	r.api = httptest.NewServer(admin.NewHandler(admin.Options{Gatherer: metrics, API: r.Endpoints()}))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- r.Run(ctx) }()
	go func() { done <- r.Serve(ctx, ln) }()
	r.stop = cancel
	t.Cleanup(func() {
		cancel()
		r.Interrupt()
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		r.api.Close()
		d.Close()
	})
	return r
}

// fleet is the answer of the API.
func (r *running) fleet() (f api.Fleet) {
	r.Helper()
	resp, err := http.Get(r.api.URL + api.Prefix + "fleet")
	if err != nil {
		r.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&f); err != nil || resp.StatusCode != http.StatusOK {
		r.Fatalf("%s, %v", resp.Status, err)
	}
	return f
}

// sees waits until a member sees others alive.
func (r *running) sees(ids ...string) {
	r.Helper()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
		var live []string
		for _, m := range r.Live() {
			live = append(live, m.ID)
		}
		if slices.Equal(live, ids) {
			return
		}
		if time.Now().After(end) {
			r.Fatalf("%v are alive, want %v", live, ids)
		}
	}
}

// naming is a store that names members of its own choice, if there are any.
type naming struct {
	fleettest.Memory
	members atomic.Pointer[[]fleet.Member]
}

func (n *naming) Members(ctx context.Context) ([]fleet.Member, error) {
	all, err := n.Memory.Members(context.WithoutCancel(ctx))
	if chosen := n.members.Load(); err == nil && chosen != nil {
		return *chosen, nil
	}
	return all, err
}

// TestReport asks one member for all of them. Others are silent, speak another protocol, or are not
// there.
func TestReport(t *testing.T) {
	leases := &naming{}
	one, two := run(t, leases, "one", "a", time.Minute), run(t, leases, "two", "b", time.Minute)
	two.sees("one", "two")
	f := one.fleet()
	if len(f.Members) != 2 || f.Failure != "" {
		t.Fatalf("got %+v", f)
	}
	for i, want := range []api.FleetMember{{ID: "one", Zone: "a", Asked: true}, {ID: "two", Zone: "b", Drift: []string{"quay"}}} {
		m := f.Members[i]
		if m.ID != want.ID || m.Zone != want.Zone || m.Asked != want.Asked || m.Version != "v1" || m.Protocol != fleet.Protocol() || m.Address == "" || m.Failure != "" || !slices.Equal(m.Drift, want.Drift) || m.State == nil || m.State.Reading == nil {
			t.Errorf("got %+v", m)
		}
	}

	// The store forgets the member that is asked, and knows strangers.
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	leases.members.Store(&[]fleet.Member{{ID: "far", Address: gone.Addr().String(), Protocol: fleet.Protocol() + 2}, {ID: "gone", Address: gone.Addr().String(), Protocol: fleet.Protocol()}})
	failures := map[string]string{}
	for _, m := range one.fleet().Members {
		if failures[m.ID] = m.Failure; (m.State == nil) != (m.Failure != "") {
			t.Errorf("got %+v", m)
		}
	}
	if text, ok := failures["one"]; !ok || text != "" {
		t.Errorf("the member that is asked failed: %q", text)
	}
	if !strings.Contains(failures["far"], "another protocol") || !strings.Contains(failures["gone"], "refused") {
		t.Errorf("the others failed by %q", failures)
	}

	// Without the store, the members that it named last are asked.
	leases.Fail(errors.New("away"))
	if f = one.fleet(); f.Failure != "away" || len(f.Members) == 0 {
		t.Errorf("without the store: %+v", f)
	}
}

// TestReportSilent has a member that accepts a connection and says nothing.
func TestReportSilent(t *testing.T) {
	leases := &naming{}
	one := run(t, leases, "one", "", 20*time.Millisecond)
	hole, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer hole.Close()
	leases.members.Store(&[]fleet.Member{{ID: "silent", Address: hole.Addr().String(), Protocol: fleet.Protocol(), Zone: "z", Version: "v2"}})
	all := one.fleet().Members
	if len(all) != 2 || all[1].Failure != "no answer within 20ms" || all[1].Zone != "z" || all[1].Version != "v2" {
		t.Errorf("got %+v", all)
	}
}

// TestReportNone asks a dray that is no member.
func TestReportNone(t *testing.T) {
	var none *member.Member
	s := httptest.NewServer(admin.NewHandler(admin.Options{Gatherer: prometheus.NewRegistry(), API: none.Endpoints()}))
	defer s.Close()
	resp, err := http.Get(s.URL + api.Prefix + "fleet")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var failed api.Failure
	if err := json.NewDecoder(resp.Body).Decode(&failed); err != nil || resp.StatusCode != http.StatusNotFound || !strings.Contains(failed.Error.Message, "not a member of a fleet") {
		t.Errorf("%s, %+v, %v", resp.Status, failed.Error, err)
	}
}
