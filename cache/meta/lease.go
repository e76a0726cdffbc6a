package meta

import (
	"context"
	"time"
)

// Lease says how long what was made of several reads may be used again without
// reading: exactly as long as a [Cached] would answer each of them from memory, and
// until anything is written here that could change one of them. The zero value and nil are no
// longer valid, and neither is one without reads: what comes from a store that is not
// fronted, from one that failed, or is not yet saved, has to be read each time.
//
// All reads must go through stores of one kind, fronted or not. Reads must be done by one
// goroutine; Valid may be called by any once they are.
type Lease struct {
	until   time.Time // the earliest end of all reads
	refused bool
	marks   []mark
}

// mark is how many writes a stripe had seen before a read.
type mark struct {
	stripe *stripe
	writes uint64
}

// leasing is a [Store] that knows how long its answers hold. l may be nil.
type leasing interface {
	getLeased(ctx context.Context, key string, l *Lease) ([]byte, error)
}

// GetLeased is s.Get, covered by l where s can tell how long its answer holds.
func GetLeased(ctx context.Context, s Store, key string, l *Lease) ([]byte, error) {
	if s, ok := s.(leasing); ok {
		return s.getLeased(ctx, key, l)
	}
	return s.Get(ctx, key)
}

// Valid reports whether all reads would still be answered alike from memory. It costs
// some ten nanoseconds.
func (l *Lease) Valid(now time.Time) bool {
	if l == nil || len(l.marks) == 0 || l.refused || !now.Before(l.until) {
		return false
	}
	for _, m := range l.marks {
		if m.stripe.writes.Load() != m.writes {
			return false
		}
	}
	return true
}

// Join makes the lease cover what another one covers, too.
func (l *Lease) Join(o *Lease) {
	if len(o.marks) > 0 && (len(l.marks) == 0 || o.until.Before(l.until)) {
		l.until = o.until
	}
	l.refused = l.refused || o.refused
	l.marks = append(l.marks, o.marks...)
}

// note covers the read of h from a stripe that had seen so many writes before.
func (l *Lease) note(s *stripe, writes uint64, h held) {
	if l == nil {
		return
	}
	end := h.fresh
	if !h.dead.IsZero() && h.dead.Before(end) {
		end = h.dead
	}
	if l == nil || len(l.marks) == 0 || end.Before(l.until) {
		l.until = end
	}
	l.marks = append(l.marks, mark{s, writes})
}

// refuse ends the lease: something was read that memory may not answer again.
func (l *Lease) refuse() {
	if l != nil {
		l.refused = true
	}
}
