package s3

import (
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/opencontainers/go-digest"
)

const (
	// maxSeen bounds the number of digests whose presence in the bucket is remembered.
	maxSeen = 32 << 10
	// absentFor is how long dray waits before it asks the bucket again for a blob that the bucket did
	// not have. The wait saves requests, because one pull looks for the same manifest more than once.
	absentFor = 10 * time.Second
)

// sighting is the last known state of one object of the bucket. The zero value means that nothing
// is known.
type sighting struct {
	written time.Time // the object was there, and had been written at this time
	absent  time.Time // the object was not there at this time
	wrong   bool      // the bytes of the object were wrong
}

func (s sighting) present() bool { return !s.written.IsZero() }

// seen remembers the newest sightings. It may drop any of them. dray then asks the bucket.
type seen struct {
	mu  sync.Mutex
	all *simplelru.LRU[digest.Digest, sighting]
}

func newSeen() *seen {
	all, _ := simplelru.NewLRU[digest.Digest, sighting](maxSeen, nil) // fails only for sizes below 1
	return &seen{all: all}
}

func (s *seen) get(d digest.Digest) sighting {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, _ := s.all.Get(d)
	return at
}

func (s *seen) set(d digest.Digest, to sighting) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all.Add(d, to)
}

// add is like set, but does nothing for an object whose bytes were wrong. They stay wrong until
// dray writes a new object, and then dray calls set.
func (s *seen) add(d digest.Digest, to sighting) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at, _ := s.all.Get(d); !at.wrong {
		s.all.Add(d, to)
	}
}

// worthAsking reports whether the bucket may have right bytes of a blob.
func (s *seen) worthAsking(d digest.Digest) bool {
	at := s.get(d)
	return !at.wrong && (at.absent.IsZero() || time.Since(at.absent) >= absentFor)
}
