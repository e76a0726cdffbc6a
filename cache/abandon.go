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

// worth says whether a fetch of length bytes (-1: not known) of which some have arrived is finished for nobody.
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
func (c *Cache) watch(f *flight, g *growing, x *fetch) {
	if c.opts.Abandon.StopAbove > 0 {
		g.grace = c.opts.Abandon.Grace
		g.lonely = time.AfterFunc(g.grace, func() { c.desert(f, x) })
	}
}

// desert stops a flight that nobody reads and that is not worth finishing.
func (c *Cache) desert(f *flight, x *fetch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := f.file
	g.mu.Lock() // the two together: nobody may board meanwhile
	defer g.mu.Unlock()
	switch {
	case g.over || g.users > 1:
		return
	case f.waiting > 0: // somebody is about to board, or to leave
		g.lonely.Reset(g.grace)
		return
	case c.opts.Abandon.worth(g.length, g.arrived):
		if g.length < 0 { // for now
			g.lonely.Reset(g.grace)
		}
		return
	}
	delete(c.flights, f.digest) // who comes now starts anew
	x.giveUp(ErrAbandoned)
}

// unread counts a flight that ended without readers.
func (c *Cache) unread(g *growing, err error) {
	g.mu.Lock()
	alone := g.users == 1
	g.mu.Unlock()
	switch {
	case errors.Is(err, ErrAbandoned):
		c.m.abandoned.WithLabelValues("stopped").Inc()
	case err == nil && alone:
		c.m.abandoned.WithLabelValues("finished").Inc()
	}
}
