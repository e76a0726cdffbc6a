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

// ErrHeldBack is why a blob has not been sent: it waits for the verdict on its image.
var ErrHeldBack = errors.New("held back until the verdict")

// errRefusedHere keeps a layer from being completed at the upstream. It is sent again should an
// image with it pass.
var errRefusedHere = oci.ErrDenied.With("the checks have something against the layer")

// maxWalks bounds the uploads that are looked at while they come. What finds no place is looked at
// with its manifest.
const maxWalks = 64

// Scan is the walk over a layer while its client sends it. A nil Scan has found nothing.
type Scan struct {
	done  chan struct{}
	found *pipeline.Scanned
	err   error
	// reported says that an image was judged by it already.
	reported atomic.Bool
}

// Follow looks at an upload of a client while it comes, for a gate that wants that; else it returns
// nil. open gives the bytes as they come, and digest returns what they turned out to be.
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

// Wait returns what was found, or nil where that is not known.
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

// Cleared returns no error when the checks have nothing against the layer, so that it may be
// completed at the upstream.
func (s *Scan) Cleared(ctx context.Context, g *Gate, r repository.Repo) error {
	if s == nil {
		return nil
	}
	found, err := s.Wait(ctx)
	switch {
	case err != nil:
		return err
	case found == nil: // nobody has looked at it to its end
		return ErrHeldBack
	case g.Pipeline.Refuses(found, r.Name):
		return errRefusedHere
	}
	return nil
}

// layerKey names the work on a layer that no client sends.
type layerKey struct {
	content repository.Key
	checks  string
}

// Scanned returns what a gate found in a layer: while it came (s, which may be nil), or what is
// remembered of it, or by a look at it now. seen says that this push has brought the layer. Of a
// layer that it has not, and that the gate trusts, nothing is found.
func (c *Checks) Scanned(ctx context.Context, g *Gate, k repository.Key, s *Scan, seen Seen, open func(context.Context) (io.ReadCloser, error)) (*pipeline.Scanned, error) {
	found, err := s.Wait(ctx)
	if err != nil {
		return nil, err
	}
	// What a stage could not tell it is asked once more when the image is pushed again: it may have
	// been down.
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

// Seen says whether a push has brought a layer.
type Seen bool

// The values of Seen.
const (
	Unseen  Seen = false
	Brought Seen = true
)
