package disk

// Reason says why a blob is the next one to be evicted.
type Reason string

// The reasons of an eviction.
const (
	// ReasonUnused: the blob was not asked for since it came, or since the directory was opened. It
	// is the oldest of these blobs, which have more than their share.
	ReasonUnused Reason = "unused"
	// ReasonCold: the blob was asked for, but the rounds of the queue that its hits give it are
	// over. A long plan goes around the queues several times, so it also names blobs that are often
	// asked for now.
	ReasonCold Reason = "cold"
)

// clock chooses victims, one after the other, and turns the queues as it does. The queues are
// those of the policy, or a plan of them.
type clock struct {
	small, large queues
	smallMax     int64 // in bytes; 0: smallPercent of the held bytes
}

// queues are the two queues of a pool.
type queues struct {
	fresh, main queue
	ghosts      *ghosts // nil: victims are not remembered
}

// queue is an order of entries.
type queue interface {
	size() (entries int, bytes int64)
	take() (e *entry, hits uint32) // removes the oldest entry; there must be one
	put(e *entry, hits uint32)     // adds e as the newest entry
}

var (
	_ queue = (*fifo)(nil)
	_ queue = (*plan)(nil)
)

// victim takes the next entry to evict out of its pool. It returns nil if all are busy. coming is
// the length of the blob that needs the room.
func (c *clock) victim(coming int64, busy func(*entry) bool) (*entry, Reason) {
	_, small := c.small.size()
	_, large := c.large.size()
	limit := c.smallMax
	if limit == 0 {
		limit = (small + large) / 100 * smallPercent
	}
	if coming < smallBlob {
		small += blocks(coming)
	}
	first, second := &c.large, &c.small
	if small > limit {
		first, second = second, first
	}
	if e, why := first.victim(busy); e != nil {
		return e, why
	}
	return second.victim(busy)
}

// victim removes and returns an entry. It looks at each entry no more often than the entry can
// have hits, plus once as a busy one, so the loop ends.
func (t *queues) victim(busy func(*entry) bool) (*entry, Reason) {
	entries, _ := t.size()
	for range (maxHits + 2) * entries {
		from := t.main
		fresh, freshBytes := t.fresh.size()
		older, olderBytes := t.main.size()
		if older == 0 || fresh > 0 && freshBytes*100 >= (freshBytes+olderBytes)*probation {
			from = t.fresh
		}
		e, hits := from.take()
		switch {
		case busy(e):
			t.main.put(e, hits) // in use is as good as hit
		case hits == 0 && from == t.fresh:
			_, rest := t.size()
			t.ghosts.add(e.prefix(), e.blocks(), rest)
			return e, ReasonUnused
		case hits == 0:
			return e, ReasonCold
		case from == t.fresh:
			t.main.put(e, 0)
		default:
			t.main.put(e, hits-1)
		}
	}
	return nil, ""
}

func (t *queues) size() (entries int, bytes int64) {
	fresh, freshBytes := t.fresh.size()
	older, olderBytes := t.main.size()
	return fresh + older, freshBytes + olderBytes
}

// plan is a copy of a fifo from which victims can be chosen without changing the fifo: the rest
// of the fifo, followed by the entries that were put back. It takes memory for the latter only.
type plan struct {
	at    *entry // the oldest one left
	left  int    // entries of the fifo from at on
	sum   int64
	again []requeued
}

// requeued is an entry that was put back.
type requeued struct {
	*entry
	hits uint32
}

func newPlan(q *fifo) *plan { return &plan{at: q.oldest(), left: q.len, sum: q.bytes} }

// size implements queue.
func (p *plan) size() (entries int, bytes int64) { return p.left + len(p.again), p.sum }

// take implements queue.
func (p *plan) take() (*entry, uint32) {
	var next requeued
	if p.left > 0 {
		next = requeued{p.at, p.at.hits.Load()}
		p.at = p.at.prev
		p.left--
	} else {
		next = p.again[0]
		p.again = p.again[1:]
	}
	p.sum -= next.blocks()
	return next.entry, next.hits
}

// put implements queue.
func (p *plan) put(e *entry, hits uint32) {
	p.again = append(p.again, requeued{e, hits})
	p.sum += e.blocks()
}

// plan returns a clock that chooses the same victims as [policy.clock] and changes nothing.
func (p *policy) plan() *clock {
	return &clock{
		small:    queues{fresh: newPlan(p.small.fresh), main: newPlan(p.small.main)},
		large:    queues{fresh: newPlan(p.large.fresh), main: newPlan(p.large.main)},
		smallMax: p.smallMax,
	}
}
