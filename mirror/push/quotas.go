package push

import (
	"sync"

	"dray/upstream/oci"
)

// Quotas count what each client has under way: open uploads, and the bytes of these and of blobs
// whose manifest has not been forwarded. Without a bound, one client could fill the disk with what
// must not be evicted.
type Quotas struct {
	maxUploads int   // 0: no bound
	maxBytes   int64 // 0: no bound
	mu         sync.Mutex
	of         map[string]*usage
}

type usage struct {
	uploads int
	bytes   int64
}

// NewQuotas returns quotas of so many open uploads, and so many bytes, for each client; 0 is no
// bound.
func NewQuotas(maxUploads int, maxBytes int64) *Quotas {
	return &Quotas{maxUploads: maxUploads, maxBytes: maxBytes, of: map[string]*usage{}}
}

// begin counts one upload more. Each has to end.
func (q *Quotas) begin(owner string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if h := q.of[owner]; h != nil && q.maxUploads > 0 && h.uploads >= q.maxUploads {
		return oci.ErrTooManyRequests.With("this client has %d uploads open, which is the limit", q.maxUploads)
	}
	q.add(owner, 1, 0)
	return nil
}

func (q *Quotas) end(owner string) { q.count(owner, -1, 0) }

// fits says whether n bytes more could be charged now: a body that is too long had better be
// refused before any of it is taken.
func (q *Quotas) fits(owner string, n int64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.check(owner, n)
}

// check needs mu.
func (q *Quotas) check(owner string, n int64) error {
	var held int64
	if h := q.of[owner]; h != nil {
		held = h.bytes
	}
	if q.maxBytes > 0 && held+n > q.maxBytes {
		return oci.ErrTooManyRequests.With("this client has pushed %d bytes for which no manifest has followed yet, and %d are the limit", held, q.maxBytes)
	}
	return nil
}

// charge counts n bytes more, or none and returns an error. They have to be refunded.
func (q *Quotas) charge(owner string, n int64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.check(owner, n); err != nil {
		return err
	}
	q.add(owner, 0, n)
	return nil
}

// Refund counts n bytes less.
func (q *Quotas) Refund(owner string, n int64) { q.count(owner, 0, -n) }

// count adds to what a client has under way, past its bounds as well.
func (q *Quotas) count(owner string, uploads int, bytes int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.add(owner, uploads, bytes)
}

// add needs mu.
func (q *Quotas) add(owner string, uploads int, bytes int64) {
	h := q.of[owner]
	if h == nil {
		h = &usage{}
		q.of[owner] = h
	}
	h.uploads += uploads
	h.bytes += bytes
	if *h == (usage{}) {
		delete(q.of, owner)
	}
}
