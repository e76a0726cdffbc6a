package push

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"dray/cache"
	"dray/mirror/gate"
	"dray/mirror/repository"
	"dray/upstream"
)

// recover takes over the uploads, staged blobs and waiting manifests of a former process. It drops
// those that have expired, or whose upstream no longer accepts pushes. It also drops the staged
// blobs that the queue has, because the queue retains them itself.
func (p *Pusher) recover(now time.Time) {
	var needed []repository.Key
	for _, k := range p.o.Cache.Recover() {
		more, err := p.takeOver(k, now)
		if err != nil {
			p.o.Logger.Info("discarded upload of an earlier process", "upload", k.Key, "reason", err)
			_ = k.Close()
		}
		needed = append(needed, more...)
	}
	p.o.Repositories.Staged().Renew(needed...)
}

// takeOver takes over one upload, staged blob or waiting manifest. It returns the keys of the blobs
// that a waiting manifest needs.
func (p *Pusher) takeOver(k cache.Resumable, now time.Time) (needed []repository.Key, err error) {
	var r receipt
	if err := json.Unmarshal(k.Note, &r); err != nil {
		return nil, fmt.Errorf("cannot decode the receipt: %w", err)
	}
	if k.Since.After(now) { // the clock was ahead when Since was set, so count the expiry from now
		k.Since = now
	}
	up := p.o.Repositories.Upstream(r.Upstream)
	repo := p.o.Repositories.Repo(up, r.Repository)
	switch {
	case up == nil || up.Sink == nil:
		return nil, fmt.Errorf("upstream %q no longer accepts pushes", r.Upstream)
	case r.Waiting != nil:
		return p.waitAgain(k, r, repo, now)
	case now.Sub(k.Since) >= p.sessions.expiry:
		return nil, errExpired
	case k.Upload != nil:
		p.o.Quotas.count(r.Owner, 1, k.Upload.Size())
		p.sessions.add(k.Key, repo, r, k.Upload, k.Since)
		return nil, nil
	}
	if _, queued := p.o.Queue.Blob(r.Upstream, r.Repository, k.Blob.Digest); queued {
		return nil, errors.New("the push is queued")
	}
	p.o.Quotas.count(r.Owner, 0, k.Blob.Size)
	again := recovered{repo.Key(k.Blob.Digest), &repository.Staged{Size: k.Blob.Size, Owner: r.Owner, Forward: newForward(), Blob: k.Blob, Since: k.Since}}
	p.o.Repositories.Staged().Set(again.key, again.blob)
	p.recovered = append(p.recovered, again)
	return nil, nil
}

// Recover sends the staged blobs of a former process to their upstreams, unless the repository has
// a gate. It also calls check for the manifests that waitAgain has put into p.unjudged: check runs
// the checks, and then forwards the manifest or lets it wait.
func (p *Pusher) Recover(ctx context.Context) {
	var g errgroup.Group
	g.SetLimit(maxParallelBlobs)
	for _, r := range p.recovered {
		g.Go(func() error {
			r.key.Now().Announce(ctx, r.key.Digest, r.blob)
			forwardOf(r.blob).end(p.forwardAgain(ctx, r.key, r.blob.Size))
			return nil
		})
	}
	for _, w := range p.unjudged {
		g.Go(func() error {
			_, err := p.check(ctx, w.gatedPush)
			if err != nil {
				p.o.Logger.Warn("manifest of an earlier process neither waits nor was forwarded", "repository", w.Repo.Name, "digest", w.Manifest.Digest, "error", err)
			}
			if _, rejected := errors.AsType[*gate.Rejected](err); err == nil || rejected {
				_ = w.kept.Close()
			}
			return nil // after an error that is no rejection, w.kept stays, and the next process tries again
		})
	}
	_ = g.Wait() // always nil: the functions above record or log their errors
}

func (p *Pusher) forwardAgain(ctx context.Context, k repository.Key, size int64) error {
	r := k.Now()
	if r.PresentAtTarget(ctx, k.Digest) {
		return nil
	}
	if p.o.Checks.For(r) != nil {
		return gate.ErrHeldBack // no check has looked at the blob in this process
	}
	return p.sender.upload(ctx, upstream.Call{}, r, k.Digest, size)
}
