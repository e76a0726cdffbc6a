package pull

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"net/http"
	"time"

	"dray/cache/meta"
	"dray/mirror/identity"
	"dray/mirror/request"
	"dray/upstream"
	"dray/upstream/oci"
)

// pushPatience bounds the time of the question whether the registry has content, for clients whose
// pushes are acknowledged locally. It leaves time to answer the client within 2 s.
const pushPatience = 1900 * time.Millisecond

// askBeforePush asks the upstream whether it has content that a client may be about to push. If the
// upstream gives no answer, because it is down, throttles or refuses dray's credentials,
// askBeforePush calls held. held answers with a copy that is held here and visible to the
// repository, and reports whether there is one. If there is none, the result depends on the client.
// A client whose push is acknowledged locally does not depend on the registry: it gets the
// parameter missing as the error, and then sends the content. For a few seconds after a question
// without an answer, askBeforePush does not ask the upstream again for such clients. Other clients
// get the error of the question.
func (p *Puller) askBeforePush(ctx context.Context, x *request.Request, missing *oci.Error, ask func(context.Context) error, held func(cause error) bool) error {
	quickly := x.Repo.Up.AcknowledgeLocally && x.May(identity.Push)
	var err, unanswered error
	if quickly {
		err, unanswered = p.pushes.ask(ctx, x.Repo.Up.Name, ask)
	} else if err = ask(ctx); notAnswered(err) {
		unanswered = err
	}
	switch {
	case unanswered == nil || ctx.Err() != nil:
		return err
	case held(cmp.Or(err, unanswered)):
		return nil
	case quickly:
		return missing.With("%s did not answer whether it has this content; push it", x.Repo.Up.Registry).Because(cmp.Or(err, unanswered))
	}
	return err
}

// notAnswered reports whether the error means that the upstream did not say if it has the content.
func notAnswered(err error) bool {
	return upstream.Transient(err) || errors.Is(err, context.DeadlineExceeded)
}

// impatience bounds how long clients wait for answers that they can do without. For a few seconds
// after a question without an answer, it sends no further question to that upstream.
type impatience struct {
	patience time.Duration // for one question
	breakers map[string]*upstream.Breaker
}

func newImpatience(patience time.Duration, upstreams iter.Seq[string]) impatience {
	i := impatience{patience, map[string]*upstream.Breaker{}}
	for name := range upstreams {
		i.breakers[name] = upstream.NewBreaker(upstream.BreakerOptions{Name: name, Threshold: 1})
	}
	return i
}

// ask calls the function ask with a context that ends after i.patience. The function sends a
// question to the upstream that is called name. err is the error of the function. unanswered is not
// nil if the upstream gave no answer or was not asked.
func (i impatience) ask(ctx context.Context, name string, ask func(context.Context) error) (err, unanswered error) {
	unanswered = i.breakers[name].Do(func() error {
		bounded, cancel := context.WithTimeout(ctx, i.patience)
		defer cancel()
		err = ask(bounded)
		switch {
		case ctx.Err() != nil:
			return context.Canceled
		case notAnswered(err):
			return upstream.ErrUnreachable
		}
		return nil
	})
	return err, unanswered
}

// AskQuickly calls ask, which sends a question to the upstream that is called name. The push of the
// client must not depend on the answer: AskQuickly bounds the time, and does not call ask for a few
// seconds after a question without an answer.
func (p *Puller) AskQuickly(ctx context.Context, name string, ask func(context.Context) error) {
	_, _ = p.pushes.ask(ctx, name, ask)
}

// ask asks the upstream for a manifest.
func (p *Puller) ask(x *request.Request, accept []string) (a *answer, err error) {
	ctx, ref := x.R.Context(), x.Q.Ref
	t := tag{repo: x.Repo, name: ref.Tag, accept: accept}
	ask := func(ctx context.Context) error {
		switch {
		case !ref.ByDigest():
			a, err = p.byTag(ctx, t)
		case x.AsksToPush():
			a, err = p.confirmed(ctx, x.Repo, ref.Digest, accept)
		default:
			a, err = p.byDigest(ctx, x.Repo, ref.Digest, accept)
		}
		return err
	}
	if x.R.Method != http.MethodHead || !ref.ByDigest() && p.mayBeStale(ctx, t) {
		err = ask(ctx)
		return a, err
	}
	err = p.askBeforePush(ctx, x, oci.ErrManifestUnknown, ask, func(cause error) bool {
		if !ref.ByDigest() {
			return false // byTag has looked for an old answer
		}
		m := x.Repo.Held(ctx, ref.Digest)
		if m != nil {
			a = &answer{Manifest: m, source: fromStale, stale: cause}
		}
		return m != nil
	})
	return a, err
}

// mayBeStale reports whether there is an old answer about a tag that may be served if the
// upstream fails.
func (f *finder) mayBeStale(ctx context.Context, t tag) bool {
	fact := newestFact(ctx, f.o.Tags, t)
	return fact != nil && !fact.NotFound && meta.Age(time.Now(), fact.CheckedAt) <= t.repo.Up.Tags.Stale && t.repo.Held(ctx, fact.Digest) != nil
}
