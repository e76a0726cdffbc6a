package cache

import (
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/opencontainers/go-digest"
)

const (
	// togetherEvery is the least time between two counted uses of the same head. More counts would
	// not change the order of eviction: it distinguishes rare from frequent use, but not frequent from
	// constant use.
	togetherEvery = time.Minute
	// togetherHeads bounds the number of heads in [together.seen].
	togetherHeads = 8192
)

// together counts uses of blobs that are used together: a head, such as a manifest, and its
// members. It remembers when it last counted each head.
type together struct {
	*resources
	mu   sync.Mutex // guards the fields below; leaf lock
	seen *simplelru.LRU[digest.Digest, time.Time]
}

func newTogether(r *resources) *together {
	seen, _ := simplelru.NewLRU[digest.Digest, time.Time](togetherHeads, nil) // fails only for sizes below one
	return &together{resources: r, seen: seen}
}

// [together.due] reports whether a use of the head must be counted now. If so, it records the time.
func (t *together) due(head digest.Digest, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if last, ok := t.seen.Get(head); ok && now.Sub(last) < togetherEvery {
		return false
	}
	t.seen.Add(head, now)
	return true
}

// Used says that a client got the head and is going to need the members. All of these blobs that
// are on disk then count as used. Without these counts, two kinds of blobs would be evicted too
// early: members that clients do not fetch, because they have them already, and a head that is
// always sent from memory. Used calls the function members at most once a minute for each head.
func (t *together) Used(head digest.Digest, members func() []digest.Digest) {
	if t.due(head, time.Now()) {
		t.disk.Use(append(members(), head)...)
	}
}
