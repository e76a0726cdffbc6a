package upstream

import "slices"

// waiter is a request that stands in a queue.
type waiter struct {
	flow string
	// ready gets nil when the request may be sent, or why it will not be.
	ready chan error
	// background says in which queue it stands, settled that it stands in none any more.
	background, finished bool
	// urgent is closed when somebody comes to wait for it; nil where that cannot happen.
	urgent <-chan struct{}
}

func (w *waiter) finish(err error) {
	w.finished = true
	w.ready <- err // has room for one
}

// queue lets flows take turns, one request each, so that none of them waits for more than one of
// every other.
type queue struct {
	flows map[string]*flow
	ring  []*flow // those that wait, in the order of their turns
	size  int
}

// flow is what belongs together, in the order of its arrival.
type flow struct{ waiting []*waiter }

func (q *queue) push(w *waiter) {
	f := q.flows[w.flow]
	if f == nil {
		f = &flow{}
		if q.flows == nil {
			q.flows = map[string]*flow{}
		}
		q.flows[w.flow] = f
		q.ring = append(q.ring, f)
	}
	f.waiting = append(f.waiting, w)
	q.size++
}

// pop takes the request whose turn it is; the queue is not empty.
func (q *queue) pop() *waiter {
	f := q.ring[0]
	w := f.waiting[0]
	f.waiting = f.waiting[1:]
	q.size--
	q.ring = q.ring[1:]
	if len(f.waiting) > 0 {
		q.ring = append(q.ring, f)
	} else {
		delete(q.flows, w.flow)
	}
	return w
}

func (q *queue) remove(w *waiter) {
	f := q.flows[w.flow]
	if f == nil {
		return
	}
	at := slices.Index(f.waiting, w)
	if at < 0 {
		return
	}
	f.waiting = slices.Delete(f.waiting, at, at+1)
	q.size--
	if len(f.waiting) == 0 {
		delete(q.flows, w.flow)
		q.ring = slices.DeleteFunc(q.ring, func(r *flow) bool { return r == f })
	}
}

// ahead is how many requests have their turn before one that joins a flow now.
func (q *queue) ahead(of string) int {
	mine := q.length(of)
	n := mine
	for _, f := range q.ring {
		if len(f.waiting) > 0 && f.waiting[0].flow != of {
			n += min(len(f.waiting), mine+1)
		}
	}
	return n
}

// length is how many requests of a flow wait.
func (q *queue) length(of string) int {
	if f := q.flows[of]; f != nil {
		return len(f.waiting)
	}
	return 0
}

// yield takes the newest request of the longest flow out, if that has more than so many; else it is
// nil.
func (q *queue) yield(than int) *waiter {
	var longest *flow
	for _, f := range q.ring {
		if len(f.waiting) > than && (longest == nil || len(f.waiting) > len(longest.waiting)) {
			longest = f
		}
	}
	if longest == nil {
		return nil
	}
	w := longest.waiting[len(longest.waiting)-1]
	q.remove(w)
	return w
}
