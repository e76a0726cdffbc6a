// Package memory keeps small objects in memory, up to a number of bytes.
package memory

import (
	"math"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/opencontainers/go-digest"
)

// LRU keeps objects by digest, up to a number of bytes. It evicts the least recently used objects
// first. All methods may be called concurrently.
type LRU struct {
	max int64

	mu    sync.Mutex // guards the fields below; leaf lock
	lru   *simplelru.LRU[digest.Digest, []byte]
	bytes int64
}

// overhead is how many bytes an object is assumed to cost in addition to its content.
const overhead = 256

// New returns an empty LRU for at most maxBytes bytes.
func New(maxBytes int64) *LRU {
	m := &LRU{max: maxBytes}
	// The number of entries needs no bound, because Add bounds the bytes. NewLRU fails only if its
	// size is below one.
	m.lru, _ = simplelru.NewLRU(math.MaxInt, func(_ digest.Digest, p []byte) {
		m.bytes -= int64(len(p)) + overhead
	})
	return m
}

// Get returns an object, and whether there is one. The caller must not change it.
func (m *LRU) Get(d digest.Digest) ([]byte, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lru.Get(d)
}

// Peek is like Get, but does not count as a use.
func (m *LRU) Peek(d digest.Digest) ([]byte, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lru.Peek(d)
}

// Add keeps p, unless p needs more than an eighth of the bytes that the LRU may have.
func (m *LRU) Add(d digest.Digest, p []byte) {
	cost := int64(len(p)) + overhead
	if cost > m.max/8 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lru.Contains(d) {
		return // the content of a digest never changes
	}
	m.lru.Add(d, p)
	m.bytes += cost
	for m.bytes > m.max {
		m.lru.RemoveOldest()
	}
}

// Remove removes an object, if there is one.
func (m *LRU) Remove(d digest.Digest) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lru.Remove(d)
}

// Size returns the number of bytes that the objects take.
func (m *LRU) Size() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.bytes
}
