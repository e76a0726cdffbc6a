package disk

import (
	"context"

	"github.com/opencontainers/go-digest"
)

// takeName waits until nobody else publishes, verifies or unlinks the file of a
// digest. The holder ends with freeName, or hands the name on by doom.
func (a *account) takeName(ctx context.Context, dg digest.Digest) error {
	for {
		a.mu.Lock()
		held := a.busy[dg]
		if held == nil {
			a.busy[dg] = make(chan struct{})
			a.mu.Unlock()
			return nil
		}
		a.mu.Unlock()
		select {
		case <-held:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// freeName lets the next one work on the file of a digest.
func (a *account) freeName(dg digest.Digest) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.yieldName(dg)
}

// yieldName is freeName for holders of mu.
func (a *account) yieldName(dg digest.Digest) {
	close(a.busy[dg])
	delete(a.busy, dg)
}
