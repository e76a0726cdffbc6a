package disk

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"
)

// Keep pins a held blob, as Pin does, and returns once the blob is on stable storage. A blob from an unclean stop is
// verified first. It returns ErrNotFound when the blob is not held.
func (d *Dir) Keep(ctx context.Context, dg digest.Digest) (release func(), err error) {
	name, err := blobPath(dg)
	if err != nil {
		return nil, err
	}
	e, err := d.find(ctx, dg, name)
	if err != nil {
		return nil, fmt.Errorf("keep %s: %w", dg, err)
	}
	d.mu.RLock()
	clean := e.clean
	d.mu.RUnlock()
	if !clean {
		if err := d.syncNow(e); err != nil {
			d.unpin(e)
			return nil, fmt.Errorf("keep %s: %w", dg, asFull(err))
		}
	}
	return d.need(e), nil
}
