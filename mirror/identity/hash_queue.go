package identity

import (
	"context"
	"slices"
	"sync"
	"time"

	"dray/upstream/oci"
)

// hashQueue bounds how many passwords are hashed at the same time. It serves waiting requests round
// robin: first by network address, and among the requests of one address by user.
type hashQueue struct {
	mu      sync.Mutex // guards the fields below
	free    int
	waiting waiterGroup
}

// waiterGroup has the waiters of one name, such as an address or a user. An outer group has inner
// groups. An innermost group has its waiters in its queue.
type waiterGroup struct {
	name   string
	size   int
	groups []*waiterGroup
	queue  []*waiter
}

// waiter is a request that waits. groups holds the names of its groups, the outermost first. The
// channel ready delivers nil when the password of the request may be hashed. If the queue drops the
// waiter because too many wait, ready delivers errCrowded.
type waiter struct {
	groups [2]string
	ready  chan error
}

// maxWaiting bounds the waiters. One processor hashes about this number of passwords within
// hashTimeout.
const maxWaiting = 128

// errCrowded is the error for requests whose passwords cannot be hashed in time.
var errCrowded = crowded()

func crowded() error {
	e := oci.ErrTooManyRequests.With("too many passwords are being checked; try again later")
	e.RetryAfter = time.Second
	return e
}

func newHashQueue(n int) *hashQueue { return &hashQueue{free: n} }

// acquire waits until a password may be hashed. The caller calls release after hashing it. The
// error is [errCrowded], or the cause of ctx's end.
func (t *hashQueue) acquire(ctx context.Context, groups [2]string) (release func(), err error) {
	w := &waiter{groups: groups, ready: make(chan error, 1)}
	t.mu.Lock()
	t.waiting.add(w, 0)
	t.next()
	if t.waiting.size > maxWaiting {
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
		return t.release, nil
	case <-ctx.Done():
		t.abandon(w)
		return nil, context.Cause(ctx)
	}
}

// abandon removes a waiter. If the waiter was served at the same moment, the next waiter is served
// instead.
func (t *hashQueue) abandon(w *waiter) {
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

func (t *hashQueue) release() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.free++
	t.next()
}

// next serves waiters until the allowed number of passwords is being hashed. The caller holds t.mu.
func (t *hashQueue) next() {
	for t.free > 0 && t.waiting.size > 0 {
		w := t.waiting.first()
		t.waiting.remove(w, 0, true)
		t.free--
		w.ready <- nil
	}
}

func (l *waiterGroup) add(w *waiter, depth int) {
	l.size++
	if depth == len(w.groups) {
		l.queue = append(l.queue, w)
		return
	}
	i := l.index(w.groups[depth])
	if i < 0 {
		i = len(l.groups)
		l.groups = append(l.groups, &waiterGroup{name: w.groups[depth]})
	}
	l.groups[i].add(w, depth+1)
}

func (l *waiterGroup) index(name string) int {
	return slices.IndexFunc(l.groups, func(x *waiterGroup) bool { return x.name == name })
}

// first returns the waiter to serve next.
func (l *waiterGroup) first() *waiter {
	for len(l.groups) > 0 {
		l = l.groups[0]
	}
	return l.queue[0]
}

// newest finds the largest outer group, and in this group the largest inner group. It returns the
// last waiter of the inner group. Among groups of equal size, it chooses the last.
func (l *waiterGroup) newest() *waiter {
	for len(l.groups) > 0 {
		most := l.groups[0]
		for _, x := range l.groups {
			if x.size >= most.size {
				most = x
			}
		}
		l = most
	}
	return l.queue[len(l.queue)-1]
}

// remove takes a waiter out of its groups. If the waiter was served, its groups move behind the
// other groups.
func (l *waiterGroup) remove(w *waiter, depth int, served bool) {
	l.size--
	if depth == len(w.groups) {
		l.queue = slices.DeleteFunc(l.queue, func(x *waiter) bool { return x == w })
		return
	}
	i := l.index(w.groups[depth])
	inner := l.groups[i]
	inner.remove(w, depth+1, served)
	if inner.size == 0 || served {
		l.groups = slices.Delete(l.groups, i, i+1)
	}
	if inner.size > 0 && served {
		l.groups = append(l.groups, inner)
	}
}
