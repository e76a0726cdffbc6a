package writer_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/cache/fleet"
	"dray/cache/fleet/fleettest"
	"dray/mirror/identity"
	"dray/mirror/mirrortest"
	"dray/mirror/repository"
	"dray/mirror/request"
	"dray/mirror/route"
	"dray/mirror/wire"
	"dray/mirror/writer"
	"dray/upstream/oci"
)

// alone is a fleet of one member that answers.
type alone struct{ fleet.Member }

func (a alone) Live() []fleet.Member { return []fleet.Member{a.Member} }

func (alone) Send(ctx context.Context, _ fleet.Member, _ *http.Request) (*http.Response, error) {
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

// TestLeases: a member keeps the lease of a repository for as long as something is open, and for a
// moment after the last request. It restores leases that the store has lost, and takes those of
// what an earlier process has left.
func TestLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		claims, self := &fleettest.Memory{}, fleet.Member{ID: "one", Address: "127.0.0.1:1"}
		registry := mirrortest.NewRegistry()
		left := repository.Repo{Up: &repository.Upstream{Name: "up", Sink: registry}, Name: "left"}
		mirrored := repository.Repo{Up: &repository.Upstream{Name: "mirrored"}, Name: "app"}
		var open atomic.Pointer[[]repository.Repo]
		w := writer.New(writer.Options{
			Self: self, Members: alone{self}, Claims: claims, Identity: func(name string) string { return name },
			Unfinished: func(see func(repository.Repo)) {
				for _, r := range *open.Load() {
					see(r)
				}
			},
		})
		holder := func(repo string) string {
			l, err := claims.Find(t.Context(), digest.FromString("up/"+repo))
			if err != nil {
				t.Fatal(err)
			}
			return l.Holder
		}
		open.Store(&[]repository.Repo{left, mirrored})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); w.Run(ctx) }()
		synctest.Wait()
		if got := holder("left"); got != "one" {
			t.Errorf("what an earlier process has left is that of %q", got)
		}
		w.Claim("up", "app")
		time.Sleep(fleet.LeaseTTL - time.Second)
		if got := holder("app"); got != "one" {
			t.Errorf("a moment after a request, the writer is %q", got)
		}
		time.Sleep(2 * fleet.RenewEvery)
		if got := holder("app"); got != "" {
			t.Errorf("long after a request, the writer is %q", got)
		}
		time.Sleep(time.Hour)
		claims.Flush()
		time.Sleep(fleet.RenewEvery)
		synctest.Wait()
		if got := holder("left"); got != "one" {
			t.Errorf("an hour later, and after the store has lost everything, the writer is %q", got)
		}
		open.Store(&[]repository.Repo{})
		time.Sleep(fleet.LeaseTTL + 2*fleet.RenewEvery)
		synctest.Wait()
		calls := claims.Calls()
		if time.Sleep(time.Hour); claims.Calls() != calls || holder("left") != "" {
			t.Errorf("without anything open, the store is asked %d times an hour, and the writer is %q", claims.Calls()-calls, holder("left"))
		}
		w.Claim("up", "app")
		stop()
		<-done
		if got := holder("app"); got != "" {
			t.Errorf("after the end, the writer is %q", got)
		}
	})
}

// TestStopsWhileRenewing has a member stop during a question to the store. The store has not
// failed.
func TestStopsWhileRenewing(t *testing.T) {
	claims, self, log := &fleettest.Ending{}, fleet.Member{ID: "one", Address: "127.0.0.1:1"}, &bytes.Buffer{}
	w := writer.New(writer.Options{
		Self: self, Members: alone{self}, Claims: claims, Identity: func(name string) string { return name }, Patience: patient,
		Logger: slog.New(slog.NewTextHandler(log, nil)),
	})
	w.Claim("up", "team/app")
	ctx, end := context.WithCancel(t.Context())
	claims.End = end
	w.Renew(ctx)
	if log.Len() > 0 {
		t.Errorf("the log says: %s", log)
	}
}

// during are claims that call meanwhile before they answer.
type during struct {
	fleettest.Memory
	meanwhile func()
}

func (d *during) Take(ctx context.Context, of digest.Digest, m fleet.Member, failed int64) (fleet.Lease, error) {
	l, err := d.Memory.Take(ctx, of, m, failed)
	d.meanwhile()
	return l, err
}

// TestStopsWhileTaking has a member leave while it takes a lease. Others do not wait for the lease
// to expire.
func TestStopsWhileTaking(t *testing.T) {
	claims, self := &during{}, fleet.Member{ID: "one", Address: "127.0.0.1:1"}
	w := writer.New(writer.Options{Self: self, Members: alone{self}, Claims: claims, Identity: func(name string) string { return name }, Patience: patient})
	claims.meanwhile = func() {
		ended, end := context.WithCancel(t.Context())
		end()
		w.Run(ended)
	}
	w.Claim("up", "team/app")
	if l, err := claims.Find(t.Context(), digest.FromString("up/team/app")); err != nil || l.Holder != "" {
		t.Errorf("the lease is that of %q, %v", l.Holder, err)
	}
}

// TestSilent has a writer that accepts a request and gives no sign of life. Its work is done here
// when a lease would have expired. A pull does not wait for that.
func TestSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		claims, self := &fleettest.Memory{}, fleet.Member{ID: "one", Address: "127.0.0.1:1"}
		w := writer.New(writer.Options{Self: self, Members: alone{self}, Claims: claims, Identity: func(name string) string { return name }})
		name := digest.FromString("up/team/app")
		silent := fleet.Member{ID: "two", Address: "127.0.0.2:2"}
		hang := func() {
			if _, err := claims.Take(t.Context(), name, silent, 0); err != nil {
				t.Fatal(err)
			}
		}
		hang()
		began := time.Now()
		status, here := work(t, w, "HEAD", "/v2/team/app/manifests/v1", false)
		if took := time.Since(began); status != 404 || !here || took > 3*time.Second {
			t.Errorf("a pull: %d after %v, %t", status, took, here)
		}
		hang()
		began = time.Now()
		status, here = work(t, w, "POST", "/v2/team/app/blobs/uploads/", true)
		if took := time.Since(began); status != 202 || !here || took < 4*time.Second || took > 15*time.Second {
			t.Errorf("a push: %d after %v, %t", status, took, here)
		}
	})
}

// work has a request worked on, and returns the status and whether that was here.
func work(t *testing.T, w *writer.Writers, method, path string, found bool) (status int, here bool) {
	t.Helper()
	listener := &request.Listener{Name: "l", Routes: &route.Table{Order: []route.Route{{Upstream: "up"}}}, Policy: identity.Policy{Role: identity.RoleRegistry, AllowAnonymousPush: true}}
	rec := httptest.NewRecorder()
	x := request.New(listener, nil, rec, httptest.NewRequestWithContext(t.Context(), method, path, http.NoBody), wire.Options{Stall: time.Minute})
	defer x.Close()
	var err error
	if x.Q, err = oci.Parse(x.R); err != nil {
		t.Fatal(err)
	}
	x.Repo = repository.Repo{Up: &repository.Upstream{Name: "up", Sink: mirrortest.NewRegistry()}, Name: "team/app"}
	err = w.Work(x, func() error {
		here = true
		if !found {
			return oci.ErrManifestUnknown
		}
		x.W.WriteHeader(http.StatusAccepted)
		return nil
	})
	if err != nil && !x.W.Started() {
		_ = x.Fail(err)
	}
	return rec.Code, here
}
