package mirror

import (
	"context"
	"io"
	"sync/atomic"

	"dray/cache"
	"dray/cache/meta"
	"dray/mirror/pipeline"
	"dray/upstream/oci"

	"github.com/opencontainers/go-digest"
)

// scan is the walk over a layer while its client sends it.
type scan struct {
	done  chan struct{}
	found *pipeline.Scanned
	err   error
	// told says that an image was judged by it already.
	told atomic.Bool
}

// maxWalks bounds the uploads that are looked at while they come. What finds no place is looked at with its manifest.
const maxWalks = 64

// startScan looks at an upload of a client while it comes, for a gate that wants that; else it is nil.
func (m *Mirror) startScan(g *Gate, s *session, f *forward, announced digest.Digest) *scan {
	if g == nil || !g.Pipeline.Scans() {
		return nil
	}
	select {
	case m.walks <- struct{}{}:
	default:
		return nil
	}
	w := &scan{done: make(chan struct{})}
	blob, up, repo := s.blob, s.up.Name, s.repo
	started := m.tasks.Start(func(ctx context.Context) {
		defer func() { <-m.walks }()
		defer close(w.done)
		r := blob.Follow()
		defer r.Close()
		defer context.AfterFunc(ctx, func() { _ = r.Close() })()
		w.found, w.err = g.Pipeline.Scan(ctx, pipeline.Layer{Upstream: up, Repository: repo, Digest: announced}, r, func() (digest.Digest, error) {
			select {
			case <-f.identified:
				return f.digest, f.refused
			case <-ctx.Done():
				return "", context.Cause(ctx)
			}
		})
	})
	if !started {
		<-m.walks
		return nil
	}
	return w
}

// wait returns what was found, or nil where that is not known.
func (s *scan) wait(ctx context.Context) (*pipeline.Scanned, error) {
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

// errRefusedHere keeps a layer from being completed at the upstream. It is sent again should an image with it pass.
var errRefusedHere = oci.ErrDenied.With("the checks have something against the layer")

// cleared returns the digest of an upload when it may be completed at the upstream: it is what it claims to be, and the
// checks have nothing against it.
func (f *forward) cleared(ctx context.Context, g *Gate, repo string) (digest.Digest, error) {
	select {
	case <-f.identified:
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	if f.refused != nil || f.scan == nil {
		return f.digest, f.refused
	}
	found, err := f.scan.wait(ctx)
	switch {
	case err != nil:
	case found == nil: // nobody has looked at it to its end
		err = errHeldBack
	case g.Pipeline.Refuses(found, repo):
		err = errRefusedHere
	}
	return f.digest, err
}

// pushed are the contents of an image on its way to a repository.
type pushed struct {
	m    *Mirror
	up   *Upstream
	gate *Gate
	repo string
}

// Manifest implements pipeline.Contents.
func (c *pushed) Manifest(ctx context.Context, d oci.Descriptor) (*oci.Manifest, error) {
	if man := c.m.backlog.get(pinKey{c.up.Name, c.repo, d.Digest}); man != nil {
		return man, nil
	}
	a := c.m.queued(c.up, c.repo, oci.Reference{Digest: d.Digest}, anyManifest)
	if a == nil {
		a = c.m.held(ctx, c.up, c.repo, d.Digest)
	}
	if a == nil {
		var err error
		if a, err = c.m.byDigest(ctx, c.up, c.repo, d.Digest, anyManifest); err != nil {
			return nil, missing(err, oci.KindManifest, d.Digest, c.repo)
		}
	}
	man, err := oci.ParseManifest(a.mediaType, a.raw)
	if err == nil {
		man.Digest = d.Digest
	}
	return man, err
}

func missing(err error, kind oci.Kind, d digest.Digest, repo string) error {
	if oci.NotFound(err) {
		return oci.NotPushed(kind, d, repo).Because(err)
	}
	return err
}

// Open implements pipeline.Contents. Bytes that came through another repository are looked at only where the upstream
// says that this one has them, too.
func (c *pushed) Open(ctx context.Context, d oci.Descriptor) (io.ReadCloser, error) {
	m := c.m
	if p := m.pins.get(pinKey{c.up.Name, c.repo, d.Digest}); p != nil {
		return m.cache.Open(ctx, cache.Blob{Digest: d.Digest, Size: p.size}, notHeld)
	}
	if size, ok := m.queue.Blob(c.up.Name, c.repo, d.Digest); ok {
		return m.cache.Open(ctx, cache.Blob{Digest: d.Digest, Size: size}, notHeld)
	}
	size := d.Size
	_, visible, _ := m.visible(ctx, c.up, c.repo, d.Digest)
	if !visible {
		var err error
		if size, err = c.vouched(ctx, d.Digest); err != nil {
			return nil, missing(err, oci.KindBlob, d.Digest, c.repo)
		}
	} else if held, ok := m.cache.Stat(d.Digest); ok {
		size = held
	}
	o := m.origin(c.up, c.repo, d.Digest)
	r, err := m.cache.Open(ctx, o.blob(size), o.fetch)
	if err != nil {
		return nil, missing(brokenOrigin(c.up, err), "blob", d.Digest, c.repo)
	}
	return r, nil
}

// vouched returns the size of a blob that the upstream has in the repository.
func (c *pushed) vouched(ctx context.Context, d digest.Digest) (int64, error) {
	if fact, err := c.m.known.Get(ctx, c.up.Name, c.repo, d); err == nil {
		return fact.Size, nil
	}
	size, err := c.up.Source.StatBlob(ctx, c.up.remote(c.repo), d)
	if err == nil {
		c.m.recorded(c.m.known.Add(ctx, c.up.Name, c.repo, meta.Holding{Digest: d, KnownFact: meta.KnownFact{Kind: meta.KindBlob, Size: size}}))
	}
	return size, err
}

// scanKey names the look of some checks at a layer.
type scanKey struct {
	blob   pinKey
	checks string
}

// Scanned implements pipeline.Contents: what was found while the layer came, or what is remembered of it, or a look at
// it now.
func (c *pushed) Scanned(ctx context.Context, d oci.Descriptor) (*pipeline.Scanned, error) {
	p := c.m.pins.get(pinKey{c.up.Name, c.repo, d.Digest})
	if p != nil {
		found, err := p.forward.scan.wait(ctx)
		if err != nil {
			return nil, err
		}
		// What a stage could not tell it is asked once more when the image is pushed again: it may have been down.
		if found != nil && (found.Complete() || p.forward.scan.told.CompareAndSwap(false, true)) {
			return found, nil
		}
	}
	if found, complete := c.gate.Pipeline.Recall(ctx, d.Digest); complete {
		return found, nil
	}
	if p == nil && c.gate.TrustUnseen {
		return nil, nil
	}
	key := scanKey{pinKey{c.up.Name, c.repo, d.Digest}, c.gate.Pipeline.Name()}
	return c.m.scans.Do(ctx, key, func(ctx context.Context) (*pipeline.Scanned, error) {
		r, err := c.Open(ctx, d)
		if err != nil {
			return nil, err
		}
		defer r.Close()
		l := pipeline.Layer{Upstream: c.up.Name, Repository: c.repo, Digest: d.Digest}
		return c.gate.Pipeline.Scan(ctx, l, r, func() (digest.Digest, error) { return d.Digest, nil })
	})
}
