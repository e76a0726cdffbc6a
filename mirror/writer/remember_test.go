package writer

import (
	"strconv"
	"testing"

	"dray/cache/fleet"
)

// The writer that the store has just named is remembered, however many others are.
func TestRememberTheLast(t *testing.T) {
	w := &Writers{seen: map[key]sighting{}}
	for i := range 20 * maxRemembered {
		k := key{"registry.example", strconv.Itoa(i)}
		w.remember(k, fleet.Lease{Holder: "a"})
		if w.seen[k].Holder != "a" || len(w.seen) != min(i+1, maxRemembered) {
			t.Fatalf("writer %d of %d is %+v", i, len(w.seen), w.seen[k])
		}
	}
	for k := range w.seen {
		w.remember(k, fleet.Lease{Holder: "b"})
		if w.seen[k].Holder != "b" || len(w.seen) != maxRemembered {
			t.Fatalf("of %d writers, %v is %+v", len(w.seen), k, w.seen[k])
		}
	}
}
