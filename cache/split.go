package cache

import "context"

// Split configures the fetch of a large blob in several parts at once. It helps where an origin
// sends less on one connection than the network can carry.
type Split struct {
	// Threshold is the least length, in bytes, of a blob that is fetched in parts.
	Threshold int64
	// Piece is the length of a part in bytes.
	Piece int64
	// Streams is the number of streams that together fetch the parts of a blob in order. If it is
	// below 2, no blob is fetched in parts. If readers wait for parts that none of these streams
	// fetches, further streams fetch those parts.
	Streams int
	// Slots bounds the additional streams of all fetches that share it. The first stream of a fetch
	// takes no slot. If a fetch already has as many streams as the field Streams says, it adds a
	// stream for waiting readers only if enough slots stay free for another fetch with that many
	// streams.
	Slots *Slots
	// Part is an [Origin] for the bytes between two offsets. Any bytes after the second offset are
	// ignored. A call should fail fast. After each failure the fetch goes on with fewer streams. When
	// no additional stream is left, the fetch gets the missing bytes from its Origin.
	Part func(ctx context.Context, start, end int64) (Stream, error)
	// First is a Part for the first stream of a fetch. It may wait as long as an Origin may wait. If
	// its Stream follows another fetch (see [Stream.Follows]), the Stream may reach to the end of the
	// blob. The fetch then reads on from this Stream, and starts additional streams only for waiting
	// readers.
	First func(ctx context.Context, start, end int64) (Stream, error)
}

// Requests returns how many requests the fetch of a blob of this size takes. It assumes that the
// origin serves every range completely, and that no reader waits for the middle of the blob.
func (s *Split) Requests(size int64) int {
	if !s.worthwhile(size) {
		return 1
	}
	return int((size + s.Piece - 1) / s.Piece)
}

// [Split.worthwhile] reports whether a blob of this size is fetched in parts.
func (s *Split) worthwhile(size int64) bool {
	return s != nil && s.Streams > 1 && size >= s.Threshold && size > s.Piece
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

// takeAbove takes a slot if more than minFree slots are free.
func (s *Slots) takeAbove(minFree int) bool { return len(s.free) > minFree && s.take(1) == 1 }

// Free returns the number of free slots.
func (s *Slots) Free() int { return len(s.free) }

func (s *Slots) give(n int) {
	for range n {
		s.free <- struct{}{}
	}
}
