package pull

import (
	"context"
	"errors"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"

	"dray/cache/meta"
	"dray/mirror/flight"
	"dray/mirror/repository"
	"dray/upstream"
	"dray/upstream/oci"
)

// answer is a manifest on its way to a client.
type answer struct {
	*repository.Manifest
	// source is one of the constants below.
	source string
	// stale is why an old fact was used; nil for a fresh one.
	stale error
	// until is the end of a tag's window; zero for what was asked for by digest.
	until time.Time
}

const (
	fromCache  = "cache"
	fromOrigin = "origin"
	// fromStale is an old answer because the upstream failed, fromUpdating one because
	// its next answer is on the way.
	fromStale    = "stale"
	fromUpdating = "updating"
)

// finder finds manifests: here, or at their upstream.
type finder struct {
	o         Options
	questions *flight.Group[question, *answer]
	refreshes *refreshes
	refreshed *prometheus.CounterVec
}

// question is what several clients may ask an upstream at the same time: what a tag means, or for a
// manifest by digest.
type question struct {
	repo      repository.Repo
	reference string
	accept    string
}

// tag is a tag that a client asks for.
type tag struct {
	repo repository.Repo
	name string
	// accept is what the client takes.
	accept []string
}

func (t tag) key() meta.TagKey {
	return meta.TagKey{Upstream: t.repo.Up.Name, Repo: t.repo.Name, Tag: t.name, Accept: oci.AcceptKey(t.accept)}
}

// tagAtHand answers without a question, from a push that is queued, or from a fact within its
// window or shortly after it. It is nil, nil when a question is needed.
func (f *finder) tagAtHand(ctx context.Context, t tag) (*answer, error) {
	if m := t.repo.Queued(oci.Reference{Tag: t.name}, t.accept); m != nil {
		return &answer{Manifest: m, source: fromCache}, nil
	}
	lease := &meta.Lease{}
	fact := newest(ctx, f.o.Tags.Under(lease), t)
	if a, err := f.fresh(ctx, t, fact); a != nil || err != nil {
		if a != nil {
			a.Lease.Join(lease)
		}
		return a, err
	}
	return f.aging(ctx, t, fact), nil
}

// byTag finds a manifest by tag that is not at hand.
func (f *finder) byTag(ctx context.Context, t tag) (*answer, error) {
	key := t.key()
	return f.questions.Do(ctx, question{t.repo, t.name, key.Accept}, func(ctx context.Context) (*answer, error) {
		// Another question may have been answered since it was not at hand.
		fact := newest(ctx, f.o.Tags, t)
		if a, err := f.fresh(ctx, t, fact); a != nil || err != nil {
			return a, err
		}
		return f.askTag(ctx, upstream.Call{}, t, fact)
	})
}

// byTagOrQueued finds a manifest by tag, also one that is still on its way.
func (f *finder) byTagOrQueued(ctx context.Context, t tag) (*answer, error) {
	if m := t.repo.Queued(oci.Reference{Tag: t.name}, t.accept); m != nil {
		return &answer{Manifest: m, source: fromCache}, nil
	}
	return f.byTag(ctx, t)
}

// newest is the newest fact that answers a client with these Accept lines, or nil.
func newest(ctx context.Context, tags *meta.Tags, t tag) *meta.TagFact {
	key := t.key()
	fact, err := tags.Get(ctx, key)
	key.Accept = repository.PushedAccept
	p, perr := tags.Get(ctx, key)
	now := time.Now()
	if perr == nil && oci.Accepts(t.accept, p.MediaType) && (err != nil || meta.Age(now, p.CheckedAt) < meta.Age(now, fact.CheckedAt)) {
		return &p
	}
	if err != nil {
		return nil
	}
	return &fact
}

// fresh answers from a fact that is young enough, with nil, nil when there is none.
func (f *finder) fresh(ctx context.Context, t tag, fact *meta.TagFact) (*answer, error) {
	if fact == nil {
		return nil, nil
	}
	if fact.NotFound {
		return nil, t.repo.Up.Absent(meta.AbsentFact{CheckedAt: fact.CheckedAt, Reason: fact.Reason})
	}
	if meta.Age(time.Now(), fact.CheckedAt) >= t.repo.Up.Tags.Fresh {
		return nil, nil
	}
	m := t.repo.Held(ctx, fact.Digest)
	if m == nil {
		return nil, nil
	}
	return &answer{Manifest: m, source: fromCache, until: fact.CheckedAt.Add(t.repo.Up.Tags.Fresh)}, nil
}

// askTag asks the upstream what a tag is now: with one HEAD where the last answer is
// held, else with one GET.
func (f *finder) askTag(ctx context.Context, how upstream.Call, t tag, fact *meta.TagFact) (*answer, error) {
	asked := time.Now()
	up, ref, remote := t.repo.Up, oci.Reference{Tag: t.name}, t.repo.Remote().With(how)
	var old *answer
	if fact != nil && !fact.NotFound {
		if m := t.repo.Held(ctx, fact.Digest); m != nil {
			old = &answer{Manifest: m, source: fromCache}
		}
	}
	source := up.Source
	if old != nil {
		source = up.OneTry()
		d, err := source.StatManifest(ctx, remote, ref, t.accept)
		if err == nil && d.Digest == fact.Digest {
			again := *fact
			again.CheckedAt = asked
			f.o.Repositories.Recorded(f.o.Tags.Set(ctx, t.key(), again, 0))
			return old, nil
		}
		// The refusal of a HEAD has no text. That of a GET tells whether the right is
		// missing or the token has expired, and why.
		if err != nil && !errors.Is(err, oci.ErrDenied) {
			return f.staleOr(ctx, t, old, fact, asked, err)
		}
	}
	man, err := source.Manifest(ctx, remote, ref, t.accept)
	if err != nil {
		return f.staleOr(ctx, t, old, fact, asked, err)
	}
	t.repo.Store(ctx, man, repository.Children(man))
	f.o.KeepAlive.Touched(ctx, t.repo, t.name, man)
	f.o.Repositories.Recorded(f.o.Tags.Set(ctx, t.key(), meta.TagFact{Digest: man.Digest, MediaType: man.MediaType, Size: int64(len(man.Raw)), CheckedAt: asked}, 0))
	return &answer{Manifest: repository.ManifestOf(man), source: fromOrigin}, nil
}

// staleOr answers with what is held when the error says nothing about the tag, and
// remembers that there is no such tag when it says so.
func (f *finder) staleOr(ctx context.Context, t tag, old *answer, fact *meta.TagFact, asked time.Time, err error) (*answer, error) {
	if oci.NotFound(err) {
		f.o.Repositories.Recorded(f.o.Tags.SetNotFound(ctx, t.key(), asked, t.repo.Up.Tags.NotFound, repository.ReasonOf(err)))
		return nil, err
	}
	failing := upstream.Transient(err) || errors.Is(err, context.DeadlineExceeded)
	if old == nil || !failing || meta.Age(asked, fact.CheckedAt) > t.repo.Up.Tags.Stale {
		return nil, err
	}
	a := *old
	a.source, a.stale = fromStale, err
	return &a, nil
}

// byDigest finds a manifest by digest that is not at hand: the upstream confirms it, or sends it.
func (f *finder) byDigest(ctx context.Context, r repository.Repo, d digest.Digest, accept []string) (*answer, error) {
	// Some registries answer "not found" to a client that does not take the type.
	key := question{r, d.String(), oci.AcceptKey(accept)}
	return f.questions.Do(ctx, key, func(ctx context.Context) (*answer, error) {
		if m := r.Held(ctx, d); m != nil {
			return &answer{Manifest: m, source: fromCache}, nil
		}
		asked := time.Now()
		a, err := f.askDigest(ctx, r, d, accept)
		r.NoManifest(d, accept).Remember(ctx, asked, err)
		return a, err
	})
}

func (f *finder) askDigest(ctx context.Context, r repository.Repo, d digest.Digest, accept []string) (*answer, error) {
	ref := oci.Reference{Digest: d}
	if raw, err := f.o.Cache.Bytes(ctx, d, oci.MaxManifestBytes); err == nil {
		desc, err := r.Up.Source.StatManifest(ctx, r.Remote(), ref, accept)
		if err != nil {
			return nil, err
		}
		if man, err := oci.ParseManifest(desc.MediaType, raw); err == nil {
			man.Digest = d // the algorithm asked for
			r.Store(ctx, man, repository.Children(man))
			return &answer{Manifest: repository.ManifestOf(man), source: fromCache}, nil
		}
	}
	man, err := r.Up.Source.Manifest(ctx, r.Remote(), ref, accept)
	if err != nil {
		return nil, err
	}
	man.Digest = d
	r.Store(ctx, man, repository.Children(man))
	f.o.KeepAlive.Touched(ctx, r, "", man)
	return &answer{Manifest: repository.ManifestOf(man), source: fromOrigin}, nil
}
