package cache

import (
	"context"
	"errors"

	"github.com/opencontainers/go-digest"
)

// Follow returns a reader of a blob that is held or being fetched. It starts no fetch: if the blob
// is not held and no fetch is under way, Follow returns ErrNotFound. Follow waits until the origin
// has answered. If the origin fails, Follow returns its error. dray_cache_opens_total does not
// count the call. Unless [Reader.Source] is SourceMemory or SourceDisk, the reader returns
// unverified bytes, except for the last byte: the reader returns it only when the cache has
// verified the digest.
func (c *Cache) Follow(ctx context.Context, d digest.Digest) (*Reader, error) {
	b := Blob{Digest: d, Size: -1, Ahead: true}
	for range maxLooks {
		r, err := c.openHeld(ctx, b)
		if !errors.Is(err, ErrNotFound) {
			return r, err
		}
		if r, err = c.flights.follow(ctx, b); !errors.Is(err, errLookAgain) {
			return r, err
		}
	}
	return nil, ErrNotFound
}

// follow joins the flight of a blob. It returns ErrNotFound if there is none.
func (s *flights) follow(ctx context.Context, b Blob) (*Reader, error) {
	s.mu.Lock()
	m := s.joinLocked(b)
	s.mu.Unlock()
	if m == nil {
		return nil, ErrNotFound
	}
	m.follows = true
	b.Via = m.via // with another Via, wait would return errLookAgain instead of the origin's error
	r, err := s.wait(ctx, b, notHere, m)
	if r != nil {
		// r may start a flight later, with the origin notHere, which fails. Clear Via, so that callers
		// with a Via do not get the error of that flight.
		r.blob.Via = ""
	}
	return r, err
}

// Progress returns how many bytes of a blob can be read at an offset without waiting. It returns
// false if the blob is not held and no fetch brings it.
func (c *Cache) Progress(d digest.Digest, off int64) (n int64, ok bool) {
	all, _, ok := c.Extents(d)
	for _, e := range all {
		if e.From <= off && off < e.To {
			return e.To - off, ok
		}
	}
	return 0, ok
}

// Extent is the part [From, To) of a blob.
type Extent struct{ From, To int64 }

// Extents returns the parts of a blob that can be read without waiting, in order, and the length of
// the blob in bytes, or -1 if it is not known. ok is false if the blob is not held and no fetch
// brings it. The parts of a blob that is not held are not verified.
func (c *Cache) Extents(d digest.Digest) (all []Extent, size int64, ok bool) {
	if size, held := c.Stat(d); held {
		return []Extent{{0, size}}, size, true
	}
	c.flights.mu.Lock()
	defer c.flights.mu.Unlock()
	f := c.flights.byDigest[d]
	if f == nil || f.file == nil {
		return nil, -1, f != nil
	}
	f.file.mu.Lock()
	defer f.file.mu.Unlock()
	for _, p := range f.file.before(f.file.limit()) {
		all = append(all, Extent{p.from, p.to})
	}
	return all, f.file.length, f.file.err == nil
}
