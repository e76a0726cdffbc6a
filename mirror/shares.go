package mirror

import (
	"sync"

	"dray/upstream/oci"
)

// shares count what each client has under way: open uploads, and the bytes of these and of blobs whose manifest has not
// landed. Without a bound, one client could fill the disk with what must not be evicted.
type shares struct {
	maxUploads int   // 0: no bound
	maxBytes   int64 // 0: no bound
	mu         sync.Mutex
	of         map[string]*share
}

type share struct {
	uploads int
	bytes   int64
}

func newShares(maxUploads int, maxBytes int64) *shares {
	return &shares{maxUploads: maxUploads, maxBytes: maxBytes, of: map[string]*share{}}
}

// begin counts one upload more. Each has to end.
func (s *shares) begin(owner string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.of[owner]; h != nil && s.maxUploads > 0 && h.uploads >= s.maxUploads {
		return oci.ErrTooManyRequests.With("this client has %d uploads open, which is the limit", s.maxUploads)
	}
	s.add(owner, 1, 0)
	return nil
}

func (s *shares) end(owner string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(owner, -1, 0)
}

// fits says whether n bytes more could be charged now: a body that is too long had better be refused before any of it is taken.
func (s *shares) fits(owner string, n int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.check(owner, n)
}

// check needs mu.
func (s *shares) check(owner string, n int64) error {
	var held int64
	if h := s.of[owner]; h != nil {
		held = h.bytes
	}
	if s.maxBytes > 0 && held+n > s.maxBytes {
		return oci.ErrTooManyRequests.With("this client has pushed %d bytes for which no manifest has followed yet, and %d are the limit", held, s.maxBytes)
	}
	return nil
}

// charge counts n bytes more, or none and returns an error. They have to be refunded.
func (s *shares) charge(owner string, n int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(owner, n); err != nil {
		return err
	}
	s.add(owner, 0, n)
	return nil
}

func (s *shares) refund(owner string, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(owner, 0, -n)
}

// restore counts what a former process had let in, whatever the bounds are now.
func (s *shares) restore(owner string, uploads int, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(owner, uploads, bytes)
}

// add needs mu.
func (s *shares) add(owner string, uploads int, bytes int64) {
	h := s.of[owner]
	if h == nil {
		h = &share{}
		s.of[owner] = h
	}
	h.uploads += uploads
	h.bytes += bytes
	if *h == (share{}) {
		delete(s.of, owner)
	}
}
