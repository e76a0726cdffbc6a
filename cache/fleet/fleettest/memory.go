// Package fleettest has what tests of fleets need: leases in memory, and the tests that each store
// of leases must pass.
package fleettest

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/cache/fleet"
)

// Memory implements [fleet.Leases], [fleet.Shares] and [fleet.Claims] for members in one process.
// Use a Memory for leases or for claims, not for both: it stores them in the same map. The zero
// value is ready.
type Memory struct {
	// TTL is how long a lease lasts without renewal. Zero means [fleet.LeaseTTL]. Tests whose members
	// do not renew their leases by themselves set a long TTL, because machines may be slow.
	TTL time.Duration

	mu      sync.Mutex // guards the fields below
	leases  map[digest.Digest]held
	members map[string]alive
	shares  map[string]map[string]share // the outer key is the rate, the inner key the member and the component
	err     error
	calls   int
}

// Ending is a [Memory] that ends the context of its caller before it answers Renew.
type Ending struct {
	Memory
	End context.CancelFunc
}

// Renew implements [fleet.Leases].
func (e *Ending) Renew(ctx context.Context, m fleet.Member, held []fleet.Lease) ([]digest.Digest, error) {
	e.End()
	return e.Memory.Renew(ctx, m, held)
}

type held struct {
	fleet.Lease
	until time.Time
}

type alive struct {
	fleet.Member
	until time.Time
}

func (m *Memory) ttl() time.Duration { return cmp.Or(m.TTL, fleet.LeaseTTL) }

// Fail makes all calls return err from now on. After Fail(nil), calls succeed again.
func (m *Memory) Fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
}

// Flush deletes all leases, members and shares.
func (m *Memory) Flush() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.leases, m.members, m.shares = nil, nil, nil
}

// Calls returns the number of calls of m so far.
func (m *Memory) Calls() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calls
}

// begin locks m and counts a call. The caller unlocks m.
func (m *Memory) begin(ctx context.Context) error {
	m.mu.Lock()
	m.calls++
	if m.leases == nil {
		m.leases, m.members, m.shares = map[digest.Digest]held{}, map[string]alive{}, map[string]map[string]share{}
	}
	return cmp.Or(ctx.Err(), m.err)
}

// lease returns the last lease of a blob, and reports whether it has not expired yet.
func (m *Memory) lease(d digest.Digest) (held, bool) {
	l, ok := m.leases[d]
	return l, ok && time.Now().Before(l.until)
}

// Take implements [fleet.Leases].
func (m *Memory) Take(ctx context.Context, d digest.Digest, by fleet.Member, failed int64) (fleet.Lease, error) {
	err := m.begin(ctx)
	defer m.mu.Unlock()
	if err != nil {
		return fleet.Lease{}, err
	}
	l, ok := m.lease(d)
	if ok && l.Holder != by.ID && l.Generation != failed {
		return l.Lease, nil
	}
	generation := max(time.Now().UnixMicro(), failed+1, l.Generation+1)
	l = held{fleet.Lease{Digest: d, Holder: by.ID, Address: by.Address, Generation: generation}, time.Now().Add(m.ttl())}
	m.leases[d] = l
	return l.Lease, nil
}

// Find implements [fleet.Claims].
func (m *Memory) Find(ctx context.Context, d digest.Digest) (fleet.Lease, error) {
	err := m.begin(ctx)
	defer m.mu.Unlock()
	if l, ok := m.lease(d); ok && err == nil {
		return l.Lease, nil
	}
	return fleet.Lease{Digest: d}, err
}

// Renew implements [fleet.Leases].
func (m *Memory) Renew(ctx context.Context, by fleet.Member, leases []fleet.Lease) (lost []digest.Digest, err error) {
	err = m.begin(ctx)
	defer m.mu.Unlock()
	if err != nil {
		return nil, err
	}
	until := time.Now().Add(m.ttl())
	m.members[by.ID] = alive{by, until}
	for _, l := range leases {
		if now, ok := m.lease(l.Digest); ok && now.Generation != l.Generation {
			lost = append(lost, l.Digest)
			continue
		}
		m.leases[l.Digest] = held{l, until}
	}
	return lost, nil
}

// Release implements [fleet.Leases].
func (m *Memory) Release(ctx context.Context, leases []fleet.Lease) error {
	err := m.begin(ctx)
	defer m.mu.Unlock()
	if err != nil {
		return err
	}
	for _, l := range leases {
		if m.leases[l.Digest].Generation == l.Generation {
			delete(m.leases, l.Digest)
		}
	}
	return nil
}

// Leave implements [fleet.Leases].
func (m *Memory) Leave(ctx context.Context, id string) error {
	err := m.begin(ctx)
	defer m.mu.Unlock()
	delete(m.members, id)
	return err
}

// Members implements [fleet.Leases].
func (m *Memory) Members(ctx context.Context) (all []fleet.Member, err error) {
	err = m.begin(ctx)
	defer m.mu.Unlock()
	for _, a := range m.members {
		if time.Now().Before(a.until) {
			all = append(all, a.Member)
		}
	}
	slices.SortFunc(all, func(a, b fleet.Member) int { return cmp.Compare(a.ID, b.ID) })
	return all, err
}
