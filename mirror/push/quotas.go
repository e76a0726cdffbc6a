package push

import (
	"net/http"
	"sync"

	"dray/upstream/oci"
)

// Quotas bounds the open uploads of each client, and the bytes of its open uploads and staged
// blobs. Without bounds, one client could fill the disk with content that must not be evicted.
type Quotas struct {
	maxUploads int   // 0: no bound
	maxBytes   int64 // 0: no bound
	mu         sync.Mutex
	byOwner    map[string]*usage
}

type usage struct {
	uploads int
	bytes   int64
}

// NewQuotas returns quotas that allow each client maxUploads open uploads and maxBytes bytes. 0
// means no bound.
func NewQuotas(maxUploads int, maxBytes int64) *Quotas {
	return &Quotas{maxUploads: maxUploads, maxBytes: maxBytes, byOwner: map[string]*usage{}}
}

// begin counts one more upload, and the caller must call end when the upload ends. If the client
// has too many uploads, begin returns an error and counts nothing.
func (q *Quotas) begin(owner string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if h := q.byOwner[owner]; h != nil && q.maxUploads > 0 && h.uploads >= q.maxUploads {
		return oci.ErrTooManyRequests.With("this client has %d open uploads, which is the limit; finish or cancel some", q.maxUploads)
	}
	q.add(owner, 1, 0)
	return nil
}

func (q *Quotas) end(owner string) { q.count(owner, -1, 0) }

// fits returns the error that charge would return now, and counts nothing. It lets the caller
// refuse a long body before reading it.
func (q *Quotas) fits(owner string, received, n int64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.check(owner, received, n)
}

// check returns an error if n more bytes exceed the quota. If the upload alone exceeds the quota,
// the error is a 413, because after a 429 clients would repeat the request in vain. The caller
// holds mu.
func (q *Quotas) check(owner string, received, n int64) error {
	if q.maxBytes > 0 && n > q.maxBytes-received { // received+n can be more than an int64 holds
		return oci.ErrSizeInvalid.With("an upload may have %d bytes at most at this mirror (limits.max_upload_bytes_per_client)", q.maxBytes).WithStatus(http.StatusRequestEntityTooLarge)
	}
	var held int64
	if h := q.byOwner[owner]; h != nil {
		held = h.bytes
	}
	if q.maxBytes > 0 && n > q.maxBytes-held {
		return oci.ErrTooManyRequests.With("this client has pushed %d bytes that no manifest refers to yet, and the limit is %d; push the manifests first", held, q.maxBytes)
	}
	return nil
}

// charge counts n more bytes of an upload. received is the number of bytes of the upload that are
// counted already. If the n bytes exceed the quota, charge returns an error and counts none of
// them. The caller must refund counted bytes later.
func (q *Quotas) charge(owner string, received, n int64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.check(owner, received, n); err != nil {
		return err
	}
	q.add(owner, 0, n)
	return nil
}

// Refund counts n fewer bytes.
func (q *Quotas) Refund(owner string, n int64) { q.count(owner, 0, -n) }

// count adds to the usage of a client, even beyond its bounds.
func (q *Quotas) count(owner string, uploads int, bytes int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.add(owner, uploads, bytes)
}

// add does the same as count. The caller holds mu.
func (q *Quotas) add(owner string, uploads int, bytes int64) {
	h := q.byOwner[owner]
	if h == nil {
		h = &usage{}
		q.byOwner[owner] = h
	}
	h.uploads += uploads
	h.bytes += bytes
	if *h == (usage{}) {
		delete(q.byOwner, owner)
	}
}
