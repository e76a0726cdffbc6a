package meta_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dray/cache/meta"
	"dray/cache/meta/metatest"
)

// remote is a shared store whose clock differs from that of this machine.
type remote struct {
	*metatest.Memory
	ahead time.Duration
	err   error
	asked int
}

func (r *remote) Clock(context.Context) (store, local time.Time, err error) {
	now := time.Now()
	r.asked++
	return now.Add(r.ahead), now, r.err
}

// TestClockOfStore has the clock of the store date the facts, whatever the clocks of the mirrors
// say.
func TestClockOfStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, ahead := range []time.Duration{-1000 * time.Hour, time.Hour} {
			store := &remote{Memory: metatest.NewMemory(), ahead: ahead}
			cached := meta.NewCached(store, meta.CachedOptions{})
			tags := meta.NewTags(cached, meta.Options{})
			asked := time.Now()
			_, q, _ := tags.Ask(t.Context(), latest("oci"))
			time.Sleep(3 * time.Second) // the upstream takes a while
			if ok, err := tags.Set(t.Context(), q, meta.TagFact{Digest: one}, 0); !ok || err != nil {
				t.Fatal(ok, err)
			}
			// Another mirror, whose clock is wrong by a day, has recorded the same fact.
			for key, text := range metatest.Listing(t, store, "v1/tag/") {
				stamp := fmt.Sprintf(`"t":%d`, asked.Add(ahead).UnixNano())
				if !strings.Contains(text, stamp) {
					t.Errorf("%s lacks %s", text, stamp)
				}
				wrong := strings.Replace(text, fmt.Sprintf(`"c":%d`, asked.UnixNano()), fmt.Sprintf(`"c":%d`, asked.Add(24*time.Hour).UnixNano()), 1)
				metatest.Put(t, store, key, wrong, time.Hour)
			}
			for range 60 {
				time.Sleep(time.Second)
				if f, err := tags.Get(t.Context(), latest("oci")); err != nil || !f.CheckedAt.Equal(asked) {
					t.Fatalf("%v after %v: %+v, %v", ahead, time.Since(asked), f, err)
				}
			}
			if store.asked > 8 {
				t.Errorf("the store was asked for its time %d times in a minute", store.asked)
			}
			// A clock that jumps, as when Redis fails over, is noticed.
			store.ahead += time.Minute
			time.Sleep(10 * time.Second)
			if f, err := tags.Get(t.Context(), latest("oci")); err != nil || !f.CheckedAt.Equal(asked.Add(-time.Minute)) {
				t.Errorf("after a jump: %+v, %v", f, err)
			}
		}
	})
}

// TestClockUnknown has a store that does not tell its time. Facts are not sent there, because they
// would have the date of another clock.
func TestClockUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &remote{Memory: metatest.NewMemory(), err: errors.New("no time")}
		tags := meta.NewTags(meta.NewCached(store, meta.CachedOptions{}), meta.Options{})
		if err := set(t, tags, latest("oci"), meta.TagFact{Digest: one}, 0); !errors.Is(err, store.err) {
			t.Errorf("recorded: %v", err)
		}
		if f, err := tags.Get(t.Context(), latest("oci")); err != nil || f.Digest != one {
			t.Errorf("not in memory: %v", err)
		}
		if got := metatest.Listing(t, store, ""); len(got) != 0 {
			t.Errorf("the store has %v", got)
		}
	})
}
