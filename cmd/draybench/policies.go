package main

import (
	"container/heap"
	"container/list"

	"dray/cache/disk"
)

// policy is a cache of some size with an order of eviction. It gets the requests of a trace in
// order, and reports for each request whether it is a hit.
type policy interface {
	request(at int) (hit bool)
}

// contender is a policy with its name in the tables of results.
type contender struct {
	name string
	make func(t *trace, capacity int64) policy
}

func contenders() []contender {
	return []contender{
		{"FIFO", func(t *trace, c int64) policy { return &queue{store: store{trace: t, capacity: c}} }},
		{"LRU", func(t *trace, c int64) policy { return &queue{store: store{trace: t, capacity: c}, renew: true} }},
		{"SIEVE", func(t *trace, c int64) policy { return &sieve{store: store{trace: t, capacity: c}} }},
		{"S3-FIFO", func(t *trace, c int64) policy { return dirPolicy{t, disk.NewSimulation(c, disk.OnePool)} }},
		{"S3-FIFO + 2 % for small blobs: dray", func(t *trace, c int64) policy { return dirPolicy{t, disk.NewSimulation(c, disk.TwoPools)} }},
		{"Belady, who knows the future", newBelady},
	}
}

// dirPolicy is S3-FIFO as dray implements it, with one pool or two pools of blobs.
type dirPolicy struct {
	trace *trace
	dir   *disk.Simulation
}

func (p dirPolicy) request(at int) bool {
	o := p.trace.objects[p.trace.requests[at]]
	return p.dir.Request(o.digest, o.size)
}

// store has the contents of a cache and their sizes, for FIFO, LRU and SIEVE.
type store struct {
	trace          *trace
	capacity, used int64
	held           map[int32]*list.Element
	order          list.List // newest first
}

// find returns the object of a request, and its element, which is nil if the cache does not have
// the object.
func (r *store) find(at int) (int32, *list.Element) {
	if r.held == nil {
		r.held = map[int32]*list.Element{}
	}
	o := r.trace.requests[at]
	return o, r.held[o]
}

func (r *store) cost(o int32) int64 { return blocks(r.trace.objects[o].size) }

func (r *store) fits(o int32) bool { return r.cost(o) <= r.capacity }

func (r *store) full(o int32) bool { return r.used+r.cost(o) > r.capacity }

func (r *store) drop(o int32, e *list.Element) {
	r.order.Remove(e)
	delete(r.held, o)
	r.used -= r.cost(o)
}

func (r *store) keep(o int32, value any) {
	r.held[o] = r.order.PushFront(value)
	r.used += r.cost(o)
}

// queue is FIFO. With renew it is LRU: a hit makes the requested object the newest.
type queue struct {
	store
	renew bool
}

func (q *queue) request(at int) bool {
	o, e := q.find(at)
	if e != nil {
		if q.renew {
			q.order.MoveToFront(e)
		}
		return true
	}
	if !q.fits(o) {
		return false
	}
	for q.full(o) {
		last := q.order.Back()
		q.drop(last.Value.(int32), last)
	}
	q.keep(o, o)
	return false
}

// sieve is SIEVE (NSDI '24). A hand walks from the oldest object to the newest. It evicts the first
// object that was not requested since the hand last passed it.
type sieve struct {
	store
	hand *list.Element
}

type sieveEntry struct {
	object  int32
	visited bool
}

func (s *sieve) request(at int) bool {
	o, e := s.find(at)
	if e != nil {
		e.Value.(*sieveEntry).visited = true
		return true
	}
	if !s.fits(o) {
		return false
	}
	for s.full(o) {
		s.evict()
	}
	s.keep(o, &sieveEntry{object: o})
	return false
}

func (s *sieve) evict() {
	e := s.hand
	for {
		if e == nil {
			e = s.order.Back()
		}
		v := e.Value.(*sieveEntry)
		if !v.visited {
			s.hand = e.Prev()
			s.drop(v.object, e)
			return
		}
		v.visited = false
		e = e.Prev()
	}
}

// belady evicts an object that is never requested again. If there is none, it evicts the object
// whose next request is the latest. If all sizes are equal, no policy has more hits. If the sizes
// differ, a policy that prefers small objects can have more hits.
type belady struct {
	trace          *trace
	capacity, used int64
	next           []int // by request: index of the next request for the same object
	held           map[int32]int
	latest         uses
}

// use is an object with the index of its next request in the trace.
type use struct {
	object int32
	next   int
}

// uses is a heap with the latest next request on top. An entry is outdated if belady.held has a
// different index for the entry's object, or lacks the object.
type uses []use

func (u uses) Len() int           { return len(u) }
func (u uses) Less(i, j int) bool { return u[i].next > u[j].next }
func (u uses) Swap(i, j int)      { u[i], u[j] = u[j], u[i] }
func (u *uses) Push(x any)        { *u = append(*u, x.(use)) }
func (u *uses) Pop() any {
	last := (*u)[len(*u)-1]
	*u = (*u)[:len(*u)-1]
	return last
}

func newBelady(t *trace, capacity int64) policy {
	b := &belady{trace: t, capacity: capacity, next: make([]int, len(t.requests)), held: map[int32]int{}}
	seen := make([]int, len(t.objects))
	for i := range seen {
		seen[i] = len(t.requests)
	}
	for i := len(t.requests) - 1; i >= 0; i-- {
		o := t.requests[i]
		b.next[i], seen[o] = seen[o], i
	}
	return b
}

func (b *belady) request(at int) bool {
	o, next := b.trace.requests[at], b.next[at]
	cost := blocks(b.trace.objects[o].size)
	_, hit := b.held[o]
	if cost > b.capacity {
		return false
	}
	if !hit {
		b.used += cost
	}
	b.held[o] = next
	heap.Push(&b.latest, use{o, next})
	for b.used > b.capacity {
		u := heap.Pop(&b.latest).(use)
		if now, held := b.held[u.object]; held && now == u.next {
			delete(b.held, u.object)
			b.used -= blocks(b.trace.objects[u.object].size)
		}
	}
	return hit
}
