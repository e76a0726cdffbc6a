// Package turns has a queue of requests in which repositories take turns.
package turns

import "slices"

// Waiter is a request in a queue.
type Waiter struct {
	// Flow is the name of the repository.
	Flow string
	// Ready receives nil when the request may be sent, or the error that says why it will not be sent.
	// The channel has a buffer of one.
	Ready chan error
	// Background says that the request is background work. Finished says that the request has left its
	// queue for good.
	Background, Finished bool
	// Urgent is closed when a client starts to wait for background work; nil if the request is from a
	// client.
	Urgent <-chan struct{}
}

// Finish marks the request as finished and sends the result to Ready.
func (w *Waiter) Finish(err error) {
	w.Finished = true
	w.Ready <- err // never blocks
}

// Queue returns one request of each flow in turn. Its zero value is empty.
type Queue struct {
	flows map[string]*flow
	ring  []*flow // the flows with requests, in the order of their turns
	size  int
}

// flow is the queue of the requests of one repository, in the order of arrival.
type flow struct{ waiting []*Waiter }

// Size returns how many requests wait.
func (q *Queue) Size() int { return q.size }

// Push adds a request to its flow.
func (q *Queue) Push(w *Waiter) {
	f := q.flows[w.Flow]
	if f == nil {
		f = &flow{}
		if q.flows == nil {
			q.flows = map[string]*flow{}
		}
		q.flows[w.Flow] = f
		q.ring = append(q.ring, f)
	}
	f.waiting = append(f.waiting, w)
	q.size++
}

// Pop removes and returns the next request. The queue must not be empty.
func (q *Queue) Pop() *Waiter {
	f := q.ring[0]
	w := f.waiting[0]
	f.waiting = f.waiting[1:]
	q.size--
	q.ring = q.ring[1:]
	if len(f.waiting) > 0 {
		q.ring = append(q.ring, f)
	} else {
		delete(q.flows, w.Flow)
	}
	return w
}

// Remove removes a request. If the request is not in the queue, Remove does nothing.
func (q *Queue) Remove(w *Waiter) {
	f := q.flows[w.Flow]
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
		delete(q.flows, w.Flow)
		q.ring = slices.DeleteFunc(q.ring, func(r *flow) bool { return r == f })
	}
}

// Ahead returns how many requests would be sent before a request that joins the flow now.
func (q *Queue) Ahead(flowName string) int {
	mine := q.Length(flowName)
	n, turns := 0, mine+1
	for _, f := range q.ring {
		if f.waiting[0].Flow == flowName {
			turns = mine // this flow and those after it have one turn fewer before the new request
		}
		n += min(len(f.waiting), turns)
	}
	return n
}

// Length returns how many requests of a flow wait.
func (q *Queue) Length(flowName string) int {
	if f := q.flows[flowName]; f != nil {
		return len(f.waiting)
	}
	return 0
}

// RemoveNewest removes and returns the newest request of the longest flow. If no flow has more than
// limit requests, RemoveNewest removes nothing and returns nil.
func (q *Queue) RemoveNewest(limit int) *Waiter {
	var longest *flow
	for _, f := range q.ring {
		if len(f.waiting) > limit && (longest == nil || len(f.waiting) > len(longest.waiting)) {
			longest = f
		}
	}
	if longest == nil {
		return nil
	}
	w := longest.waiting[len(longest.waiting)-1]
	q.Remove(w)
	return w
}
