package mirror

import (
	"context"
	"slices"
	"time"
)

// chores are small pieces of work that nobody waits for. One worker does one after the other; what cannot be done yet
// comes again. What finds no place, or is still to be done when the Mirror stops, is lost.
type chores[T any] struct {
	queue chan chore[T]
	most  int
	later []chore[T] // the worker's own
}

// chore is one piece of work.
type chore[T any] struct {
	what T
	// tries is how often it was put off.
	tries int
	due   time.Time
}

// newChores makes room for so many pieces.
func newChores[T any](most int) *chores[T] {
	return &chores[T]{queue: make(chan chore[T], most), most: most}
}

// add reports whether there is room. It never waits.
func (c *chores[T]) add(what T) bool {
	select {
	case c.queue <- chore[T]{what: what}:
		return true
	default:
		return false
	}
}

// run has the work done until ctx ends.
func (c *chores[T]) run(ctx context.Context, do func(context.Context, chore[T])) {
	t := time.NewTimer(time.Hour)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case one := <-c.queue:
			do(ctx, one)
		case <-t.C:
			waiting, now := c.later, time.Now()
			c.later = nil
			for _, one := range waiting {
				if now.Before(one.due) {
					c.later = append(c.later, one)
				} else {
					do(ctx, one)
				}
			}
		}
		if len(c.later) > 0 {
			next := slices.MinFunc(c.later, func(a, b chore[T]) int { return a.due.Compare(b.due) })
			t.Reset(max(time.Until(next.due), 0))
		}
	}
}

// putOff has a piece of work done again after the next pause. It reports false when there is none left, or no room. For the worker alone.
func (c *chores[T]) putOff(one chore[T], pauses []time.Duration) bool {
	if one.tries >= len(pauses) || len(c.later) >= c.most {
		return false
	}
	one.due = time.Now().Add(pauses[one.tries])
	one.tries++
	c.later = append(c.later, one)
	return true
}
