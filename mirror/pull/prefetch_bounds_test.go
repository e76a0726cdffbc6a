package pull

import (
	"fmt"
	"testing"

	"github.com/opencontainers/go-digest"
)

// Manifests are remembered, but not all there ever were.
func TestPrefetchForgets(t *testing.T) {
	p := newPrefetcher(Prefetch{AtOnce: 1})
	of := func(i int) digest.Digest { return digest.FromString(fmt.Sprint(i)) }
	for i := range 2*seenManifests + 5 {
		if !p.first(of(i)) {
			t.Fatalf("manifest %d was seen before", i)
		}
		p.done()
		if p.first(of(i)) {
			t.Fatalf("manifest %d is new again", i)
		}
	}
	if len(p.seen) != seenManifests || len(p.oldest) != seenManifests {
		t.Errorf("%d manifests are remembered", len(p.seen))
	}
	if !p.first(of(0)) {
		t.Error("the first manifest is never forgotten")
	}
	p.done()
	for i := range maxAhead {
		if !p.first(of(-1 - i)) {
			t.Fatalf("image %d is refused", i)
		}
	}
	if p.first(of(-1 - maxAhead)) {
		t.Error("no bound of images at a time")
	}
}

// A prefetcher that may fetch less than nothing at a time is one that fetches nothing.
func TestPrefetchOfLessThanNothing(t *testing.T) {
	p := newPrefetcher(Prefetch{AtOnce: -1})
	if p.AtOnce != 0 || cap(p.slots) != 0 {
		t.Errorf("%d at a time, %d slots", p.AtOnce, cap(p.slots))
	}
	_, done := p.want(digest.FromString("a"))
	done()
	if len(p.blobs) != 0 {
		t.Error("a request is still recorded")
	}
}

// Two fetches of a blob are two, even when the first has ended.
func TestPrefetchTwice(t *testing.T) {
	p, d := newPrefetcher(Prefetch{AtOnce: 2}), digest.FromString("a")
	first, second := p.begin(d), p.begin(d)
	if first != second {
		t.Fatal("a client that asks cannot make both urgent at once")
	}
	p.end(d)
	if ahead, done := p.want(d); !ahead {
		t.Error("the second fetch was forgotten when the first ended")
	} else {
		done()
	}
	if p.begin(d) != second {
		t.Error("the third fetch has an urgency of its own")
	}
	p.end(d)
	p.end(d)
	if len(p.blobs) != 0 {
		t.Error("the fetches are still recorded")
	}
}
