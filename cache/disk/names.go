package disk

import (
	"context"

	"github.com/opencontainers/go-digest"
)

// takeName waits until no one else publishes, verifies or unlinks the file of a digest. The caller
// then has the name: nobody else works on the file until the caller calls freeName. If the caller
// instead drops the entry of the digest, unlinkDropped frees the name. The only possible error is
// the error of ctx.
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

// freeName lets the next caller of takeName work on the file of a digest.
func (a *account) freeName(dg digest.Digest) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.freeNameLocked(dg)
}

// freeNameLocked is freeName for callers that hold mu.
func (a *account) freeNameLocked(dg digest.Digest) {
	close(a.busy[dg])
	delete(a.busy, dg)
}
