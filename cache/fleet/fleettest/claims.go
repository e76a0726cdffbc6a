package fleettest

import (
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"

	"dray/cache/fleet"
)

// Claims tests a store of claims, which must be empty.
func Claims(t *testing.T, s fleet.Claims) {
	t.Helper()
	ctx, name := t.Context(), blob(0)
	find := func(want fleet.Lease) {
		t.Helper()
		if l, err := s.Find(ctx, name); err != nil || l != want {
			t.Errorf("found %+v, %v, want %+v", l, err, want)
		}
	}
	taken := func(m fleet.Member, failed int64) fleet.Lease {
		t.Helper()
		l, err := s.Take(ctx, name, m, failed)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	find(fleet.Lease{Digest: name})
	l := taken(one, 0)
	if l.Holder != one.ID || l.Address != one.Address || l.Generation <= 0 {
		t.Errorf("took %+v", l)
	}
	find(l)
	if other := taken(two, 0); other != l {
		t.Errorf("another member found %+v, want %+v", other, l)
	}
	if lost, err := s.Renew(ctx, one, []fleet.Lease{l}); err != nil || len(lost) > 0 {
		t.Errorf("lost %v, %v", lost, err)
	}
	by := taken(two, l.Generation)
	if by.Holder != two.ID || by.Generation <= l.Generation {
		t.Errorf("after a failure: %+v", by)
	}
	if lost, err := s.Renew(ctx, one, []fleet.Lease{l}); err != nil || !slices.Equal(lost, []digest.Digest{name}) {
		t.Errorf("lost %v, %v", lost, err)
	}
	if err := s.Release(ctx, []fleet.Lease{l}); err != nil {
		t.Error(err)
	}
	find(by) // Release(l) does not release a lease of another generation
	if err := s.Release(ctx, []fleet.Lease{by}); err != nil {
		t.Error(err)
	}
	find(fleet.Lease{Digest: name})
	// Renew restores a lease that the store has lost. Here, Release(by) stands for the loss.
	if lost, err := s.Renew(ctx, two, []fleet.Lease{by}); err != nil || len(lost) > 0 {
		t.Errorf("lost %v, %v", lost, err)
	}
	find(by)
}
