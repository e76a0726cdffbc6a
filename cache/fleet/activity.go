package fleet

import (
	"cmp"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
)

// Activity is what a member does for others, and they for it.
type Activity struct {
	// Leases is how many leases the member has.
	Leases int
	// Followers is how many streams of blobs it gives to other members.
	Followers int
	// Reading has the streams by which it reads blobs from others, in the order of their digests.
	Reading []Reading
}

// Reading is a stream by which a member reads a blob from another one.
type Reading struct {
	Digest digest.Digest
	// From is the ID of the other member.
	From string
	// Bytes is how many have come.
	Bytes int64
	// Hop says how far the flight of the member that reads is from the one that asks the registry.
	Hop int
}

// Activity returns what this member does now.
func (f *Fleet) Activity() Activity {
	return Activity{Leases: f.leases(), Followers: f.readers.streams(), Reading: f.reading.all()}
}

// reading has the streams by which this member reads from others.
type reading struct {
	mu      sync.Mutex // guards the field below
	streams map[*stream]bool
}

func (r *reading) add(s *stream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.streams == nil {
		r.streams = map[*stream]bool{}
	}
	r.streams[s] = true
}

func (r *reading) remove(s *stream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.streams, s)
}

func (r *reading) all() []Reading {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]Reading, 0, len(r.streams))
	for s := range r.streams {
		all = append(all, Reading{Digest: s.q.digest, From: s.member, Bytes: s.off.Load() - s.q.want.From, Hop: s.at.hop + 1})
	}
	slices.SortFunc(all, func(a, b Reading) int { return cmp.Or(cmp.Compare(a.Digest, b.Digest), cmp.Compare(a.From, b.From)) })
	return all
}
