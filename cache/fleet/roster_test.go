package fleet_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"dray/cache/fleet"
)

func ids(members []fleet.Member) (all []string) {
	for _, m := range members {
		all = append(all, m.ID)
	}
	return all
}

// TestLive has members come and go, and the store fail and forget everything.
func TestLive(t *testing.T) {
	leases := lasting()
	b := start(t, leases, "b", nil)
	lives := func(m *member, want ...string) {
		t.Helper()
		m.Renew(t.Context())
		if got := ids(m.Live()); !slices.Equal(got, want) {
			t.Errorf("%s sees %v, want %v", m.info.ID, got, want)
		}
	}
	if got := b.Live(); !slices.Equal(got, []fleet.Member{{ID: "b", Address: b.info.Address, Protocol: fleet.Protocol()}}) {
		t.Errorf("before the first renewal: %+v", got)
	}
	a, c := start(t, leases, "a", nil), start(t, leases, "c", nil)
	lives(a, "a")
	lives(c, "a", "c")
	lives(b, "a", "b", "c")
	if got := b.Live()[2]; got.Address != c.info.Address {
		t.Errorf("got %+v", got)
	}
	before := leases.Calls()
	b.Live()
	if n := leases.Calls() - before; n != 0 {
		t.Errorf("Live asked the store %d times", n)
	}
	leases.Fail(errors.New("away"))
	lives(b, "a", "b", "c")
	leases.Fail(nil)
	leases.Flush()
	lives(b, "b")
	lives(a, "a", "b")
	if err := leases.Leave(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	lives(c, "b", "c")
}

// TestRendezvous shows that members agree, that each gets its part of the keys, and that only the
// keys of one that leaves move. Other versions choose the same: the names of members are fixed.
func TestRendezvous(t *testing.T) {
	var all []fleet.Member
	for i := range 5 {
		all = append(all, fleet.Member{ID: fmt.Sprint("member ", i)})
	}
	turned := slices.Clone(all)
	slices.Reverse(turned)
	const keys = 5000
	parts := map[string]int{}
	for i := range keys {
		key := fmt.Sprint("library/alpine:", i)
		m := fleet.Rendezvous(key, all)
		parts[m.ID]++
		if other := fleet.Rendezvous(key, turned); other != m {
			t.Fatalf("%s: %s and %s", key, m.ID, other.ID)
		}
		if left := fleet.Rendezvous(key, all[:4]); m.ID != "member 4" && left != m {
			t.Fatalf("%s moved from %s to %s", key, m.ID, left.ID)
		}
	}
	for id, n := range parts {
		if n < keys/5*8/10 || n > keys/5*12/10 {
			t.Errorf("%s has %d of %d keys", id, n, keys)
		}
	}
	for key, want := range map[string]string{"library/alpine:3": "member 2", "library/alpine:latest": "member 1", "": "member 4"} {
		if got := fleet.Rendezvous(key, all).ID; got != want {
			t.Errorf("%q: %s, want %s", key, got, want)
		}
	}
	if got := fleet.Rendezvous("key", nil); got != (fleet.Member{}) {
		t.Errorf("without members: %+v", got)
	}
}
