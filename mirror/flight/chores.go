package flight

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Chores are small pieces of work that nobody waits for. One worker does one after the other; what cannot be done yet
// comes again. What finds no place, or is still to be done when the Mirror stops, is lost.
type Chores[T any] struct {
	most int
	wake chan struct{} // tells the worker of something to do; capacity 1

	mu    sync.Mutex // guards what follows
	fresh []Chore[T] // in the order in which they came
	later []Chore[T]
	doing *underway[T] // what the worker is at; nil: nothing
}

// Chore is one piece of work.
type Chore[T any] struct {
	What T
	// tries is how often it was put off.
	tries int
	due   time.Time
}

// underway is a piece of work that is being done.
type underway[T any] struct {
	what    T
	cancel  context.CancelFunc
	done    chan struct{}
	dropped bool
}

// NewChores makes room for so many pieces, and for as many that were put off.
func NewChores[T any](most int) *Chores[T] {
	return &Chores[T]{most: most, wake: make(chan struct{}, 1)}
}

// Add reports whether there is room. It never waits.
func (c *Chores[T]) Add(what T) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.fresh) >= c.most {
		return false
	}
	c.fresh = append(c.fresh, Chore[T]{What: what})
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return true
}

// Run has the work done until ctx ends.
func (c *Chores[T]) Run(ctx context.Context, do func(context.Context, Chore[T])) {
	t := time.NewTimer(time.Hour)
	defer t.Stop()
	for ctx.Err() == nil {
		one, wait := c.next(time.Now())
		if one != nil {
			c.one(ctx, *one, do)
			continue
		}
		t.Reset(wait)
		select {
		case <-ctx.Done():
		case <-c.wake:
		case <-t.C:
		}
	}
}

// next takes what is due, or says how long nothing will be.
func (c *Chores[T]) next(now time.Time) (*Chore[T], time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	wait, first := time.Hour, -1
	for i, one := range c.later {
		if left := one.due.Sub(now); left < wait {
			wait, first = left, i
		}
	}
	switch {
	case first >= 0 && wait <= 0:
		one := c.later[first]
		c.later = slices.Delete(c.later, first, first+1)
		return &one, 0
	case len(c.fresh) > 0:
		one := c.fresh[0]
		c.fresh = slices.Delete(c.fresh, 0, 1)
		return &one, 0
	}
	return nil, wait
}

// one does one piece.
func (c *Chores[T]) one(ctx context.Context, one Chore[T], do func(context.Context, Chore[T])) {
	own, cancel := context.WithCancel(ctx)
	defer cancel()
	at := &underway[T]{what: one.What, cancel: cancel, done: make(chan struct{})}
	c.mu.Lock()
	c.doing = at
	c.mu.Unlock()
	do(own, one)
	c.mu.Lock()
	c.doing = nil
	c.mu.Unlock()
	close(at.done)
}

// PutOff has a piece of work done again after the next pause. It reports false when there is none left, or no room. For the worker alone.
func (c *Chores[T]) PutOff(one Chore[T], pauses []time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.doing != nil && c.doing.dropped {
		return true // nobody wants it any more
	}
	if one.tries >= len(pauses) || len(c.later) >= c.most {
		return false
	}
	one.due = time.Now().Add(pauses[one.tries])
	one.tries++
	c.later = append(c.later, one)
	return true
}

// Drop gives up the work that which picks, and returns it. What is being done is ended, and has ended then unless ctx ends before.
func (c *Chores[T]) Drop(ctx context.Context, which func(T) bool) (dropped []T) {
	c.mu.Lock()
	picked := func(one Chore[T]) bool {
		if !which(one.What) {
			return false
		}
		dropped = append(dropped, one.What)
		return true
	}
	c.fresh, c.later = slices.DeleteFunc(c.fresh, picked), slices.DeleteFunc(c.later, picked)
	at := c.doing
	if at != nil && which(at.what) {
		at.dropped = true
		dropped = append(dropped, at.what)
	} else {
		at = nil
	}
	c.mu.Unlock()
	if at != nil {
		at.cancel()
		select {
		case <-at.done:
		case <-ctx.Done():
		}
	}
	return dropped
}
