package meta_test

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/cache/meta"
	"dray/cache/meta/metatest"
)

func TestAge(t *testing.T) {
	now := time.Unix(1e9, 0)
	for recorded, want := range map[time.Time]time.Duration{
		now:                            0,
		now.Add(-time.Hour):            time.Hour,
		now.Add(2 * time.Second):       -2 * time.Second,
		now.Add(time.Minute):           math.MaxInt64,
		now.Add(1000 * 24 * time.Hour): math.MaxInt64,
		{}:                             math.MaxInt64,
	} {
		if recorded.IsZero() {
			now = time.Unix(1e10, 0) // more than a Duration holds
		}
		if got := meta.Age(now, recorded); got != want {
			t.Errorf("%v at %v: %v, want %v", recorded, now, got, want)
		}
		now = time.Unix(1e9, 0)
	}
}

func TestExpired(t *testing.T) {
	now := time.Unix(1e9, 0)
	for left, want := range map[time.Duration]bool{
		-time.Second: true, 0: true, time.Second: false, meta.MaxTTL: false, meta.MaxTTL + time.Second: false, meta.MaxTTL + time.Hour: true,
	} {
		if got := meta.Expired(now, now.Add(left)); got != want {
			t.Errorf("with %v left: %v", left, got)
		}
	}
}

// A push through a mirror whose clock was ahead does not keep other mirrors from recording what the
// tag means.
func TestTagForgottenInTheFuture(t *testing.T) {
	store := metatest.NewMemory()
	tags := meta.NewTags(store, meta.Options{})
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(70 * 365 * 24 * time.Hour) // from the year 2000 on
		if err := tags.Forget(t.Context(), "ecr", "team/app", "latest"); err != nil {
			t.Fatal(err)
		}
	})
	if err := set(t, tags, latest("oci"), meta.TagFact{Digest: one, MediaType: manifestType}, time.Hour); err != nil {
		t.Fatal(err)
	}
	if got, err := tags.Get(t.Context(), latest("oci")); err != nil || got.Digest != one {
		t.Errorf("got %v, %v", got, err)
	}
}

// A name that was recorded by a clock that was ahead is forgotten at once, and not kept forever.
func TestBaseSeenInTheFuture(t *testing.T) {
	bases := meta.NewBaseImages(metatest.NewMemory(), meta.Options{})
	layers := []digest.Digest{one, two}
	for name, seen := range map[string]time.Time{"future": time.Now().Add(1000 * 24 * time.Hour), "now": time.Now()} {
		if err := bases.Add(t.Context(), layers, meta.BaseName{Name: name, Upstream: "hub", Seen: seen}); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := bases.Named(t.Context(), layers); err != nil || len(got) != 1 || got[0].Name != "now" {
		t.Errorf("got %v, %v", got, err)
	}
}
