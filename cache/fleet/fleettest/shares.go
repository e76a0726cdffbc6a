package fleettest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"dray/cache/fleet"
)

// share says how much of a rate a member wants, and how much it has, per second.
type share struct {
	wants, has float64
	until      time.Time
}

// Share implements [fleet.Shares].
func (m *Memory) Share(ctx context.Context, member string, ttl time.Duration, wants []fleet.Need) (shares []float64, err error) {
	err = m.begin(ctx)
	defer m.mu.Unlock()
	if err != nil {
		return nil, err
	}
	for _, w := range wants {
		shares = append(shares, m.shareOf(w, member+" "+w.By, ttl))
	}
	return shares, nil
}

func (m *Memory) shareOf(want fleet.Need, by string, ttl time.Duration) float64 {
	of := m.shares[want.Rate]
	if of == nil {
		of = map[string]share{}
		m.shares[want.Rate] = of
	}
	delete(of, by)
	if want.PerSecond <= 0 {
		return 0
	}
	all, free := []float64{want.PerSecond}, want.Total
	for id, s := range of {
		if time.Now().After(s.until) {
			delete(of, id)
			continue
		}
		all, free = append(all, s.wants), free-s.has
	}
	slices.Sort(all)
	left, most := want.Total, want.PerSecond
	for i, w := range all {
		if equal := left / float64(len(all)-i); w > equal {
			most = equal
			break
		}
		left -= w
	}
	has := max(0, min(want.PerSecond, most, free))
	of[by] = share{want.PerSecond, has, time.Now().Add(ttl)}
	return has
}

// ShareStore is a store of shares, with a function that makes shares expire.
type ShareStore struct {
	fleet.Shares
	// Expire makes all shares of a rate expire.
	Expire func(rate string)
}

// ShareSuite checks a store of shares. newStore returns an empty store for one test.
func ShareSuite(t *testing.T, newStore func(t *testing.T) ShareStore) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, asking){
		"Alone": shareAlone, "Turns": shareTurns, "Fair": shareFair, "Back": shareBack, "Expiry": shareExpiry,
		"Apart": shareApart, "Never": shareNever, "Ended": shareEnded,
	} {
		t.Run(name, func(t *testing.T) { test(t, asking{t, newStore(t)}) })
	}
}

// lasting is longer than a test takes on a slow machine.
const lasting = time.Hour

// asking sends the requests of members to a store.
type asking struct {
	*testing.T
	store ShareStore
}

// [asking.get] requests a share for a member, and checks how large a share the member gets. The
// whole rate is 100 per second.
func (a asking) get(member string, wants, gets float64) {
	a.Helper()
	if got := a.of("rate", member, wants); math.Abs(got-gets) > 0.001 {
		a.Errorf("%s wants %v and gets %v instead of %v", member, wants, got, gets)
	}
}

func (a asking) of(rate, member string, wants float64) float64 {
	a.Helper()
	got, err := a.store.Share(a.Context(), member, lasting, []fleet.Need{{Rate: rate, By: "hub", Total: 100, PerSecond: wants}})
	if err != nil || len(got) != 1 {
		a.Fatalf("%s wants %v: %v, %v", member, wants, got, err)
	}
	return got[0]
}

func shareAlone(_ *testing.T, a asking) {
	a.get("a", 10, 10)
	a.get("a", 1000, 100)
	a.get("a", 0.25, 0.25)
}

// shareTurns checks that a member keeps its whole share until it calls again, even if other members
// want parts of it.
func shareTurns(_ *testing.T, a asking) {
	a.get("a", 1000, 100)
	a.get("b", 1000, 0)
	a.get("a", 1000, 50)
	a.get("b", 1000, 50)
	a.get("c", 1000, 0)
	a.get("b", 1000, 100./3)
	a.get("c", 1000, 50./3)
	a.get("a", 1000, 100./3)
	a.get("c", 1000, 100./3)
}

// shareFair checks that members with small needs get all that they want, and that the other members
// get equal parts of the rest.
func shareFair(_ *testing.T, a asking) {
	for range 2 {
		for _, m := range []struct {
			id    string
			wants float64
		}{{"little", 10}, {"more", 30}, {"much", 200}, {"as much", 45}} {
			a.of("rate", m.id, m.wants)
		}
	}
	a.get("little", 10, 10)
	a.get("more", 30, 30)
	a.get("much", 200, 30)
	a.get("as much", 45, 30)
}

func shareBack(_ *testing.T, a asking) {
	a.get("a", 1000, 100)
	a.get("b", 1000, 0)
	a.get("a", 0, 0)
	a.get("b", 1000, 100)
	a.get("nobody", 0, 0)
}

// shareExpiry checks that the share of a failed member is free after it has expired.
func shareExpiry(_ *testing.T, a asking) {
	a.get("a", 1000, 100)
	a.get("b", 1000, 0)
	a.store.Expire("rate")
	a.get("b", 1000, 100)
}

// shareApart checks that rates do not affect each other, and that the components of a member have
// separate shares.
func shareApart(t *testing.T, a asking) {
	a.get("a", 1000, 100)
	if got := a.of("other", "b", 1000); got != 100 {
		t.Errorf("another rate gives %v", got)
	}
	got, err := a.store.Share(t.Context(), "a", lasting, []fleet.Need{
		{Rate: "third", By: "x", Total: 10, PerSecond: 6}, {Rate: "third", By: "y", Total: 10, PerSecond: 6}, {Rate: "other", By: "x", Total: 100, PerSecond: 1}, {Rate: "fourth", Total: 7, PerSecond: 70},
	})
	if err != nil || !slices.Equal(got, []float64{6, 4, 0, 7}) {
		t.Errorf("several at once: %v, %v", got, err)
	}
	if got, err := a.store.Share(t.Context(), "a", lasting, nil); err != nil || len(got) != 0 {
		t.Errorf("nothing: %v, %v", got, err)
	}
}

// shareNever makes members request and release shares at random, and checks that their shares
// together never exceed the total.
func shareNever(t *testing.T, a asking) {
	rnd, has := rand.New(rand.NewPCG(1, 2)), map[string]float64{}
	for range 500 {
		m, wants := fmt.Sprint(rnd.IntN(5)), 0.
		if rnd.IntN(4) > 0 {
			wants = rnd.Float64() * 150
		}
		has[m] = a.of("rate", m, wants)
		sum := 0.
		for _, s := range has {
			sum += s
		}
		if sum > 100.001 || has[m] > wants+0.001 {
			t.Fatalf("%s wants %v; all have %v together: %v", m, wants, sum, has)
		}
	}
}

func shareEnded(t *testing.T, a asking) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.store.Share(ctx, "a", lasting, []fleet.Need{{Rate: "rate", Total: 100, PerSecond: 100}}); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled call: %v", err)
	}
	a.get("b", 100, 100)
}
