package disk

import (
	"context"

	"github.com/opencontainers/go-digest"
)

// takeName waits until nobody else publishes, verifies or unlinks the file of a
// digest. The holder ends with freeName, or hands the name on by doom.
func (d *Dir) takeName(ctx context.Context, dg digest.Digest) error {
	for {
		d.mu.Lock()
		held := d.busy[dg]
		if held == nil {
			d.busy[dg] = make(chan struct{})
			d.mu.Unlock()
			return nil
		}
		d.mu.Unlock()
		select {
		case <-held:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// freeName lets the next one work on the file of a digest.
func (d *Dir) freeName(dg digest.Digest) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.yieldName(dg)
}

// yieldName is freeName for holders of mu.
func (d *Dir) yieldName(dg digest.Digest) {
	close(d.busy[dg])
	delete(d.busy, dg)
}
