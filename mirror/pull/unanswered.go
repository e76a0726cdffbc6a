package pull

import (
	"context"
	"net/http"
	"time"

	"dray/cache/meta"
	"dray/mirror/identity"
	"dray/mirror/repository"
	"dray/mirror/request"
	"dray/upstream"
	"dray/upstream/oci"
)

// askBeforePush asks the upstream whether it has content that a client may be about to push. The
// upstream may give no answer, because it is down, throttles or refuses dray's credentials. Then
// askBeforePush calls lookUp, which looks for a copy that is here and visible to the repository. If
// there is no such copy, the result depends on the client. If dray acknowledges the client's pushes
// locally, the client does not depend on the registry: it gets the error notFound, and then sends
// the content. [AskQuickly] bounds how long such a client waits. Other clients get the error that
// the function query returned.
func askBeforePush[T any](ctx context.Context, p *Puller, x *request.Request, notFound *oci.Error, query func(context.Context) (T, error), lookUp func(cause error) (T, bool)) (v T, err error) {
	quickly := x.Repo.Up.AcknowledgeLocally && x.May(identity.Push)
	if quickly {
		v, err = AskQuickly(ctx, p, x.Repo, query, Probe(query))
	} else {
		v, err = query(ctx)
	}
	if !NotAnswered(err) || ctx.Err() != nil {
		return v, err
	}
	if old, ok := lookUp(err); ok {
		return old, nil
	}
	if quickly {
		err = notFound.With("%s did not answer whether it has this content; push it", x.Repo.Up.Registry).Because(err)
	}
	return v, err
}

// NotAnswered is [repository.NotAnswered].
func NotAnswered(err error) bool { return repository.NotAnswered(err) }

func (p *Puller) ask(ctx context.Context, x *request.Request, accept []string) (*answer, error) {
	repo, ref, confirm, how := x.Repo, x.Q.Ref, x.AsksToPush(), upstream.Call{Asked: x.Miss.Asked}
	t := p.tagOf(x, accept)
	ask := func(ctx context.Context) (*answer, error) {
		switch {
		case !ref.ByDigest():
			return p.byTag(ctx, how, t)
		case confirm:
			return p.confirmed(ctx, how, repo, ref.Digest, accept)
		}
		return p.byDigest(ctx, how, repo, ref.Digest, accept)
	}
	if x.R.Method != http.MethodHead {
		return ask(ctx)
	}
	return askBeforePush(ctx, p, x, oci.ErrManifestUnknown, func(ctx context.Context) (*answer, error) {
		a, err := ask(ctx)
		if err == nil && a.stale != nil {
			err = a.stale
		}
		return a, err
	}, func(cause error) (*answer, bool) {
		var m *repository.Manifest
		if ref.ByDigest() {
			m = repo.Held(ctx, ref.Digest)
		} else {
			m = p.outdated(ctx, t)
		}
		return &answer{Manifest: m, source: fromStale, stale: cause}, m != nil
	})
}

// outdated returns the manifest that may be served for a tag if the upstream fails, or nil.
func (f *finder) outdated(ctx context.Context, t tag) *repository.Manifest {
	fact := newestFact(ctx, f.o.Tags, t)
	if fact == nil {
		_, fact = f.toOthers(ctx, t)
	}
	if fact == nil || fact.NotFound || meta.Age(time.Now(), fact.CheckedAt) > t.repo.Up.Tags.Stale {
		return nil
	}
	return t.repo.Held(ctx, fact.Digest)
}
