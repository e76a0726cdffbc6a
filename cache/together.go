package cache

import (
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/opencontainers/go-digest"
)

const (
	// togetherEvery bounds how often a use of the same blobs is counted: eviction tells seldom from
	// often, not often from always.
	togetherEvery = time.Minute
	// togetherHeads is how many heads are remembered as counted.
	togetherHeads = 8192
)

// together counts uses of blobs that are used together, and remembers when it did.
type together struct {
	*resources
	mu   sync.Mutex // guards below; leaf lock
	seen *simplelru.LRU[digest.Digest, time.Time]
}

func newTogether(r *resources) *together {
	seen, _ := simplelru.NewLRU[digest.Digest, time.Time](togetherHeads, nil) // fails for sizes below one only
	return &together{resources: r, seen: seen}
}

// due says whether a use of the head is to be counted now.
func (t *together) due(head digest.Digest, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if last, ok := t.seen.Get(head); ok && now.Sub(last) < togetherEvery {
		return false
	}
	t.seen.Add(head, now)
	return true
}

// Used says that a client was given head, from wherever, and is going to need the members. What of
// them is on disk then counts as asked for, so that they are evicted neither before their head,
// because this client has some of them from elsewhere, nor after it, because it was always sent
// from memory. members is asked for at most once a minute for each head.
func (t *together) Used(head digest.Digest, members func() []digest.Digest) {
	if t.due(head, time.Now()) {
		t.disk.Use(append(members(), head)...)
	}
}
