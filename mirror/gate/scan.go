package gate

import (
	"context"
	"errors"
	"io"
	"sync/atomic"

	"github.com/opencontainers/go-digest"

	"dray/mirror/pipeline"
	"dray/mirror/repository"
	"dray/upstream/oci"
)

// ErrHeldBack is the reason why a blob has not been completed at the upstream: the blob waits for
// the verdict on its image.
var ErrHeldBack = errors.New("layer waits for the verdict")

// errLayerRejected is the reason why a rejected layer is not completed at the upstream. If an image
// with the layer passes later, dray sends the layer again.
var errLayerRejected = oci.ErrDenied.With("the checks rejected the layer")

// maxWalks bounds the layers that are scanned while their clients send them. Further layers are
// scanned when their manifest arrives.
const maxWalks = 64

// Scan is the scan of a layer while its client sends it. A nil Scan means that no scan was started.
type Scan struct {
	done  chan struct{}
	found *pipeline.Scanned
	err   error
	// reported is set when an image has been judged by an incomplete result of this scan.
	reported atomic.Bool
}

// Follow starts to scan an upload while the client sends it. It starts no scan and returns nil if
// the gate scans no layers, if as many such scans are under way as maxWalks allows, or if dray is
// stopping. The function open returns a reader of the bytes as they arrive. The function identify
// waits for the verified digest, and returns it.
func (c *Checks) Follow(g *Gate, layer pipeline.Layer, open func() io.ReadCloser, identify func(context.Context) (digest.Digest, error)) *Scan {
	if g == nil || !g.Pipeline.Scans() {
		return nil
	}
	select {
	case c.walks <- struct{}{}:
	default:
		return nil
	}
	w := &Scan{done: make(chan struct{})}
	started := c.o.Tasks.Start(func(ctx context.Context) {
		defer func() { <-c.walks }()
		defer close(w.done)
		r := open()
		defer r.Close()
		defer context.AfterFunc(ctx, func() { _ = r.Close() })()
		w.found, w.err = g.Pipeline.Scan(ctx, layer, r, func() (digest.Digest, error) { return identify(ctx) })
	})
	if !started {
		<-c.walks
		return nil
	}
	return w
}

// Wait waits for the result of the scan. It returns nil, nil if s is nil or the scan failed. If
// ctx ends first, Wait returns the cause of ctx.
func (s *Scan) Wait(ctx context.Context) (*pipeline.Scanned, error) {
	if s == nil {
		return nil, nil
	}
	select {
	case <-s.done:
		if s.err != nil {
			return nil, nil
		}
		return s.found, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Cleared waits for the scan. It returns nil if the checks do not reject the layer: the layer may
// then be completed at the upstream. It also returns nil if s is nil, so a caller must hold back a
// layer that has no Scan although the gate scans layers. It returns ErrHeldBack if the scan failed,
// [oci.ErrDenied] if the checks reject the layer, and the cause of ctx if ctx ends first.
func (s *Scan) Cleared(ctx context.Context, g *Gate, r repository.Repo) error {
	if s == nil {
		return nil
	}
	found, err := s.Wait(ctx)
	switch {
	case err != nil:
		return err
	case found == nil: // the scan failed
		return ErrHeldBack
	case g.Pipeline.Refuses(found, r.Name):
		return errLayerRejected
	}
	return nil
}

// layerKey identifies a scan that needs no upload: dray has the layer, or can read it from the
// upstream. Pushes that need the same scan share it.
type layerKey struct {
	content repository.Key
	checks  string
}

// Scanned returns the result of a gate's scan of a layer. s is the scan during the upload, or nil.
// Scanned returns the result of s if there is one, and otherwise a stored result. If there is
// neither, Scanned scans the layer now, with one exception: if the client of this push has not sent
// the layer (the parameter seen), and the gate trusts such layers, Scanned returns nil.
func (c *Checks) Scanned(ctx context.Context, g *Gate, k repository.Key, s *Scan, seen Seen, open func(context.Context) (io.ReadCloser, error)) (*pipeline.Scanned, error) {
	found, err := s.Wait(ctx)
	if err != nil {
		return nil, err
	}
	// An incomplete result counts only once. When the image is pushed again, the stages that could not
	// decide are asked again, because a stage may have been down the first time.
	if found != nil && (found.Complete() || s.reported.CompareAndSwap(false, true)) {
		return found, nil
	}
	if found, complete := g.Pipeline.Recall(ctx, k.Digest); complete {
		return found, nil
	}
	if seen == Unseen && g.TrustUnseen {
		return nil, nil
	}
	return c.scans.Do(ctx, layerKey{k, g.Pipeline.Name()}, func(ctx context.Context) (*pipeline.Scanned, error) {
		r, err := open(ctx)
		if err != nil {
			return nil, err
		}
		defer r.Close()
		l := pipeline.Layer{Upstream: k.Repo.Up.Name, Repository: k.Repo.Name, Digest: k.Digest}
		return g.Pipeline.Scan(ctx, l, r, func() (digest.Digest, error) { return k.Digest, nil })
	})
}

// Seen says whether the client of a push has sent a layer.
type Seen bool

// The values of Seen.
const (
	Unseen   Seen = false
	Uploaded Seen = true
)
