package upstream

import "slices"

// waiter is a request in a queue.
type waiter struct {
	flow string
	// ready receives nil when the request may be sent, or the reason why it will not be.
	ready chan error
	// background says which queue the request is in, and finished that it has left its queue.
	background, finished bool
	// urgent is closed when a client starts to wait for the request; nil if that cannot happen.
	urgent <-chan struct{}
}

func (w *waiter) finish(err error) {
	w.finished = true
	w.ready <- err // never blocks: the channel has a buffer of one
}

// queue takes one request from each flow in turn.
type queue struct {
	flows map[string]*flow
	ring  []*flow // the flows with requests, in the order of their turns
	size  int
}

// flow holds the requests of one repository, in the order of arrival.
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

// pop removes and returns the next request. The queue must not be empty.
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

// ahead returns how many requests would be sent before one that joins a flow now.
func (q *queue) ahead(flowName string) int {
	mine := q.length(flowName)
	n := mine
	for _, f := range q.ring {
		if len(f.waiting) > 0 && f.waiting[0].flow != flowName {
			n += min(len(f.waiting), mine+1)
		}
	}
	return n
}

// length returns how many requests of a flow wait.
func (q *queue) length(flowName string) int {
	if f := q.flows[flowName]; f != nil {
		return len(f.waiting)
	}
	return 0
}

// removeNewest removes and returns the newest request of the longest flow, or nil if no flow
// has more than moreThan requests.
func (q *queue) removeNewest(moreThan int) *waiter {
	var longest *flow
	for _, f := range q.ring {
		if len(f.waiting) > moreThan && (longest == nil || len(f.waiting) > len(longest.waiting)) {
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
