package push

import (
	"context"
	"io"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"dray/mirror/repository"
	"dray/upstream"
	"dray/upstream/oci"
)

// publishBuildCache stores a build cache in the repository for build caches. With WriteBack,
// publishBuildCache also starts to forward the build cache.
func (p *publisher) publishBuildCache(ctx context.Context, r repository.Repo, ref oci.Reference, man *oci.Manifest) (upstream.Pushed, error) {
	to, _ := r.BuildCaches()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(maxParallelBlobs)
	var keys []repository.Key
	for _, c := range r.Needed(ctx, man) {
		if !c.Manifest {
			keys = append(keys, r.Key(c.Digest))
			g.Go(func() error { return p.copyToBuildCache(gctx, r, to, c.Digest) })
		}
	}
	if err := g.Wait(); err != nil {
		return upstream.Pushed{}, err
	}
	pushed, err := to.Up.Sink.PutManifest(ctx, to.Remote(), ref, man)
	if err != nil {
		return upstream.Pushed{}, err
	}
	// Drop the facts about the tag: clients now get the build cache under it, whatever the upstream
	// has.
	r.ForgetReference(ctx, ref)
	if !r.Up.BuildCaches.WriteBack {
		p.o.Repositories.Staged().Drop(keys...)
		return pushed, nil
	}
	p.o.Tasks.Start(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, forwardTimeout)
		defer cancel()
		_, err := p.publish(ctx, upstream.Call{}, r, ref, man)
		p.pushes.WithLabelValues(r.Up.Name, outcome(err)).Inc()
		if err != nil {
			p.o.Logger.Warn("build cache not forwarded, only stored here", "upstream", r.Up.Name, "repository", r.Name, "reference", ref.String(), "error", err)
		}
	})
	return pushed, nil
}

// copyToBuildCache copies a blob to the repository for build caches, unless the blob is already
// there. If the blob is not staged, copyToBuildCache asks the upstream whether it has the blob, and
// fails if not. If the bytes are not here, copyToBuildCache fetches them.
func (p *publisher) copyToBuildCache(ctx context.Context, r, to repository.Repo, d digest.Digest) error {
	at, err := r.LocateBlob(ctx, d, repository.CopyToBuildCache)
	if err != nil {
		return err
	}
	switch at.Place {
	case repository.InBuildCache:
		return nil
	case repository.Nowhere:
		return oci.NotPushed(oci.KindBlob, d, r.Name)
	}
	return to.Up.Sink.PutBlob(ctx, to.Remote(), upstream.Upload{
		Open: func() (io.ReadCloser, error) { return r.Fetch(d, nil).Open(ctx, at.Size) },
		Size: at.Size, Announced: d,
		Digest: func() (digest.Digest, error) { return d, nil },
	})
}
