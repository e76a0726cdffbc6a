package fleet

import (
	"cmp"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
)

// Activity describes the leases of a member, and its streams to and from other members.
type Activity struct {
	// Leases is how many leases the member has.
	Leases int
	// Followers is how many streams of blobs the member sends to other members.
	Followers int
	// Reading has the streams by which the member reads blobs from other members, sorted by digest.
	Reading []Reading
}

// Reading is a stream by which a member reads a blob from another member.
type Reading struct {
	Digest digest.Digest
	// From is the ID of the other member.
	From string
	// Bytes is how many bytes have arrived.
	Bytes int64
	// Hop is the number of streams between the member that asks the registry and this member. It
	// includes this stream.
	Hop int
}

// Activity returns what this member does now.
func (f *Fleet) Activity() Activity {
	return Activity{Leases: f.leases(), Followers: f.readers.streams(), Reading: f.reading.all()}
}

// reading has the streams by which this member reads from other members.
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
