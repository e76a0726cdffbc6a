package disk

const (
	smallBlob    = 1 << 20 // blobs below this many bytes are in a pool of their own
	smallPercent = 2       // percent of MaxBytes that is guaranteed to the pool of small blobs
	probation    = 10      // percent of a pool's bytes that its short queue may take
)

// policy is the order in which blobs are evicted. While the pool of small blobs has more than its
// share, victims come from this pool. Otherwise they come from the pool of large blobs. If the
// chosen pool has no victim, the victim comes from the other pool. Callers hold account.mu, except
// for entry.hit, which is safe for concurrent use.
type policy struct {
	small, large *pool
	smallMax     int64 // in bytes; 0 means smallPercent of the held bytes
}

func newPolicy(maxBytes int64) policy {
	return policy{small: newPool(), large: newPool(), smallMax: maxBytes / 100 * smallPercent}
}

func (p *policy) pool(size int64) *pool {
	if size < smallBlob {
		return p.small
	}
	return p.large
}

func (p *policy) add(e *entry)    { p.pool(e.size).add(e) }
func (p *policy) addOld(e *entry) { p.pool(e.size).addOld(e) }
func (p *policy) remove(e *entry) { p.pool(e.size).remove(e) }

// clock returns a clock that takes its victims out of the queues of the policy.
func (p *policy) clock() *clock {
	return &clock{
		small:    queues{p.small.fresh, p.small.main, p.small.ghosts},
		large:    queues{p.large.fresh, p.large.main, p.large.ghosts},
		smallMax: p.smallMax,
	}
}

// pool is S3-FIFO (https://s3fifo.com), with queues that are measured in bytes. A new blob waits in
// the short queue. A blob that has a ghost when it is stored goes to the main queue at once. While
// the short queue has at least its share of the pool's bytes, dray looks for victims there: if the
// oldest blob has been hit, it moves to the main queue, and if not, dray evicts it. While the short
// queue has less, dray looks for victims in the main queue, where each hit spares a blob once.
type pool struct {
	fresh, main *fifo // the short queue and the main queue
	ghosts      *ghosts
}

func newPool() *pool {
	return &pool{fresh: newFIFO(), main: newFIFO(), ghosts: newGhosts()}
}

func (p *pool) bytes() int64 { return p.fresh.bytes + p.main.bytes }

func (p *pool) add(e *entry) {
	if p.ghosts.take(e.prefix()) {
		p.main.pushNew(e)
		return
	}
	p.fresh.pushNew(e)
}

// addOld adds an entry to the short queue as the oldest one.
func (p *pool) addOld(e *entry) { p.fresh.pushOld(e) }

func (p *pool) remove(e *entry) {
	if e.queue != nil {
		e.queue.remove(e)
	}
}

// fifo is a ring of entries that counts its bytes.
type fifo struct {
	head  entry // head.next is the newest, head.prev the oldest
	len   int
	bytes int64
}

func newFIFO() *fifo {
	q := &fifo{}
	q.head.prev, q.head.next = &q.head, &q.head
	return q
}

func (q *fifo) oldest() *entry   { return q.head.prev }
func (q *fifo) pushNew(e *entry) { q.insert(e, &q.head) }
func (q *fifo) pushOld(e *entry) { q.insert(e, q.head.prev) }

func (q *fifo) size() (entries int, bytes int64) { return q.len, q.bytes }

func (q *fifo) take() (*entry, uint32) {
	e := q.oldest()
	q.remove(e)
	return e, e.hits.Load()
}

func (q *fifo) put(e *entry, hits uint32) {
	e.hits.Store(hits) // a hit at this moment is lost, which is rare enough
	q.pushNew(e)
}

func (q *fifo) insert(e, after *entry) {
	e.queue, e.prev, e.next = q, after, after.next
	e.prev.next, e.next.prev = e, e
	q.len++
	q.bytes += e.blocks()
}

func (q *fifo) remove(e *entry) {
	e.prev.next, e.next.prev = e.next, e.prev
	e.queue, e.prev, e.next = nil, nil, nil
	q.len--
	q.bytes -= e.blocks()
}

// ghosts remembers the key prefixes of blobs that were evicted from the short queue. Together these
// blobs had at most as many bytes as the pool holds.
type ghosts struct {
	known map[uint64]*ghost
	head  ghost // head.next is the oldest, head.prev the newest
	bytes int64
}

type ghost struct {
	prefix     uint64
	blocks     int64
	prev, next *ghost
}

func newGhosts() *ghosts {
	g := &ghosts{known: map[uint64]*ghost{}}
	g.head.prev, g.head.next = &g.head, &g.head
	return g
}

func (g *ghosts) add(prefix uint64, blocks, limit int64) {
	if g == nil {
		return
	}
	g.take(prefix)
	x := &ghost{prefix, blocks, g.head.prev, &g.head}
	x.prev.next, x.next.prev = x, x
	g.known[prefix] = x
	g.bytes += blocks
	for g.bytes > limit {
		g.take(g.head.next.prefix)
	}
}

// take removes a prefix and reports whether it was there.
func (g *ghosts) take(prefix uint64) bool {
	x, ok := g.known[prefix]
	if ok {
		delete(g.known, prefix)
		x.prev.next, x.next.prev = x.next, x.prev
		g.bytes -= x.blocks
	}
	return ok
}
