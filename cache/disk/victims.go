package disk

// Reason says why a blob is the next one to be evicted.
type Reason string

// The reasons of an eviction.
const (
	// ReasonUnused: the blob has not been asked for since it was stored, or since the directory was
	// opened. dray evicts from the short queue (the field fresh) in two cases: the short queue has at
	// least its share of the pool's bytes (the constant probation), or no blob of the main queue can
	// be evicted, because all are in use or pinned. This blob is the oldest in the short queue.
	ReasonUnused Reason = "unused"
	// ReasonCold: the blob is in the main queue, because it was asked for again, was in use, or was
	// stored again soon after an eviction. In this queue, each hit spares a blob once, and this blob
	// has no hits left. To free a lot of space, dray goes through the queue several times, and a
	// spared blob loses a hit each time. So even blobs that clients ask for often can become victims.
	ReasonCold Reason = "cold"
)

// clock chooses victims, one after the other. It removes them from the queues, and moves the
// entries that it spares to the end of the main queue. It works on the policy's own queues, or on
// copies of them (plans).
type clock struct {
	small, large queues
	// smallMax is a number of bytes. The clock first tries the pool of small blobs if that pool takes
	// more than smallMax, and otherwise the pool of large blobs. 0 means smallPercent percent of the
	// bytes in both pools.
	smallMax int64
}

// queues are the two queues of a pool.
type queues struct {
	fresh, main queue   // the short queue and the main queue
	ghosts      *ghosts // nil if victims are not remembered
}

// queue is a sequence of entries, from the oldest to the newest.
type queue interface {
	size() (entries int, bytes int64)
	take() (e *entry, hits uint32) // removes the oldest entry; there must be one
	put(e *entry, hits uint32)     // adds e as the newest entry
}

var (
	_ queue = (*fifo)(nil)
	_ queue = (*plan)(nil)
)

// victim chooses the next entry to evict, removes it from the queues of its pool, and returns it.
// It returns nil if all entries are busy. newLength is the length of the blob that needs the space.
func (c *clock) victim(newLength int64, busy func(*entry) bool) (*entry, Reason) {
	_, small := c.small.size()
	_, large := c.large.size()
	limit := c.smallMax
	if limit == 0 {
		limit = (small + large) / 100 * smallPercent
	}
	if newLength < smallBlob {
		small += blocks(newLength)
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

// victim removes and returns an entry, or returns nil if all entries are busy. The loop allows
// maxHits+2 steps for each entry. An entry that is not busy needs no more: one to leave the short
// queue, one for each hit, and one to be evicted.
func (t *queues) victim(busy func(*entry) bool) (*entry, Reason) {
	entries, _ := t.size()
	inUse := 0 // busy entries taken since the main queue last gave an entry that was not busy
	for range (maxHits + 2) * entries {
		from := t.main
		fresh, freshBytes := t.fresh.size()
		older, olderBytes := t.main.size()
		share := freshBytes*100 >= (freshBytes+olderBytes)*probation
		if older == 0 || fresh > 0 && (share || inUse >= older) { // inUse >= older: nothing in main can be evicted
			from = t.fresh
		}
		e, hits := from.take()
		switch {
		case busy(e):
			t.main.put(e, hits) // an entry in use is treated like one with a hit
			inUse++
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
			inUse = 0
		}
	}
	return nil, ""
}

func (t *queues) size() (entries int, bytes int64) {
	fresh, freshBytes := t.fresh.size()
	older, olderBytes := t.main.size()
	return fresh + older, freshBytes + olderBytes
}

// plan is a copy of a fifo. Choosing victims from the plan does not change the fifo. The plan
// consists of the entries of the fifo that have not been taken yet, followed by the entries that
// were put back. Only the entries that were put back take memory.
type plan struct {
	at    *entry // the oldest entry of the fifo that has not been taken yet
	left  int    // how many entries of the fifo have not been taken yet
	sum   int64  // bytes of all entries of the plan, each rounded up to whole blocks
	again []requeued
}

type requeued struct {
	*entry
	hits uint32
}

func newPlan(q *fifo) *plan { return &plan{at: q.oldest(), left: q.len, sum: q.bytes} }

func (p *plan) size() (entries int, bytes int64) { return p.left + len(p.again), p.sum }

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

func (p *plan) put(e *entry, hits uint32) {
	p.again = append(p.again, requeued{e, hits})
	p.sum += e.blocks()
}

// plan returns a clock that chooses the same victims as [policy.clock] but does not change the
// policy.
func (p *policy) plan() *clock {
	return &clock{
		small:    queues{fresh: newPlan(p.small.fresh), main: newPlan(p.small.main)},
		large:    queues{fresh: newPlan(p.large.fresh), main: newPlan(p.large.main)},
		smallMax: p.smallMax,
	}
}
