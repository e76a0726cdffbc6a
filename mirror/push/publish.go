package push

import (
	"context"
	"errors"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"dray/mirror/gate"
	"dray/mirror/repository"
	"dray/upstream"
	"dray/upstream/oci"
)

// forwardWithin bounds the way of one image to its upstream, which goes on when the
// client has been answered.
const forwardWithin = time.Hour

// atOnce bounds the blobs of one image that are dealt with at a time.
const atOnce = 8

// publisher forwards manifests to their upstream, after everything that they need.
type publisher struct {
	*sender
	// pushes counts manifests pushed, by upstream and result.
	pushes *prometheus.CounterVec
}

// publish brings a manifest to the upstream after everything it needs. A blob that was thought to
// be there and is not is sent from the local copy, once. how says where failures are told that are
// repeated.
func (p *publisher) publish(ctx context.Context, how upstream.Call, r repository.Repo, ref oci.Reference, man *oci.Manifest) (upstream.Pushed, error) {
	there, err := p.ensure(ctx, how, r, man)
	if err != nil {
		return upstream.Pushed{}, err
	}
	pushed, err := r.Up.Sink.PutManifest(ctx, r.Remote().With(how), ref, man)
	if errors.Is(err, upstream.ErrPartsMissing) {
		r.ForgetChildren(ctx, man)
		p.sendStaged(ctx, how, r, man)
		there, err = p.ensure(ctx, how, r, man)
		if err := errors.Join(err, p.publishAgain(ctx, how, r, man)); err != nil {
			return upstream.Pushed{}, err
		}
		pushed, err = r.Up.Sink.PutManifest(ctx, r.Remote().With(how), ref, man)
	}
	if err != nil {
		return upstream.Pushed{}, err
	}
	r.StorePushed(ctx, ref, man, there)
	if ref.Tag != "" {
		p.o.BaseIndex.Saw(r, ref, man.MediaType, man.Digest)
	}
	p.replaceBuildCache(ctx, r, ref, man)
	return pushed, p.publishAbout(ctx, how, r, man.Digest)
}

// publishAgain sends the manifests of an index that are held here: the upstream has lost
// one of those that the client was told are there.
func (p *publisher) publishAgain(ctx context.Context, how upstream.Call, r repository.Repo, index *oci.Manifest) error {
	for _, c := range index.Children() {
		if !c.Manifest {
			continue
		}
		m := r.Held(ctx, c.Digest)
		if m == nil {
			continue // never here: the upstream's refusal stands
		}
		man, err := m.Parse()
		if err != nil {
			return err
		}
		if _, err := p.publish(ctx, how, r, oci.Reference{Digest: c.Digest}, man); err != nil {
			return err
		}
	}
	return nil
}

// publishWaiting publishes a manifest that waited, if it did, and afterwards what describes it.
func (p *publisher) publishWaiting(ctx context.Context, how upstream.Call, r repository.Repo, d digest.Digest) error {
	man := r.Waiting(d)
	if man == nil {
		return nil
	}
	_, err := p.publish(ctx, how, r, oci.Reference{Digest: d}, man)
	return err
}

// publishAbout publishes what waited for a manifest because it describes it.
func (p *publisher) publishAbout(ctx context.Context, how upstream.Call, r repository.Repo, d digest.Digest) error {
	waiting, k := p.o.Repositories.Waiting(), r.Key(d)
	waiting.Drop(k)
	for _, man := range waiting.Referrers(k) {
		if err := p.publishWaiting(ctx, how, r, man.Digest); err != nil {
			return err
		}
	}
	return nil
}

// ensure returns when the upstream has every blob of the manifest, and every manifest that waited
// for it, with the children that it was waited for.
func (p *publisher) ensure(ctx context.Context, how upstream.Call, r repository.Repo, man *oci.Manifest) ([]oci.Child, error) {
	children := r.Needed(ctx, man)
	lost := make([]bool, len(children))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for i, c := range children {
		if c.Manifest { // one that does not wait was pushed before its index: the upstream judges
			g.Go(func() error { return p.publishWaiting(ctx, how, r, c.Digest) })
			continue
		}
		g.Go(func() error {
			err := p.ensureBlob(ctx, how, r, c.Digest)
			if lost[i] = c.Foreign() && errors.Is(err, oci.ErrManifestBlobUnknown); lost[i] {
				return nil // it is nowhere any more, and need not be
			}
			return err
		})
	}
	err := g.Wait()
	var there []oci.Child
	for i, c := range children {
		if !lost[i] {
			there = append(there, c)
		}
	}
	return there, err
}

func (p *publisher) ensureBlob(ctx context.Context, how upstream.Call, r repository.Repo, d digest.Digest) error {
	at, err := r.LocateBlobBy(ctx, how, d, repository.Publish)
	if err != nil {
		return err
	}
	switch at.Place {
	case repository.InStaging:
		return p.wait(ctx, how, r, d, at.Staged)
	case repository.Remembered, repository.Confirmed:
		return nil
	case repository.Nowhere:
		return oci.NotPushed(oci.KindBlob, d, r.Name)
	}
	return p.upload(ctx, how, r, d, at.Size)
}

// replaceBuildCache drops a build cache whose tag has been given to something else.
func (p *publisher) replaceBuildCache(ctx context.Context, r repository.Repo, ref oci.Reference, man *oci.Manifest) {
	to, ok := r.BuildCaches()
	if !ok || ref.Tag == "" || man.BuildCache() {
		return
	}
	if err := to.Up.Deleter.DeleteManifest(ctx, to.Remote(), ref); err != nil && !oci.NotFound(err) {
		p.o.Logger.Warn("a build cache stands before what was pushed under its tag", "upstream", r.Up.Name, "repository", r.Name, "tag", ref.Tag, "error", err)
	}
}

// sendStaged sends again what is held of the push of a manifest.
func (p *publisher) sendStaged(ctx context.Context, how upstream.Call, r repository.Repo, man *oci.Manifest) {
	for _, c := range man.Children() {
		if b := r.Staged(c.Digest); b != nil && !c.Manifest {
			if err := p.upload(ctx, how, r, c.Digest, b.Size); err != nil {
				p.o.Logger.Debug("blob not sent again", "digest", c.Digest, "error", err)
			}
		}
	}
}

// percentCopied is how much of an image the upstream has, in percent of its bytes and below 100.
func percentCopied(ctx context.Context, r repository.Repo, man *oci.Manifest) int {
	var total, there int64
	for _, c := range r.Needed(ctx, man) {
		if c.Manifest {
			continue
		}
		total += c.Size
		sent := c.Size
		if b := r.Staged(c.Digest); b != nil {
			if !r.PresentAtTarget(ctx, c.Digest) {
				sent = min(b.Forward.Sent(), c.Size)
			}
		}
		there += sent
	}
	if total <= 0 {
		return 0
	}
	return int(min(there*100/total, 99))
}

// outcome is the result of a push, as metrics tell it.
func outcome(err error) string {
	if _, ok := errors.AsType[*gate.Rejected](err); ok {
		return "rejected"
	}
	switch {
	case err == nil:
		return "forwarded"
	case upstream.Refused(err):
		return "refused"
	}
	return "failed"
}
