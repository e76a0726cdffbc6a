package fleettest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"dray/cache/fleet"
)

// Store is a store of leases under test.
type Store struct {
	fleet.Leases
	// Flush deletes everything in the store.
	Flush func()
	// Expire makes a lease expire at once, as if LeaseTTL had passed since its renewal.
	Expire func(d digest.Digest)
	// TTL returns how much of LeaseTTL a lease has left, in milliseconds.
	TTL func(d digest.Digest) int64
}

var (
	one = fleet.Member{ID: "one", Address: "127.0.0.1:1", Zone: "a", Version: "v1", Protocol: 1}
	two = fleet.Member{ID: "two", Address: "127.0.0.2:2", Protocol: 2}
)

// Suite tests a store. newStore returns an empty store.
func Suite(t *testing.T, newStore func(t *testing.T) Store) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, Store){
		"the first takes it": first, "a failed generation is replaced once": replaced, "renewed and lost": renewed,
		"restored after a flush": restored, "released by its own generation alone": released, "many at once": many,
		"members": members, "ended contexts": ended, "expiry": expiry, "pages": pages,
	} {
		t.Run(name, func(t *testing.T) { test(t, newStore(t)) })
	}
}

func blob(i int) digest.Digest { return digest.FromString(fmt.Sprint("blob ", i)) }

// take calls Take and fails the test on an error.
func take(t *testing.T, s Store, d digest.Digest, m fleet.Member, failed int64) fleet.Lease {
	t.Helper()
	l, err := s.Take(t.Context(), d, m, failed)
	if err != nil {
		t.Fatal(err)
	}
	if l.Digest != d || l.Generation <= 0 {
		t.Fatalf("got %+v", l)
	}
	return l
}

// renew calls Renew and fails the test on an error.
func renew(t *testing.T, s Store, m fleet.Member, held ...fleet.Lease) []digest.Digest {
	t.Helper()
	lost, err := s.Renew(t.Context(), m, held)
	if err != nil {
		t.Fatal(err)
	}
	return lost
}

func first(t *testing.T, s Store) {
	l := take(t, s, blob(0), one, 0)
	if l.Holder != one.ID || l.Address != one.Address {
		t.Errorf("got %+v", l)
	}
	if found := take(t, s, blob(0), two, 0); found != l {
		t.Errorf("another member found %+v, want %+v", found, l)
	}
	if found := take(t, s, blob(0), two, l.Generation-1); found != l {
		t.Errorf("a member that had seen an older generation fail found %+v", found)
	}
	if other := take(t, s, blob(1), two, 0); other.Holder != two.ID {
		t.Errorf("the lease of another blob is %+v", other)
	}
	if again := take(t, s, blob(0), one, 0); again.Holder != one.ID || again.Generation <= l.Generation {
		t.Errorf("taken again by its holder: %+v after %+v", again, l)
	}
}

func replaced(t *testing.T, s Store) {
	l := take(t, s, blob(0), one, 0)
	by := take(t, s, blob(0), two, l.Generation)
	if by.Holder != two.ID || by.Generation <= l.Generation {
		t.Errorf("got %+v after %+v", by, l)
	}
	three := fleet.Member{ID: "three", Address: "127.0.0.3:3"}
	if found := take(t, s, blob(0), three, l.Generation); found != by {
		t.Errorf("the second that saw the generation fail found %+v, want %+v", found, by)
	}
}

func renewed(t *testing.T, s Store) {
	a, b := take(t, s, blob(0), one, 0), take(t, s, blob(1), one, 0)
	if lost := renew(t, s, one, a, b); len(lost) > 0 {
		t.Errorf("lost %v", lost)
	}
	take(t, s, blob(1), two, b.Generation)
	if lost := renew(t, s, one, a, b); !slices.Equal(lost, []digest.Digest{blob(1)}) {
		t.Errorf("lost %v, want the second", lost)
	}
	if l := take(t, s, blob(1), one, 0); l.Holder != two.ID {
		t.Errorf("the renewal of a lost lease changed it to %+v", l)
	}
}

func restored(t *testing.T, s Store) {
	l := take(t, s, blob(0), one, 0)
	s.Flush()
	if lost := renew(t, s, one, l); len(lost) > 0 {
		t.Errorf("lost %v", lost)
	}
	if found := take(t, s, blob(0), two, 0); found != l {
		t.Errorf("found %+v, want %+v", found, l)
	}
	s.Flush()
	if by := take(t, s, blob(0), two, l.Generation); by.Holder != two.ID || by.Generation <= l.Generation {
		t.Errorf("after a flush the generation is %+v, which is not above %+v", by, l)
	}
	if lost := renew(t, s, one, l); !slices.Equal(lost, []digest.Digest{blob(0)}) {
		t.Errorf("lost %v", lost)
	}
}

func released(t *testing.T, s Store) {
	l := take(t, s, blob(0), one, 0)
	by := take(t, s, blob(0), two, l.Generation)
	if err := s.Release(t.Context(), []fleet.Lease{l}); err != nil {
		t.Fatal(err)
	}
	if found := take(t, s, blob(0), one, 0); found != by {
		t.Errorf("a former holder released the lease: %+v", found)
	}
	if err := s.Release(t.Context(), []fleet.Lease{by}); err != nil {
		t.Fatal(err)
	}
	if free := take(t, s, blob(0), one, 0); free.Holder != one.ID {
		t.Errorf("the lease was not released: %+v", free)
	}
	if err := s.Release(t.Context(), nil); err != nil {
		t.Error(err)
	}
}

func many(t *testing.T, s Store) {
	const n = 16
	var taking sync.WaitGroup
	found := make([]fleet.Lease, n)
	for i := range n {
		taking.Go(func() {
			found[i], _ = s.Take(t.Context(), blob(0), fleet.Member{ID: fmt.Sprint("member ", i), Address: "127.0.0.1:1"}, 0)
		})
	}
	taking.Wait()
	for _, l := range found {
		if l != found[0] || l.Holder == "" {
			t.Errorf("members found %+v and %+v", l, found[0])
		}
	}
}

func members(t *testing.T, s Store) {
	renew(t, s, two)
	renew(t, s, one)
	all, err := s.Members(t.Context())
	if err != nil || !slices.Equal(all, []fleet.Member{one, two}) {
		t.Errorf("got %+v, %v", all, err)
	}
	if err := s.Leave(t.Context(), one.ID); err != nil {
		t.Fatal(err)
	}
	if all, err = s.Members(t.Context()); err != nil || !slices.Equal(all, []fleet.Member{two}) {
		t.Errorf("after one has left: %+v, %v", all, err)
	}
}

func ended(t *testing.T, s Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Take(ctx, blob(0), one, 0); err == nil {
		t.Error("Take succeeded")
	}
	if _, err := s.Renew(ctx, one, nil); err == nil {
		t.Error("Renew succeeded")
	}
	if _, err := s.Members(ctx); err == nil {
		t.Error("Members succeeded")
	}
	if l := take(t, s, blob(0), two, 0); l.Holder != two.ID {
		t.Errorf("a call whose context had ended took %+v", l)
	}
}

func expiry(t *testing.T, s Store) {
	l := take(t, s, blob(0), one, 0)
	if ms := s.TTL(blob(0)); ms <= 0 || ms > fleet.LeaseTTL.Milliseconds() {
		t.Errorf("the lease lasts for %d ms", ms)
	}
	renew(t, s, one, l)
	if ms := s.TTL(blob(0)); ms <= 0 || ms > fleet.LeaseTTL.Milliseconds() {
		t.Errorf("the renewed lease lasts for %d ms", ms)
	}
	s.Expire(blob(0))
	if by := take(t, s, blob(0), two, 0); by.Holder != two.ID {
		t.Errorf("after the expiry: %+v", by)
	}
}

// pages is the test that renews and releases more leases than a store on Redis sends in one
// command.
func pages(t *testing.T, s Store) {
	var all []fleet.Lease
	for i := range 600 {
		all = append(all, fleet.Lease{Digest: blob(i), Holder: one.ID, Address: one.Address, Generation: int64(i + 1)})
	}
	taken := take(t, s, blob(599), two, 0)
	if lost := renew(t, s, one, all...); !slices.Equal(lost, []digest.Digest{blob(599)}) {
		t.Errorf("lost %d leases, want one", len(lost))
	}
	for _, i := range []int{0, 300, 598} {
		if l := take(t, s, blob(i), two, 0); l != all[i] {
			t.Errorf("lease %d is %+v", i, l)
		}
	}
	if err := s.Release(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	if l := take(t, s, blob(0), two, 0); l.Holder != two.ID {
		t.Errorf("after the release: %+v", l)
	}
	if l := take(t, s, blob(599), one, 0); l != taken {
		t.Errorf("the lease of another member is %+v", l)
	}
}
