package push

import (
	"context"
	"errors"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"dray/mirror/flight"
	"dray/mirror/gate"
	"dray/mirror/repository"
	"dray/upstream"
	"dray/upstream/oci"
)

// forwardTimeout bounds the time to forward one image. Forwarding goes on after the client has
// been answered.
const forwardTimeout = time.Hour

// maxParallelBlobs bounds the blobs of one image that are processed at a time.
const maxParallelBlobs = 8

// publisher forwards manifests to their upstream, after everything that they need.
type publisher struct {
	*sender
	// pushes counts pushed manifests, by upstream and result.
	pushes *prometheus.CounterVec
	// landing serialises the manifests that are sent to the upstream under one tag.
	landing flight.Mutex[tagKey]
}

// publish forwards a manifest after everything that it needs. If the registry lacks a blob that
// it was believed to have, publish sends the blob from the local copy, once. how.OnRetry gets
// the errors that are retried.
func (p *publisher) publish(ctx context.Context, how upstream.Call, r repository.Repo, ref oci.Reference, man *oci.Manifest) (upstream.Pushed, error) {
	there, err := p.ensure(ctx, how, r, man)
	if err != nil {
		return upstream.Pushed{}, err
	}
	pushed, err := p.land(ctx, how, r, ref, man, there)
	if errors.Is(err, upstream.ErrPartsMissing) {
		r.ForgetChildren(ctx, man)
		p.sendStaged(ctx, how, r, man)
		there, err = p.ensure(ctx, how, r, man)
		if err := errors.Join(err, p.republishChildren(ctx, how, r, man)); err != nil {
			return upstream.Pushed{}, err
		}
		pushed, err = p.land(ctx, how, r, ref, man, there)
	}
	if err != nil {
		return upstream.Pushed{}, err
	}
	if ref.Tag != "" {
		p.o.BaseIndex.Saw(r, ref, man.MediaType, man.Digest)
	}
	p.replaceBuildCache(ctx, r, ref, man)
	return pushed, p.publishReferrers(ctx, how, r, man.Digest)
}

// land sends a manifest to the upstream and records that it is there, with the children that the
// push has waited for. Manifests for one tag take turns: otherwise, of two at once, the upstream
// could have one last and dray record the other one last.
func (p *publisher) land(ctx context.Context, how upstream.Call, r repository.Repo, ref oci.Reference, man *oci.Manifest, there []oci.Child) (upstream.Pushed, error) {
	if ref.Tag != "" {
		unlock, err := p.landing.Lock(ctx, tagKey{r, ref.Tag})
		if err != nil {
			return upstream.Pushed{}, err
		}
		defer unlock()
	}
	pushed, err := r.Up.Sink.PutManifest(ctx, r.Remote().With(how), ref, man)
	if err == nil {
		r.StorePushed(ctx, ref, man, there)
	}
	return pushed, err
}

// republishChildren publishes the manifests of an index that are held here. It is called when
// the upstream has lost one that dray told the client it had.
func (p *publisher) republishChildren(ctx context.Context, how upstream.Call, r repository.Repo, index *oci.Manifest) error {
	for _, c := range index.Children() {
		if !c.Manifest {
			continue
		}
		m := r.Held(ctx, c.Digest)
		if m == nil {
			continue // not held here: the upstream's refusal stands
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

// publishWaiting publishes a manifest if it waits, and then its waiting referrers.
func (p *publisher) publishWaiting(ctx context.Context, how upstream.Call, r repository.Repo, d digest.Digest) error {
	man := r.Waiting(d)
	if man == nil {
		return nil
	}
	_, err := p.publish(ctx, how, r, oci.Reference{Digest: d}, man)
	return err
}

// publishReferrers publishes the waiting manifests whose subject is d.
func (p *publisher) publishReferrers(ctx context.Context, how upstream.Call, r repository.Repo, d digest.Digest) error {
	waiting, k := p.o.Repositories.Waiting(), r.Key(d)
	waiting.Drop(k)
	for _, man := range waiting.Referrers(k) {
		if err := p.publishWaiting(ctx, how, r, man.Digest); err != nil {
			return err
		}
	}
	return nil
}

// ensure returns when the upstream has every blob of the manifest, and every manifest that
// waited for it. It returns the children that the upstream has then.
func (p *publisher) ensure(ctx context.Context, how upstream.Call, r repository.Repo, man *oci.Manifest) ([]oci.Child, error) {
	children := r.Needed(ctx, man)
	lost := make([]bool, len(children))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(maxParallelBlobs)
	for i, c := range children {
		if c.Manifest { // one that does not wait was pushed before its index; the upstream decides
			g.Go(func() error { return p.publishWaiting(ctx, how, r, c.Digest) })
			continue
		}
		g.Go(func() error {
			err := p.ensureBlob(ctx, how, r, c.Digest)
			if lost[i] = c.Foreign() && errors.Is(err, oci.ErrManifestBlobUnknown); lost[i] {
				return nil // no place has the foreign layer any more; the upstream need not have it
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

// replaceBuildCache deletes a build cache whose tag now names another image.
func (p *publisher) replaceBuildCache(ctx context.Context, r repository.Repo, ref oci.Reference, man *oci.Manifest) {
	to, ok := r.BuildCaches()
	if !ok || ref.Tag == "" || man.BuildCache() {
		return
	}
	if err := to.Up.Deleter.DeleteManifest(ctx, to.Remote(), ref); err != nil && !oci.NotFound(err) {
		p.o.Logger.Warn("cannot remove a build cache that hides an image with the same tag", "upstream", r.Up.Name, "repository", r.Name, "tag", ref.Tag, "error", err)
	}
}

// sendStaged sends the staged blobs of a manifest again.
func (p *publisher) sendStaged(ctx context.Context, how upstream.Call, r repository.Repo, man *oci.Manifest) {
	for _, c := range man.Children() {
		if b := r.Staged(c.Digest); b != nil && !c.Manifest {
			if err := p.upload(ctx, how, r, c.Digest, b.Size); err != nil {
				p.o.Logger.Debug("blob not forwarded again", "digest", c.Digest, "error", err)
			}
		}
	}
}

// percentCopied returns the share of an image's bytes that the upstream has, in percent, 99 at
// most.
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

// outcome returns the result of a push as a label of dray_pushes_total.
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
