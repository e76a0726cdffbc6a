package pull

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"time"

	"dray/cache/meta"
	"dray/mirror/identity"
	"dray/mirror/request"
	"dray/upstream"
	"dray/upstream/oci"
)

// pushHeadTimeout bounds the wait of a client whose push is acknowledged here, when it asks
// which content the registry has.
const pushHeadTimeout = 2 * time.Second

// askBeforePush asks the upstream whether it has content that a client may be about to push. A
// client whose push is acknowledged here does not depend on the registry. If the registry gives
// no answer, because it is down, throttles or refuses dray's credentials, askBeforePush returns
// missing, so that the client sends the content. After that, no question is sent to the
// registry for a few seconds.
func (p *Puller) askBeforePush(ctx context.Context, x *request.Request, missing *oci.Error, ask func(context.Context) error) error {
	if !x.Repo.Up.AcknowledgeLocally || !x.May(identity.Push) {
		return ask(ctx)
	}
	var err error
	unanswered := p.pushBreakers[x.Repo.Up.Name].Do(func() error {
		bounded, cancel := context.WithTimeout(ctx, pushHeadTimeout)
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
	return missing.With("%s did not answer whether it has this content; push it", x.Repo.Up.Registry).Because(cmp.Or(err, unanswered))
}

// ask asks the upstream for a manifest.
func (p *Puller) ask(x *request.Request, accept []string) (a *answer, err error) {
	ctx, ref := x.R.Context(), x.Q.Ref
	t := tag{repo: x.Repo, name: ref.Tag, accept: accept}
	ask := func(ctx context.Context) error {
		if ref.ByDigest() {
			a, err = p.byDigest(ctx, x.Repo, ref.Digest, accept)
		} else {
			a, err = p.byTag(ctx, t)
		}
		return err
	}
	if x.R.Method != http.MethodHead || !ref.ByDigest() && p.mayBeStale(ctx, t) {
		err = ask(ctx)
		return a, err
	}
	err = p.askBeforePush(ctx, x, oci.ErrManifestUnknown, ask)
	return a, err
}

// mayBeStale reports whether there is an old answer about a tag that may be served if the
// upstream fails.
func (f *finder) mayBeStale(ctx context.Context, t tag) bool {
	fact := newestFact(ctx, f.o.Tags, t)
	return fact != nil && !fact.NotFound && meta.Age(time.Now(), fact.CheckedAt) <= t.repo.Up.Tags.Stale && t.repo.Held(ctx, fact.Digest) != nil
}
