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
	"dray/mirror/gate"
	"dray/mirror/queue"
	"dray/mirror/repository"
	"dray/upstream"
	"dray/upstream/oci"
)

// gatedPush is a push that asks to pass its gate.
type gatedPush struct {
	gate.Push
	owner string // the client whose quota it counts against
}

// of is the same client's push of another manifest by its digest.
func (p gatedPush) of(man *oci.Manifest) gatedPush {
	p.Ref, p.Manifest = oci.Reference{Digest: man.Digest}, man
	return p
}

// acknowledgeOrPublish takes a push over or, where the queue is full, brings it to its upstream
// while its client waits, as without a queue. It may not overtake what waits for the same
// repository: a tag would end at the older image, and an index come before its children.
func (a *publisher) acknowledgeOrPublish(ctx context.Context, p gatedPush) (upstream.Pushed, error) {
	full := a.acknowledge(ctx, p)
	if !errors.Is(full, queue.ErrFull) || len(a.o.Queue.Pushes(p.Repo.Up.Name, p.Repo.Name)) > 0 {
		return upstream.Pushed{}, full
	}
	pushed, err := a.publish(ctx, upstream.Call{}, p.Repo, p.Ref, p.Manifest)
	if err != nil && !upstream.Refused(err) {
		a.o.Logger.Debug("push not forwarded beside the full queue", "upstream", p.Repo.Up.Name, "repository", p.Repo.Name, "reference", p.Ref, "error", err)
		return upstream.Pushed{}, full // the registry is what the queue waits for, too
	}
	return pushed, err
}

// acknowledge takes a push over before its upstream has it: when it returns nil, the manifest and
// everything that the upstream may lack for it are on stable storage, and are forwarded whatever
// happens to this process. What waited for the manifest is taken over with it.
func (a *publisher) acknowledge(ctx context.Context, p gatedPush) error {
	for _, c := range p.Manifest.Children() {
		if man := p.Repo.Waiting(c.Digest); man != nil {
			if err := a.acknowledge(ctx, p.of(man)); err != nil {
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
		if err := a.acknowledge(ctx, p.of(man)); err != nil {
			return err
		}
	}
	return nil
}

// enqueue is acknowledge for the manifest alone.
func (a *publisher) enqueue(ctx context.Context, p gatedPush) error {
	r := p.Repo
	blobs, err := a.gather(ctx, p)
	if err != nil {
		return err
	}
	err = a.o.Queue.Add(ctx, queue.Push{
		Upstream: r.Up.Name, Repository: r.Name, Reference: p.Ref.String(), MediaType: p.Manifest.MediaType, Digest: p.Manifest.Digest,
		Manifest: p.Manifest.Raw, Blobs: blobs, User: p.User,
	})
	switch {
	case errors.Is(err, queue.ErrFull):
		return oci.ErrTooManyRequests.With("too many pushes wait for %s already, try again later", r.Up.Registry).Because(err)
	case errors.Is(err, cache.ErrNotFound):
		return oci.ErrManifestBlobUnknown.With("the manifest needs a blob that is no longer held here, push it again").Because(err)
	case err != nil:
		return oci.ErrUnavailable.With("the mirror cannot take the push over now").Because(err)
	}
	// Answers about the tag that are at hand, or on their way, are of before. From now on the queue
	// answers.
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

// gather finds what a push has to bring along. What is not held here the upstream must have now: a
// fact about that is not enough, because nobody will be there to send it when the fact turns out to
// be wrong.
func (a *publisher) gather(ctx context.Context, p gatedPush) ([]queue.Blob, error) {
	var mu sync.Mutex
	var blobs []queue.Blob
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for _, c := range p.Repo.Needed(ctx, p.Manifest) {
		g.Go(func() error {
			if c.Manifest {
				return a.gatherManifest(ctx, p, c.Digest)
			}
			at, err := p.Repo.LocateBlob(ctx, c.Digest, repository.Acknowledge)
			switch {
			case err != nil:
				return err
			case at.Place == repository.Nowhere && c.Foreign():
				return nil // it is nowhere any more, and need not be
			case at.Place == repository.Nowhere:
				return oci.NotPushed(oci.KindBlob, c.Digest, p.Repo.Name)
			case at.Place != repository.Confirmed: // it is here
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

// gatherManifest makes sure that a manifest of an index waits before it, or is at the upstream. One
// that is held here, so that the client did not send it, is taken over first where the upstream has
// lost it or does not answer.
func (a *publisher) gatherManifest(ctx context.Context, p gatedPush, d digest.Digest) error {
	need := repository.Acknowledge
	held := p.Repo.Held(ctx, d)
	if held != nil {
		need = repository.AcknowledgeHeld
	}
	at, err := p.Repo.LocateManifest(ctx, d, nil, need)
	switch {
	case held != nil && (upstream.Transient(err) || err == nil && at.Place == repository.Nowhere):
		man, err := held.Parse()
		if err != nil {
			return err
		}
		return a.acknowledge(ctx, p.of(man))
	case err == nil && at.Place == repository.Nowhere:
		return oci.NotPushed(oci.KindManifest, d, p.Repo.Name)
	}
	return err
}

// Forward brings a push of the queue to its upstream. It is a [queue.Forward].
func (a *publisher) Forward(ctx context.Context, e queue.Entry) error {
	up := a.o.Repositories.Upstream(e.Upstream)
	if up == nil || up.Sink == nil {
		return fmt.Errorf("the upstream %q takes no pushes any more", e.Upstream)
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
	ctx, cancel := context.WithTimeout(ctx, forwardWithin)
	defer cancel()
	how := upstream.Call{OnRetry: func(err error) { a.o.Queue.SetError(e.ID, err) }}
	_, err = a.publish(ctx, how, a.o.Repositories.Repo(up, e.Repository), ref, man)
	a.pushes.WithLabelValues(up.Name, outcome(err)).Inc()
	if upstream.Refused(err) && !upstream.Transient(err) && !errors.Is(err, upstream.ErrCredentials) && !(errors.Is(err, upstream.ErrPartsMissing) && e.Attempts < maxPartsMissing) {
		return fmt.Errorf("%w: %w", queue.ErrRefused, err)
	}
	return err
}

// maxPartsMissing bounds the attempts at a push whose parts the registry says that it lacks: each
// of them has sent what is held of it, which a registry may take some time to see. They take about
// two minutes.
const maxPartsMissing = 8
