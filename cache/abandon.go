package cache

import (
	"errors"
	"time"
)

// ErrAbandoned is how a fetch ends that nobody reads any more; see [Abandon]. No reader gets it.
var ErrAbandoned = errors.New("nobody reads it any more")

// Abandon says what becomes of a fetch whose readers have all left. It is finished,
// unless all of this says otherwise.
type Abandon struct {
	// StopAbove in bytes: fetches of blobs up to this length are finished in any case. Zero: all are.
	// Where the length is not known, what has arrived counts.
	StopAbove int64
	// FinishPercent of the bytes: a fetch that has so much is finished. Zero means 50.
	FinishPercent int
	// Grace is how long the fetch goes on before it is stopped, so that somebody who comes
	// back, or asks for the next range, finds it. Zero means 10 s.
	Grace time.Duration
}

// worth says whether a fetch of length bytes (-1: not known) of which some have arrived is finished
// for nobody.
func (a *Abandon) worth(length, arrived int64) bool {
	switch {
	case max(length, arrived) <= a.StopAbove:
		return true
	case length < 0:
		return false
	default:
		return arrived*100 >= length*int64(a.FinishPercent)
	}
}

// watch has a flight looked at when it has been without readers for a while.
func (s *flights) watch(f *flight, g *growing, x *fetch) {
	if s.abandoned.StopAbove > 0 {
		g.grace = s.abandoned.Grace
		g.lonely = time.AfterFunc(g.grace, func() { s.abandon(f, x) })
	}
}

// abandon stops a flight that nobody reads and that is not worth finishing.
func (s *flights) abandon(f *flight, x *fetch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := f.file
	g.mu.Lock() // the two together: nobody may join meanwhile
	defer g.mu.Unlock()
	switch {
	case g.over || g.users > 1:
		return
	case f.waiting > 0: // somebody is about to join, or to leave
		g.lonely.Reset(g.grace)
		return
	case s.abandoned.worth(g.length, g.arrived):
		if g.length < 0 { // for now
			g.lonely.Reset(g.grace)
		}
		return
	}
	delete(s.byDigest, f.digest) // who comes now starts anew
	x.giveUp(ErrAbandoned)
}

// unread counts a flight that ended without readers.
func (s *flights) unread(g *growing, err error) {
	g.mu.Lock()
	alone := g.users == 1
	g.mu.Unlock()
	switch {
	case errors.Is(err, ErrAbandoned):
		s.m.abandoned.WithLabelValues("stopped").Inc()
	case err == nil && alone:
		s.m.abandoned.WithLabelValues("finished").Inc()
	}
}
