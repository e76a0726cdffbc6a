package mirror

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"dray/cache"
	"dray/mirror/identity"
	"dray/mirror/queue"
	"dray/upstream"
	"dray/upstream/oci"

	"golang.org/x/sync/errgroup"
)

// acknowledgeOrLand takes a push over or, where the queue is full, brings it to its upstream while its client waits, as without a queue.
// It may not overtake what waits for the same repository: a tag would end at the older image, and an index come before its children.
func (m *Mirror) acknowledgeOrLand(ctx context.Context, p plea) (upstream.Pushed, error) {
	full := m.acknowledge(ctx, p)
	if !errors.Is(full, queue.ErrFull) || len(m.queue.Pushes(p.up.Name, p.repo)) > 0 {
		return upstream.Pushed{}, full
	}
	pushed, err := m.land(ctx, upstream.Call{}, p.up, p.repo, p.ref, p.man)
	if err != nil && !isRefusal(err) {
		m.log.Debug("push not forwarded beside the full queue", "upstream", p.up.Name, "repository", p.repo, "reference", p.ref, "error", err)
		return upstream.Pushed{}, full // the registry is what the queue waits for, too
	}
	return pushed, err
}

// acknowledge takes a push over before its upstream has it: when it returns nil, the manifest and everything that the
// upstream may lack for it are on stable storage, and are forwarded whatever happens to this process. What waited for the
// manifest is taken over with it.
func (m *Mirror) acknowledge(ctx context.Context, p plea) error {
	for _, c := range p.man.Children() {
		if man := m.backlog.get(pinKey{p.up.Name, p.repo, c.Digest}); man != nil {
			if err := m.acknowledge(ctx, p.of(man)); err != nil {
				return err
			}
		}
	}
	if err := m.enqueue(ctx, p); err != nil {
		return err
	}
	self := pinKey{p.up.Name, p.repo, p.man.Digest}
	m.backlog.drop(self)
	for _, man := range m.backlog.about(self) {
		if err := m.acknowledge(ctx, p.of(man)); err != nil {
			return err
		}
	}
	return nil
}

// of is the same client's push of another manifest by its digest.
func (p plea) of(man *oci.Manifest) plea {
	p.ref, p.man = oci.Reference{Digest: man.Digest}, man
	return p
}

// answerWithin is how long a client whose push is acknowledged here is kept waiting for what the
// registry has of it already.
const answerWithin = 2 * time.Second

// orSend asks the upstream whether it has what a client may be about to push. The client of a push
// that is acknowledged here waits for no registry: where that gives no answer, because it is down,
// throttles or refuses dray's credentials, the answer is missing, so that the client sends the
// content. After one question without an answer the next ones are not asked for a few seconds.
func (x *exchange) orSend(ctx context.Context, missing *oci.Error, ask func(context.Context) error) error {
	if !x.up.AcknowledgeLocally || !x.mayPush() {
		return ask(ctx)
	}
	var err error
	unanswered := x.up.answers.Do(func() error {
		bounded, cancel := context.WithTimeout(ctx, answerWithin)
		defer cancel()
		err = ask(bounded)
		switch {
		case ctx.Err() != nil:
			return context.Canceled
		case upstream.Transient(err), errors.Is(err, context.DeadlineExceeded):
			return upstream.ErrUnreachable
		}
		return nil
	})
	if unanswered == nil || ctx.Err() != nil {
		return err
	}
	return missing.With("%s does not say whether it has it: send it", x.up.Registry).Because(cmp.Or(err, unanswered))
}

// mayPush reports whether the client may push to the repository that it asks about.
func (x *exchange) mayPush() bool {
	_, err := x.listener.Policy.Authorise(x.r, identity.Need{Action: identity.Push, Repository: x.target.Name})
	return err == nil
}

// enqueue is acknowledge for the manifest alone.
func (m *Mirror) enqueue(ctx context.Context, p plea) error {
	up, repo := p.up, p.repo
	blobs, err := m.gather(ctx, p)
	if err != nil {
		return err
	}
	err = m.queue.Add(ctx, queue.Push{
		Upstream: up.Name, Repository: repo, Reference: p.ref.String(), MediaType: p.man.MediaType, Digest: p.man.Digest, Manifest: p.man.Raw, Blobs: blobs, User: p.user,
	})
	switch {
	case errors.Is(err, queue.ErrFull):
		return oci.ErrTooManyRequests.With("too many pushes wait for %s already, try again later", up.Registry).Because(err)
	case errors.Is(err, cache.ErrNotFound):
		return oci.ErrManifestBlobUnknown.With("the manifest needs a blob that is no longer held here, push it again").Because(err)
	case err != nil:
		return oci.ErrUnavailable.With("the mirror cannot take the push over now").Because(err)
	}
	// Answers about the tag that are at hand, or on their way, are of before. From now on the queue answers.
	after := context.WithoutCancel(ctx)
	m.forgetReference(after, up, repo, p.ref)
	m.recorded(m.absences.Forget(after, up.Name, repo, p.man.Digest))
	m.replaceAside(after, up, repo, p.ref, p.man)
	keys := make([]pinKey, len(blobs))
	for i, b := range blobs {
		keys[i] = pinKey{up.Name, repo, b.Digest}
	}
	m.pins.entrust(keys...)
	return nil
}

// gather finds what a push has to bring along. What is not held here the upstream must have now: a fact about that is
// not enough, because nobody will be there to send it when the fact turns out to be wrong.
func (m *Mirror) gather(ctx context.Context, p plea) ([]queue.Blob, error) {
	var mu sync.Mutex
	var blobs []queue.Blob
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for _, c := range m.neededChildren(ctx, p.up, p.repo, p.man) {
		g.Go(func() error {
			if c.Manifest {
				return m.gatherManifest(ctx, p, c)
			}
			size, here, err := m.gatherBlob(ctx, p.up, p.repo, c)
			if c.Foreign() && errors.Is(err, oci.ErrManifestBlobUnknown) {
				return nil // it is nowhere any more, and need not be
			}
			if err == nil && here {
				mu.Lock()
				defer mu.Unlock()
				blobs = append(blobs, queue.Blob{Digest: c.Digest, Size: size})
			}
			return err
		})
	}
	err := g.Wait()
	slices.SortFunc(blobs, func(a, b queue.Blob) int { return cmp.Compare(a.Digest, b.Digest) })
	return blobs, err
}

// gatherBlob says whether a blob is held here for the repository, or else makes sure that the upstream has it.
func (m *Mirror) gatherBlob(ctx context.Context, up *Upstream, repo string, c oci.Child) (size int64, here bool, err error) {
	if p := m.pins.get(pinKey{up.Name, repo, c.Digest}); p != nil {
		return p.size, true, nil
	}
	if size, ok := m.queue.Blob(up.Name, repo, c.Digest); ok {
		return size, true, nil
	}
	_, aside := m.keptAside(ctx, up, repo, c.Digest)
	if _, visible, _ := m.visible(ctx, up, repo, c.Digest); visible || aside {
		if release, err := m.cache.Keep(ctx, c.Digest); err == nil { // memory alone does not outlive the process
			defer release()
			size, _ := m.cache.Stat(c.Digest)
			return size, true, nil
		}
	}
	_, err = up.Source.StatBlob(ctx, up.remote(repo), c.Digest)
	if oci.NotFound(err) {
		err = oci.NotPushed(oci.KindBlob, c.Digest, repo)
	}
	return 0, false, err
}

// gatherManifest makes sure that a manifest of an index waits before it, or is at the upstream. One
// that is held here, so that the client did not send it, is taken over first where the upstream has
// lost it or does not answer.
func (m *Mirror) gatherManifest(ctx context.Context, p plea, c oci.Child) error {
	up, repo := p.up, p.repo
	if _, ok := m.queue.Find(up.Name, repo, c.Digest.String()); ok {
		return nil
	}
	man, err := m.heldManifest(ctx, up, repo, c.Digest)
	if err != nil {
		return err
	}
	source := up.Source
	if man != nil {
		source = up.Once
	}
	_, err = source.StatManifest(ctx, up.remote(repo), oci.Reference{Digest: c.Digest}, anyManifest)
	switch {
	case man != nil && (oci.NotFound(err) || upstream.Transient(err)):
		return m.acknowledge(ctx, p.of(man))
	case !oci.NotFound(err):
		return err
	}
	return oci.NotPushed(oci.KindManifest, c.Digest, repo)
}

// Forward brings a push of the queue to its upstream. It is a [queue.Forward].
func (m *Mirror) Forward(ctx context.Context, e queue.Entry) error {
	up := m.upstreams[e.Upstream]
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
	ctx, cancel := context.WithTimeout(ctx, landWithin)
	defer cancel()
	how := upstream.Call{OnRetry: func(err error) { m.queue.Trouble(e.ID, err) }}
	_, err = m.land(ctx, how, up, e.Repository, ref, man)
	m.metrics.pushes.WithLabelValues(up.Name, outcome(err)).Inc()
	if isRefusal(err) && !upstream.Transient(err) && !errors.Is(err, upstream.ErrCredentials) && !(errors.Is(err, upstream.ErrPartsMissing) && e.Attempts < maxPartsMissing) {
		return fmt.Errorf("%w: %w", queue.ErrRefused, err)
	}
	return err
}

// maxPartsMissing bounds the attempts at a push whose parts the registry says that it lacks. Each of
// them has sent what is held here, and a registry may take some time to see that. They take about
// two minutes.
const maxPartsMissing = 8

// queued is the answer about a push that its upstream does not have yet, or nil.
func (m *Mirror) queued(up *Upstream, repo string, ref oci.Reference, accept []string) *answer {
	p, ok := m.queue.Find(up.Name, repo, ref.String())
	if !ok || !ref.ByDigest() && !oci.Accepts(accept, p.MediaType) {
		return nil
	}
	return &answer{raw: p.Manifest, digest: p.Digest, mediaType: p.MediaType, source: fromCache}
}

// withQueued adds the tags of a repository that are on their way to the last page of those that are there.
func (m *Mirror) withQueued(up *Upstream, repo string, tags []string, last string, n int) []string {
	inOrder := slices.IsSorted(tags)
	for _, t := range m.queue.Tags(up.Name, repo) {
		if t > last && !slices.Contains(tags, t) && (n < 0 || len(tags) < n) {
			tags = append(tags, t)
		}
	}
	if inOrder {
		slices.Sort(tags)
	}
	return tags
}
