package push

import (
	"context"
	"errors"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"dray/cache/meta"
	"dray/mirror/flight"
	"dray/mirror/gate"
	"dray/mirror/repository"
	"dray/upstream"
	"dray/upstream/oci"
)

// forwardTimeout bounds the time to forward one manifest with its blobs. Forwarding may go on after
// the client has been answered.
const forwardTimeout = time.Hour

// maxParallelBlobs is how many blobs and child manifests one operation works on at a time.
const maxParallelBlobs = 8

// publisher publishes manifests, and puts them into the queue.
type publisher struct {
	*sender
	// pushes counts pushed manifests, by upstream and result.
	pushes *prometheus.CounterVec
	// landing is locked while a manifest is sent to the upstream under a tag.
	landing flight.Mutex[tagKey]
}

// publish brings a manifest to the upstream after everything that it needs, and then its waiting
// referrers. If the registry refuses the manifest because a part is missing there, a fact about the
// part may have been wrong. In that case publish forgets that the upstream has the parts, sends
// those that are held here, and then sends the manifest once more. how.OnRetry gets each error
// after which a request is tried again.
func (p *publisher) publish(ctx context.Context, how upstream.Call, r repository.Repo, ref oci.Reference, man *oci.Manifest) (upstream.Pushed, error) {
	return p.publishSince(ctx, how, r, ref, man, meta.Question{})
}

// publishSince does the same as publish, for a client that still waits for its answer. base is the
// state of the facts about the tag when this member got the push. If another member of the fleet
// has changed the tag since, publishSince sends nothing under it.
func (p *publisher) publishSince(ctx context.Context, how upstream.Call, r repository.Repo, ref oci.Reference, man *oci.Manifest, base meta.Question) (upstream.Pushed, error) {
	there, err := p.ensure(ctx, how, r, man)
	if err != nil {
		return upstream.Pushed{}, err
	}
	pushed, err := p.land(ctx, how, r, ref, man, there, base)
	if errors.Is(err, upstream.ErrPartsMissing) {
		r.ForgetChildren(ctx, man)
		p.sendStaged(ctx, how, r, man)
		there, err = p.ensure(ctx, how, r, man)
		if err := errors.Join(err, p.republishChildren(ctx, how, r, man)); err != nil {
			return upstream.Pushed{}, err
		}
		pushed, err = p.land(ctx, how, r, ref, man, there, base)
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

// land sends a manifest to the upstream. Then it records that the upstream has the manifest and the
// children that ensure returned. For each tag, it sends one manifest at a time, because the tag
// could otherwise mean one manifest at the upstream, and another manifest in dray's facts. See
// publishSince for base.
func (p *publisher) land(ctx context.Context, how upstream.Call, r repository.Repo, ref oci.Reference, man *oci.Manifest, there []oci.Child, base meta.Question) (upstream.Pushed, error) {
	if ref.Tag != "" {
		unlock, err := p.landing.Lock(ctx, tagKeyOf(r, ref.Tag))
		if err != nil {
			return upstream.Pushed{}, err
		}
		defer unlock()
	}
	before, err := p.current(ctx, r, ref, base)
	if err != nil {
		return upstream.Pushed{}, err
	}
	pushed, err := r.Up.Sink.PutManifest(ctx, r.Remote().With(how), ref, man)
	if err == nil {
		r.StorePushed(ctx, before, ref, man, there)
	}
	return pushed, err
}

// current returns the present state of the facts about a reference. The caller then sends or queues
// a manifest under it. base is an earlier state of these facts. If the reference is a tag, and
// another member of the fleet has changed the tag between the two states, current returns an error,
// because the older image would replace the newer one.
func (p *publisher) current(ctx context.Context, r repository.Repo, ref oci.Reference, base meta.Question) (meta.Question, error) {
	now := repository.BeforePush(ctx, r, ref)
	if ref.Tag == "" {
		return now, nil
	}
	return now, p.o.Overtaken(r, ref.Tag, base, now)
}

// republishChildren publishes the manifests of an index that are held here. publishSince calls it
// when the upstream may have lost some of these manifests. The client believes that the upstream
// has them, and does not push them again.
func (p *publisher) republishChildren(ctx context.Context, how upstream.Call, r repository.Repo, index *oci.Manifest) error {
	for _, c := range index.Children() {
		if !c.Manifest {
			continue
		}
		m := r.Held(ctx, c.Digest)
		if m == nil {
			continue // if the upstream lacks this manifest, it refuses the index again
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

// publishReferrers removes d from the waiting manifests. Then it publishes the waiting manifests
// whose subject is d.
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

// ensure brings to the upstream the blobs that the manifest needs, and the children that are
// waiting manifests. It returns the children that the upstream then has. These are all needed
// children except the foreign layers that dray finds nowhere any more.
func (p *publisher) ensure(ctx context.Context, how upstream.Call, r repository.Repo, man *oci.Manifest) ([]oci.Child, error) {
	children := r.Needed(ctx, man)
	lost := make([]bool, len(children))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(maxParallelBlobs)
	for i, c := range children {
		if c.Manifest { // if the child is neither waiting nor at the upstream, the upstream refuses the index
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
	case repository.Remembered, repository.Confirmed, repository.Elsewhere:
		return nil
	case repository.Nowhere:
		return oci.NotPushed(oci.KindBlob, d, r.Name)
	}
	return p.upload(ctx, how, r, d, at.Size)
}

// replaceBuildCache deletes the build cache under a tag if the tag now names a manifest that is no
// build cache.
func (p *publisher) replaceBuildCache(ctx context.Context, r repository.Repo, ref oci.Reference, man *oci.Manifest) {
	to, ok := r.BuildCaches()
	if !ok || ref.Tag == "" || man.BuildCache() {
		return
	}
	if err := to.Up.Deleter.DeleteManifest(ctx, to.Remote(), ref); err != nil && !oci.NotFound(err) {
		p.o.Logger.Warn("cannot remove a build cache that hides an image with the same tag", "upstream", r.Up.Name, "repository", r.Name, "tag", ref.Tag, "error", err)
	}
}

// sendStaged sends the staged blobs of a manifest to the upstream again.
func (p *publisher) sendStaged(ctx context.Context, how upstream.Call, r repository.Repo, man *oci.Manifest) {
	for _, c := range man.Children() {
		if b := r.Staged(c.Digest); b != nil && !c.Manifest {
			if err := p.upload(ctx, how, r, c.Digest, b.Size); err != nil {
				p.o.Logger.Debug("blob not forwarded again", "digest", c.Digest, "error", err)
			}
		}
	}
}

// percentCopied returns how much of a manifest's blobs the upstream has, in percent of their bytes,
// but at most 99. It assumes that the upstream has all blobs that are not staged.
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

// outcome returns the value of the label named result in the metric dray_pushes_total.
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
