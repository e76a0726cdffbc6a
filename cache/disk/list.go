package disk

import (
	"context"

	"github.com/opencontainers/go-digest"
)

// listBatch is how many entries are read before the lock is released for a moment.
const listBatch = 1024

// List calls yield with each held blob, in no particular order, until yield returns false. Blobs
// that are stored or removed during the call may be missing. The only possible error is the error
// of ctx. ctx also bounds the time that List waits for dray to read the directory.
func (c *contents) List(ctx context.Context, yield func(Info) bool) error {
	if err := c.scan.wait(ctx); err != nil {
		return err
	}
	batch := make([]Info, 0, listBatch)
	flush := func() bool { // yield is called without the lock
		c.mu.RUnlock()
		defer c.mu.RLock()
		for _, i := range batch {
			if ctx.Err() != nil || !yield(i) {
				return false
			}
		}
		batch = batch[:0]
		return true
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	for e := range c.index.all() { // the index may change between two entries
		if batch = append(batch, c.info(e)); len(batch) == listBatch && !flush() {
			return context.Cause(ctx)
		}
	}
	flush()
	return context.Cause(ctx)
}

// Lookup describes one blob, and reports whether it is held. A blob that is not yet verified counts
// as held.
func (c *contents) Lookup(dg digest.Digest) (Info, bool) {
	name, err := blobPath(dg)
	if err != nil {
		return Info{}, false
	}
	e, _, err := c.scan.lookup(context.Background(), dg, name)
	if err != nil {
		return Info{}, false
	}
	c.unref(e)
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.info(e), !e.gone
}
