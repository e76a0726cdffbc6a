package identity

import (
	"context"
	"slices"
	"sync"
	"time"

	"dray/upstream/oci"
)

// turns bounds how many passwords are hashed at the same time. Requests that wait take turns:
// first by network address, and among the requests of one address by user.
type turns struct {
	mu      sync.Mutex // guards what follows
	free    int
	waiting lane
}

// lane holds the waiters that have one name in common. They are in lanes below it, or in its queue.
type lane struct {
	name  string
	size  int
	lanes []*lane
	queue []*waiter
}

// waiter is a request that waits. lanes holds the names of its lanes, outermost first. ready gets
// nil when its turn has come.
type waiter struct {
	lanes [2]string
	ready chan error
}

// maxStrangers bounds the waiters. One processor hashes about as many passwords within
// strangersWait.
const maxStrangers = 128

// errCrowded refuses requests that cannot get a turn in time.
var errCrowded = crowded()

func crowded() error {
	e := oci.ErrTooManyRequests.With("too many passwords are being checked; try again later")
	e.RetryAfter = time.Second
	return e
}

func newTurns(n int) *turns { return &turns{free: n} }

// take waits for a turn, which done ends. The error is [errCrowded], or the cause of ctx's end.
func (t *turns) take(ctx context.Context, lanes [2]string) (done func(), err error) {
	w := &waiter{lanes: lanes, ready: make(chan error, 1)}
	t.mu.Lock()
	t.waiting.add(w, 0)
	t.next()
	if t.waiting.size > maxStrangers {
		last := t.waiting.newest()
		t.waiting.remove(last, 0, false)
		last.ready <- errCrowded
	}
	t.mu.Unlock()
	select {
	case err := <-w.ready:
		if err != nil {
			return nil, err
		}
		return t.end, nil
	case <-ctx.Done():
		t.leave(w)
		return nil, context.Cause(ctx)
	}
}

// leave removes a waiter. It passes on a turn that was given at the same moment.
func (t *turns) leave(w *waiter) {
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case err := <-w.ready:
		if err == nil {
			t.free++
			t.next()
		}
	default:
		t.waiting.remove(w, 0, false)
	}
}

func (t *turns) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.free++
	t.next()
}

// next gives the free turns to waiters; t.mu is held.
func (t *turns) next() {
	for t.free > 0 && t.waiting.size > 0 {
		w := t.waiting.first()
		t.waiting.remove(w, 0, true)
		t.free--
		w.ready <- nil
	}
}

func (l *lane) add(w *waiter, depth int) {
	l.size++
	if depth == len(w.lanes) {
		l.queue = append(l.queue, w)
		return
	}
	i := l.index(w.lanes[depth])
	if i < 0 {
		i = len(l.lanes)
		l.lanes = append(l.lanes, &lane{name: w.lanes[depth]})
	}
	l.lanes[i].add(w, depth+1)
}

func (l *lane) index(name string) int {
	return slices.IndexFunc(l.lanes, func(x *lane) bool { return x.name == name })
}

// first returns the waiter whose turn is next.
func (l *lane) first() *waiter {
	for len(l.lanes) > 0 {
		l = l.lanes[0]
	}
	return l.queue[0]
}

// newest returns the last waiter of the longest lane, or of the last one of equal length.
func (l *lane) newest() *waiter {
	for len(l.lanes) > 0 {
		most := l.lanes[0]
		for _, x := range l.lanes {
			if x.size >= most.size {
				most = x
			}
		}
		l = most
	}
	return l.queue[len(l.queue)-1]
}

// remove takes a waiter out of its lanes. If it was served, they move behind the others.
func (l *lane) remove(w *waiter, depth int, served bool) {
	l.size--
	if depth == len(w.lanes) {
		l.queue = slices.DeleteFunc(l.queue, func(x *waiter) bool { return x == w })
		return
	}
	i := l.index(w.lanes[depth])
	inner := l.lanes[i]
	inner.remove(w, depth+1, served)
	if inner.size == 0 || served {
		l.lanes = slices.Delete(l.lanes, i, i+1)
	}
	if inner.size > 0 && served {
		l.lanes = append(l.lanes, inner)
	}
}
