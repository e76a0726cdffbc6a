package cache

import (
	"errors"
	"time"
)

// ErrAbandoned is the reason for stopping a fetch whose readers have all left; see [Abandon]. No
// reader gets this error.
var ErrAbandoned = errors.New("fetch abandoned by its readers")

// Abandon says what happens to a fetch that all readers have left. After Grace, the cache stops the
// fetch if both StopAbove and FinishPercent allow that. Otherwise the fetch goes on to its end.
type Abandon struct {
	// StopAbove is a length in bytes. If a blob is not longer than this, its fetch is never
	// stopped. Zero means that no fetch is stopped. If the length of a blob is not known, the bytes
	// that have arrived count instead.
	StopAbove int64
	// FinishPercent is a share of the blob in percent. A fetch that has received at least this share
	// goes on to its end. Zero means 50.
	FinishPercent int
	// Grace is how long a fetch continues without readers before it is stopped. A client that comes
	// back within this time finds the fetch still running. Zero means 10 s.
	Grace time.Duration
}

// worthFinishing reports whether a fetch without readers may go on to its end. length is the length
// of the blob in bytes, or -1 if it is not known. arrived is how many bytes have arrived.
func (a *Abandon) worthFinishing(length, arrived int64) bool {
	switch {
	case max(length, arrived) <= a.StopAbove:
		return true
	case length < 0:
		return false
	default:
		return arrived*100 >= length*int64(a.FinishPercent)
	}
}

// watchReaders starts the timer that calls abandon when a flight has had no readers for the time
// Grace. If StopAbove is 0, there is no timer.
func (s *flights) watchReaders(f *flight, g *growing, x *fetch) {
	if s.abandoned.StopAbove > 0 {
		g.grace = s.abandoned.Grace
		g.unreadTimer = time.AfterFunc(g.grace, func() { s.abandon(f, x) })
	}
}

// abandon stops a flight that has no readers and is not worth finishing.
func (s *flights) abandon(f *flight, x *fetch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := f.file
	g.mu.Lock() // no one can join while both locks are held
	defer g.mu.Unlock()
	switch {
	case g.ended || g.users > 1:
		return
	case f.waiting > 0: // a caller is about to join or to leave the file
		g.unreadTimer.Reset(g.grace)
		return
	case s.abandoned.worthFinishing(g.length, g.arrived):
		if g.length < 0 { // check again later, because the bytes that arrive may then exceed StopAbove
			g.unreadTimer.Reset(g.grace)
		}
		return
	}
	delete(s.byDigest, f.digest) // the next caller starts a new flight
	x.giveUp(ErrAbandoned)
}

// countUnread counts a flight that abandon has stopped, or that succeeded without readers.
func (s *flights) countUnread(g *growing, err error) {
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
