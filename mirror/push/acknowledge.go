package push

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"dray/cache"
	"dray/cache/meta"
	"dray/mirror/gate"
	"dray/mirror/pull"
	"dray/mirror/queue"
	"dray/mirror/repository"
	"dray/upstream"
	"dray/upstream/oci"
)

// gatedPush is a push on its way through the checks, with the client whose quota it uses.
type gatedPush struct {
	gate.Push
	owner string // the client whose quota the push uses
	// since identifies the state that the facts about the tag had before this push. It is zero for a
	// push by digest, and if no other mirror works on pushes to the repository.
	since meta.Question
}

// withManifest returns a push in which the same client pushes the manifest man, by its digest.
func (p gatedPush) withManifest(man *oci.Manifest) gatedPush {
	p.Ref, p.Manifest = oci.Reference{Digest: man.Digest}, man
	return p
}

// acknowledgeOrPublish puts a push into the queue. If the queue is full and has no push to the same
// repository, acknowledgeOrPublish publishes the push while the client waits, as without a queue. A
// push must not overtake a queued push to the same repository: otherwise a tag could finally point
// to the older image, or an index could arrive before its children. Failed and withdrawn pushes
// count as queued here: an operator may retry a failed push, and a withdrawn push may be restored.
func (a *publisher) acknowledgeOrPublish(ctx context.Context, p gatedPush) (upstream.Pushed, error) {
	full := a.acknowledge(ctx, p)
	if !errors.Is(full, queue.ErrFull) || a.o.Queue.Has(p.Repo.Up.Name, p.Repo.Name) {
		return upstream.Pushed{}, full
	}
	pushed, err := a.publishSince(ctx, upstream.Call{}, p.Repo, p.Ref, p.Manifest, p.since)
	if err != nil && !upstream.Refused(err) {
		a.o.Logger.Debug("push not forwarded directly while the queue is full", "upstream", p.Repo.Up.Name, "repository", p.Repo.Name, "reference", p.Ref, "error", err)
		return upstream.Pushed{}, full // the queue is probably full because this registry fails
	}
	return pushed, err
}

// publishAfterQueue publishes a push to an upstream that acknowledges after forwarding. The queue
// may have older pushes of its tag, from a time when the upstream acknowledged locally. If the
// newest push that still waits has another manifest, publishAfterQueue returns an error, because
// that push would move the tag back. After a success, failed older pushes can no longer be retried.
func (a *publisher) publishAfterQueue(ctx context.Context, p gatedPush) (upstream.Pushed, error) {
	up, repo, ref := p.Repo.Up.Name, p.Repo.Name, p.Ref.String()
	if old, waits := a.o.Queue.Find(up, repo, ref); waits && old.Digest != p.Manifest.Digest {
		return upstream.Pushed{}, oci.ErrTooManyRequests.With("an older push of %s to %s is still in the queue; try again when it is forwarded", ref, p.Repo.Up.Registry)
	}
	pushed, err := a.publishSince(ctx, upstream.Call{}, p.Repo, p.Ref, p.Manifest, p.since)
	if err == nil {
		a.o.Queue.Overtake(up, repo, ref)
	}
	return pushed, err
}

// acknowledge puts a push into the queue. When it returns nil, the manifest and all content that
// the upstream may lack are on stable storage. The push will be forwarded even if this process
// dies. Waiting children of the manifest go into the queue before it, and waiting referrers after
// it.
func (a *publisher) acknowledge(ctx context.Context, p gatedPush) error {
	for _, c := range p.Manifest.Children() {
		if man := p.Repo.Waiting(c.Digest); man != nil {
			if err := a.acknowledge(ctx, p.withManifest(man)); err != nil {
				return err
			}
		}
	}
	if err := a.enqueue(ctx, p); err != nil {
		return err
	}
	waiting, self := a.o.Repositories.Waiting(), p.Repo.Key(p.Manifest.Digest)
	waiting.Drop(self)
	for _, man := range waiting.Referrers(self) {
		if err := a.acknowledge(ctx, p.withManifest(man)); err != nil {
			return err
		}
	}
	return nil
}

// enqueue puts a push into the queue without its waiting children and referrers.
func (a *publisher) enqueue(ctx context.Context, p gatedPush) error {
	r := p.Repo
	blobs, err := a.heldBlobs(ctx, p)
	if err != nil {
		return err
	}
	err = a.o.Queue.Add(ctx, queue.Push{
		Upstream: r.Up.Name, Repository: r.Name, Reference: p.Ref.String(), MediaType: p.Manifest.MediaType, Digest: p.Manifest.Digest,
		Manifest: p.Manifest.Raw, Blobs: blobs, User: p.User,
	})
	switch {
	case errors.Is(err, queue.ErrFull):
		return oci.ErrTooManyRequests.With("the queue of pushes to %s is full; try again later", r.Up.Registry).Because(err)
	case errors.Is(err, cache.ErrNotFound):
		return oci.ErrManifestBlobUnknown.With("the mirror no longer has a blob of the manifest; push the image again").Because(err)
	case err != nil:
		return oci.ErrUnavailable.With("the mirror cannot queue the push at the moment; try again later").Because(err)
	}
	// From now on, the queue decides what the tag means. The upstream's answers about the tag are out
	// of date: the recorded answers, and those that are still on their way.
	after := context.WithoutCancel(ctx)
	r.ForgetReference(after, p.Ref)
	r.ForgetReference(after, oci.Reference{Digest: p.Manifest.Digest})
	a.replaceBuildCache(after, r, p.Ref, p.Manifest)
	keys := make([]repository.Key, len(blobs))
	for i, b := range blobs {
		keys[i] = r.Key(b.Digest)
	}
	a.o.Repositories.Staged().Queued(keys...)
	return nil
}

// heldBlobs returns the blobs that the queue has to keep for a push. Every other blob must be at
// the upstream. A recorded presence is not enough: if it were wrong, no client could send the blob
// after the acknowledgement. So the upstream must confirm the blob now, or another mirror must have
// sent the blob there. heldBlobs also calls ensureChild for the manifests of an index.
func (a *publisher) heldBlobs(ctx context.Context, p gatedPush) ([]queue.Blob, error) {
	var mu sync.Mutex
	var blobs []queue.Blob
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(maxParallelBlobs)
	for _, c := range p.Repo.Needed(ctx, p.Manifest) {
		g.Go(func() error {
			if c.Manifest {
				return a.ensureChild(ctx, p, c.Digest)
			}
			at, err := p.Repo.LocateBlob(ctx, c.Digest, repository.Acknowledge)
			switch {
			case err != nil:
				return err
			case at.Place == repository.Nowhere && c.Foreign():
				return nil // no place has the foreign layer any more; the upstream need not have it
			case at.Place == repository.Nowhere:
				return oci.NotPushed(oci.KindBlob, c.Digest, p.Repo.Name)
			case at.Place != repository.Confirmed && at.Place != repository.Elsewhere: // the blob is here
				mu.Lock()
				defer mu.Unlock()
				blobs = append(blobs, queue.Blob{Digest: c.Digest, Size: at.Size})
			}
			return nil
		})
	}
	err := g.Wait()
	slices.SortFunc(blobs, func(a, b queue.Blob) int { return cmp.Compare(a.Digest, b.Digest) })
	return blobs, err
}

// ensureChild ensures that a manifest of an index is in the queue or at the upstream. If the
// upstream has lost the manifest or does not answer, ensureChild puts the copy that is held here
// into the queue, because no client can send the manifest later.
func (a *publisher) ensureChild(ctx context.Context, p gatedPush, d digest.Digest) error {
	held := p.Repo.Held(ctx, d)
	if held == nil {
		at, err := p.Repo.LocateManifest(ctx, d, nil, repository.Acknowledge)
		if err == nil && at.Place == repository.Nowhere {
			return oci.NotPushed(oci.KindManifest, d, p.Repo.Name)
		}
		return err
	}
	if p.Repo.Queued(oci.Reference{Digest: d}, nil) != nil {
		return nil
	}
	ask := func(ctx context.Context) (repository.Location, error) {
		return p.Repo.LocateManifest(ctx, d, nil, repository.AcknowledgeHeld)
	}
	at, err := pull.AskQuickly(ctx, a.o.Manifests, p.Repo, ask, pull.Probe(ask))
	if err == nil && at.Place != repository.Nowhere || err != nil && !pull.NotAnswered(err) {
		return err
	}
	man, err := held.Parse()
	if err != nil {
		return err
	}
	return a.acknowledge(ctx, p.withManifest(man))
}

// Forward publishes a push from the queue. It is a [queue.Forward].
func (a *publisher) Forward(ctx context.Context, e queue.Entry) error {
	up := a.o.Repositories.Upstream(e.Upstream)
	if up == nil || up.Sink == nil {
		return fmt.Errorf("upstream %q no longer accepts pushes", e.Upstream)
	}
	man, err := oci.ParseManifest(e.MediaType, e.Manifest)
	if err != nil {
		return fmt.Errorf("%w: %w", queue.ErrRefused, err)
	}
	man.Digest = e.Digest
	ref, err := oci.ParseReference(e.Reference)
	if err != nil {
		return fmt.Errorf("%w: %w", queue.ErrRefused, err)
	}
	ctx, cancel := context.WithTimeout(ctx, forwardTimeout)
	defer cancel()
	how := upstream.Call{OnRetry: func(err error) { a.o.Queue.SetError(e.ID, err) }}
	_, err = a.publish(ctx, how, a.o.Repositories.Repo(up, e.Repository), ref, man)
	a.pushes.WithLabelValues(up.Name, outcome(err)).Inc()
	if upstream.Refused(err) && !(errors.Is(err, upstream.ErrPartsMissing) && e.Attempts < maxPartsMissing) {
		return fmt.Errorf("%w: %w", queue.ErrRefused, err)
	}
	return err
}

// maxPartsMissing bounds the attempts at a push that the registry refuses because blobs or
// manifests are missing. Each attempt sends again the parts that are held here, and a registry may
// take some time to see them. The pauses between the attempts are about two minutes in all.
const maxPartsMissing = 8
