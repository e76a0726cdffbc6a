package cache

import "context"

// Split says how large blobs are fetched in several parts at once, for origins whose connections
// are slower than the line.
type Split struct {
	// Threshold in bytes: shorter blobs are fetched by one request.
	Threshold int64
	// Piece is the length of a part in bytes.
	Piece int64
	// Streams is the number of parts under way at once; below 2: the blob is fetched by one request.
	Streams int
	// Slots bounds the streams beside the first one of each fetch, over all fetches that share it.
	Slots *Slots
	// Part fetches the bytes from offset from up to offset to like an [Origin]. More bytes are
	// ignored. The part from 0 is the first one and may wait as long as an Origin does. The others
	// should fail fast: a refusal makes the fetch use fewer streams, in the end one Origin.
	Part func(ctx context.Context, from, to int64) (Stream, error)
}

// Slots bounds the streams of several fetches together.
type Slots struct{ free chan struct{} }

// NewSlots returns n free slots.
func NewSlots(n int) *Slots {
	s := &Slots{free: make(chan struct{}, max(n, 0))}
	s.give(cap(s.free))
	return s
}

// take takes at most n slots and returns how many it got. It does not wait.
func (s *Slots) take(n int) (got int) {
	for got < n {
		select {
		case <-s.free:
			got++
		default:
			return got
		}
	}
	return got
}

// Free returns how many slots no one holds.
func (s *Slots) Free() int { return len(s.free) }

func (s *Slots) give(n int) {
	for range n {
		s.free <- struct{}{}
	}
}
