package meta_test

import (
	"errors"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/cache/meta"
	"dray/cache/meta/metatest"
)

// Facts about an excluded upstream are neither kept nor found, and reads of them have no valid
// lease. Facts about all others are kept, even if their names begin alike.
func TestExcept(t *testing.T) {
	ctx, under := t.Context(), metatest.NewMemory()
	front := meta.NewCached(under, meta.CachedOptions{})
	s := meta.NewExcept(front, "own/é")
	tags, links, known := meta.NewTags(s, meta.Options{}), meta.NewVisibility(s, meta.Options{}), meta.NewPresence(s, meta.PresenceOptions{})
	d := digest.FromString("x")
	for _, up := range []string{"own/é", "own", "own/é/"} {
		key := meta.TagKey{Upstream: up, Repo: "own/é", Tag: "t"}
		err := errors.Join(
			set(t, tags, key, meta.TagFact{Digest: d}, 0),
			links.Add(ctx, up, "r", meta.Link{Digest: d, LinkFact: meta.LinkFact{Kind: meta.KindBlob}}),
			known.Add(ctx, up, "r", meta.Holding{Digest: d, PresenceFact: meta.PresenceFact{Kind: meta.KindBlob}}),
		)
		if err != nil {
			t.Fatal(err)
		}
		lease := &meta.Lease{}
		_, tagErr := tags.Under(lease).Get(ctx, key)
		_, linkErr := links.Get(ctx, up, "r", d)
		_, knownErr := known.Get(ctx, up, "r", d)
		for what, err := range map[string]error{"tag": tagErr, "link": linkErr, "known": knownErr} {
			if kept := err == nil; kept == (up == "own/é") || err != nil && !errors.Is(err, meta.ErrNotFound) {
				t.Errorf("%s of %q: %v", what, up, err)
			}
		}
		if lease.Valid(time.Now()) == (up == "own/é") {
			t.Errorf("a lease on the tag of %q: %v", up, lease.Valid(time.Now()))
		}
		if err := errors.Join(tags.Forget(ctx, up, "own/é", "t"), known.Forget(ctx, up, "r", d)); err != nil {
			t.Error(err)
		}
	}
	// Facts from an older configuration are hidden, too.
	if err := meta.NewVisibility(front, meta.Options{}).Add(ctx, "own/é", "r", meta.Link{Digest: d, LinkFact: meta.LinkFact{Kind: meta.KindBlob}}); err != nil {
		t.Fatal(err)
	}
	if _, err := links.Get(ctx, "own/é", "r", d); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("an old link: %v", err)
	}
}

func TestExceptSuite(t *testing.T) {
	metatest.Suite{Open: func(t *testing.T) meta.Store { return meta.NewExcept(memory(t), "nobody") }}.Run(t)
}
