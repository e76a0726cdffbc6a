package meta

import (
	"context"
	"time"
)

// Lease says how long a caller may reuse an answer that it made from several reads, without
// repeating these reads. A Lease is valid while a [Cached] would answer each of these reads from
// memory. It ends when this process writes anything that could change one of the answers. A nil
// Lease and a Lease without reads are not valid. A Lease is never valid if the store failed during
// a read, or if a read was about an upstream whose facts an [Except] does not keep. It is also
// never valid if a read could use neither the value in memory nor the value in the store. This can
// happen if the store has refused the last write of this process under the key of the read.
//
// All reads must go through a [Cached], because a Lease does not cover other reads. If no read goes
// through a Cached, the Lease is never valid. The reads must not run concurrently. After the last
// read, any goroutine may call Valid.
type Lease struct {
	until   time.Time // when the first of the answers expires
	revoked bool
	marks   []mark
}

// mark is the number of writes that a stripe had seen before a read.
type mark struct {
	stripe *stripe
	writes uint64
}

// leasing is a [Store] that knows how long its answers are valid. The Lease may be nil.
type leasing interface {
	getLeased(ctx context.Context, key string, l *Lease) ([]byte, error)
	getAllLeased(ctx context.Context, keys []string, l *Lease) ([]Seen, error)
}

// GetLeased is s.Get. If s knows how long its answer is valid, l covers the read.
func GetLeased(ctx context.Context, s Store, key string, l *Lease) ([]byte, error) {
	if s, ok := s.(leasing); ok {
		return s.getLeased(ctx, key, l)
	}
	return s.Get(ctx, key)
}

// GetAllLeased is [GetAll] of s. If s knows how long its answers are valid, l covers the reads.
func GetAllLeased(ctx context.Context, s Store, keys []string, l *Lease) ([]Seen, error) {
	if s, ok := s.(leasing); ok {
		return s.getAllLeased(ctx, keys, l)
	}
	return GetAll(ctx, s, keys)
}

// Valid reports whether the memory of the [Cached] would still give the same answers to all reads.
// It takes about ten nanoseconds.
func (l *Lease) Valid(now time.Time) bool {
	if l == nil || len(l.marks) == 0 || l.revoked || !now.Before(l.until) {
		return false
	}
	for _, m := range l.marks {
		if m.stripe.writes.Load() != m.writes {
			return false
		}
	}
	return true
}

// Join makes the lease also cover the reads of the lease o.
func (l *Lease) Join(o *Lease) {
	if len(o.marks) > 0 && (len(l.marks) == 0 || o.until.Before(l.until)) {
		l.until = o.until
	}
	l.revoked = l.revoked || o.revoked
	l.marks = append(l.marks, o.marks...)
}

// cover adds a read that was answered with h. The stripe of the key is s. writeCount is the number
// of writes that s had seen before the read.
func (l *Lease) cover(s *stripe, writeCount uint64, h held) {
	if l == nil {
		return
	}
	end := h.freshUntil
	if !h.validUntil.IsZero() && h.validUntil.Before(end) {
		end = h.validUntil
	}
	if l == nil || len(l.marks) == 0 || end.Before(l.until) {
		l.until = end
	}
	l.marks = append(l.marks, mark{s, writeCount})
}

// revoke makes the lease invalid, because the answer to one of its reads must not be reused.
func (l *Lease) revoke() {
	if l != nil {
		l.revoked = true
	}
}
