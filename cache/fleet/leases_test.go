package fleet_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/cache/fleet"
	"dray/cache/fleet/fleettest"
)

// TestStoreAway has the store of leases fail. Each member fetches for itself, and asks the store
// once for many blobs.
func TestStoreAway(t *testing.T) {
	leases := lasting()
	leases.Fail(errors.New("away"))
	all := several(t, leases, 2)
	for i := range 10 {
		r := newRegistry(1000 + i)
		r.openAll()
		for _, m := range all {
			m.pull(r).ends()
		}
		if r.asked.Load() != 2 {
			t.Errorf("the registry was asked %d times", r.asked.Load())
		}
	}
	leases.Fail(nil)
	for _, m := range all {
		m.Tick()
	}
	r := newRegistry(5000)
	r.openAll()
	all[0].pull(r).ends()
	all[1].pull(r).ends()
	if r.asked.Load() != 1 {
		t.Errorf("after the store is back, the registry was asked %d times", r.asked.Load())
	}
}

// hanging is a store of leases that never answers.
type hanging struct{ fleettest.Memory }

func (h *hanging) Take(ctx context.Context, _ digest.Digest, _ fleet.Member, _ int64) (fleet.Lease, error) {
	<-ctx.Done()
	return fleet.Lease{}, ctx.Err()
}

// TestStoreHangs has the store of leases not answer. A member waits for it a moment, and then
// fetches for itself.
func TestStoreHangs(t *testing.T) {
	m := start(t, &hanging{}, "one", func(o *fleet.Options) { o.Patience.Store = 20 * time.Millisecond })
	r := newRegistry(1000)
	r.openAll()
	m.pull(r).ends()
	if n := m.value("dray_fleet_alone_total", "store"); n != 1 || r.asked.Load() != 1 {
		t.Errorf("%v fetches without the store, and the registry was asked %d times", n, r.asked.Load())
	}
}

// TestStopsWhileRenewing has a member stop during a question to the store. The store has not
// failed.
func TestStopsWhileRenewing(t *testing.T) {
	leases, log := &fleettest.Ending{}, &bytes.Buffer{}
	m := start(t, leases, "one", func(o *fleet.Options) { o.Logger = slog.New(slog.NewTextHandler(log, nil)) })
	ctx, end := context.WithCancel(t.Context())
	leases.End = end
	m.Renew(ctx)
	if log.Len() > 0 {
		t.Errorf("the log says: %s", log)
	}
}

// TestManyLeases has a member fetch more blobs than it may have leases.
func TestManyLeases(t *testing.T) {
	m := start(t, lasting(), "one", nil)
	m.SetMost(2)
	var pulls []*pull
	for i := range 3 {
		r := newRegistry(1000 + i)
		if i < 2 {
			r.openAll()
		}
		p := m.pull(r)
		if i < 2 {
			p.ends()
			eventually(t, "end of a fetch", func() bool { _, held := m.cache.Stat(r.digest); return held })
			m.Tick() // notes the end, even if the observer of the fetch is not called yet
		}
		pulls = append(pulls, p)
	}
	eventually(t, "third request", func() bool { return pulls[2].asked.Load() == 1 })
	if n := m.value("dray_fleet_leases", ""); n != 2 {
		t.Errorf("%v leases", n)
	}
	fourth, fifth := newRegistry(2000), newRegistry(2001)
	for _, r := range []*registry{fourth, fifth} { // all leases are then of blobs on their way
		pulls = append(pulls, m.pull(r))
		eventually(t, "request", func() bool { return r.asked.Load() == 1 })
	}
	if n := m.value("dray_fleet_alone_total", "leases"); n != 1 {
		t.Errorf("%v fetches without a lease", n)
	}
	for _, p := range pulls[2:] {
		p.openAll()
		p.ends()
	}
}

// TestFlushed has the store forget everything while a blob is on its way. The holder's renewal
// restores its lease.
func TestFlushed(t *testing.T) {
	leases := lasting()
	all := several(t, leases, 2)
	r := newRegistry(mib)
	r.open(mib / 2)
	holder := all[0].pull(r)
	holder.reaches(mib / 4)
	leases.Flush()
	all[0].Tick()
	follower := all[1].pull(r)
	follower.reaches(mib / 4)
	r.openAll()
	holder.ends()
	follower.ends()
	if r.asked.Load() != 1 {
		t.Errorf("the registry was asked %d times", r.asked.Load())
	}
}

// interleaved is a store of leases in which something happens before the answer to Renew arrives.
type interleaved struct {
	fleettest.Memory
	meanwhile func()
}

func (i *interleaved) Renew(ctx context.Context, m fleet.Member, held []fleet.Lease) ([]digest.Digest, error) {
	lost, err := i.Memory.Renew(ctx, m, held)
	i.meanwhile()
	return lost, err
}

// TestTakenAgain has a member take a lease again while it learns that it has lost the former one.
func TestTakenAgain(t *testing.T) {
	for again, left := range map[bool]float64{false: 0, true: 1} {
		leases, d := &interleaved{}, digest.FromString("taken again")
		m := start(t, leases, "one", nil)
		first := must(m.Take(t.Context(), d, 0))
		second := must(leases.Take(t.Context(), d, fleet.Member{ID: "other"}, first.Generation))
		leases.meanwhile = func() {
			if again {
				must(m.Take(t.Context(), d, second.Generation))
			}
		}
		m.Renew(t.Context())
		if n := m.value("dray_fleet_leases", ""); n != left {
			t.Errorf("taken again %v: %v leases are left", again, n)
		}
	}
}

// TestStops has the holder stop while another member reads. That can read on, and nobody else finds
// the lease.
func TestStops(t *testing.T) {
	leases, r := lasting(), newRegistry(mib)
	r.open(mib / 2)
	holder := start(t, leases, "holder", nil)
	follower := start(t, leases, "follower", nil)
	first := holder.pull(r)
	first.reaches(mib / 4)
	second := follower.pull(r)
	second.reaches(mib / 4)
	ctx, stop := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- holder.Run(ctx) }()
	stop()
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	if l := must(leases.Take(t.Context(), r.digest, fleet.Member{ID: "third"}, 0)); l.Holder != "third" {
		t.Errorf("the lease is that of %s", l.Holder)
	}
	r.openAll()
	first.ends()
	second.ends()
	if r.asked.Load() != 1 {
		t.Errorf("the registry was asked %d times", r.asked.Load())
	}
}

// during is a store of leases that calls meanwhile before it answers.
type during struct {
	*fleettest.Memory
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
	leases, r := lasting(), newRegistry(1000)
	store := &during{Memory: leases}
	m := start(t, store, "one", nil)
	store.meanwhile = func() {
		ended, end := context.WithCancel(t.Context())
		end()
		if err := m.Run(ended); err != nil {
			t.Error(err)
		}
	}
	r.openAll()
	m.pull(r).ends()
	if r.asked.Load() != 1 {
		t.Errorf("the registry was asked %d times", r.asked.Load())
	}
	if l := must(leases.Take(t.Context(), r.digest, fleet.Member{ID: "two"}, 0)); l.Holder != "two" {
		t.Errorf("the lease is that of %s", l.Holder)
	}
	if n := m.value("dray_fleet_leases", ""); n != 0 {
		t.Errorf("%v leases", n)
	}
}

// TestMembers lists the members.
func TestMembers(t *testing.T) {
	all := several(t, lasting(), 2)
	for _, m := range all {
		m.Tick()
	}
	list, err := all[0].Members(t.Context())
	if err != nil || len(list) != 2 || !slices.ContainsFunc(list, func(m fleet.Member) bool { return m.ID == "member 1" && m.Protocol == fleet.Protocol() }) {
		t.Errorf("got %+v, %v", list, err)
	}
}
