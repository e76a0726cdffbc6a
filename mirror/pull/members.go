package pull

import (
	"context"
	"time"

	"dray/cache/meta"
	"dray/mirror/delegate"
	"dray/mirror/repository"
	"dray/upstream"
	"dray/upstream/oci"
)

// trust is a tolerance for the age of a fact from which another member has just answered: dray uses
// such a fact until its age is Tags.Fresh plus trust. Without this tolerance, several members would
// ask the upstream when a fact ceases to be fresh.
const trust = time.Second

// asksHere reports whether this member asks the upstream about a tag itself. The package delegate
// chooses one member of the fleet that asks for all members. For lists of referrers, and for
// questions to a fallback, there is no such choice: every member asks.
func (f *finder) asksHere(t tag) bool {
	return t.subject != "" || !t.after.IsZero() || f.members.Here(t.question())
}

func (t tag) question() delegate.Question {
	return delegate.Question{Upstream: t.repo.Up.Name, Repository: t.repo.Name, Reference: t.name, Accept: t.accept}
}

// byMember asks the upstream about a tag through another member of the fleet. It returns nil, nil
// if this member is to ask the upstream itself. The other member records what it learns as a fact,
// and byMember returns the manifest that this fact names. A recorded "not found" is an error.
func (f *finder) byMember(ctx context.Context, how upstream.Call, t tag, fact *meta.TagFact) (*answer, error) {
	if t.here || f.asksHere(t) {
		return nil, nil
	}
	q := t.question()
	q.Background = how.Background != nil
	if fact != nil && !fact.NotFound && f.held(ctx, t, fact.Digest) != nil {
		q.Held = fact.Digest
	}
	given, ok := f.members.Ask(ctx, q)
	if !ok {
		return nil, nil
	}
	now, _, usable := f.known(ctx, t)
	switch {
	case now == nil || !usable:
		return nil, nil
	case now.NotFound:
		return nil, t.repo.Up.Absent(meta.AbsentFact{CheckedAt: now.CheckedAt, Reason: now.Reason})
	case now.Digest != given.Digest, meta.Age(time.Now(), now.CheckedAt) >= t.repo.Up.Tags.Fresh+trust:
		return nil, nil
	}
	m := repository.Given(ctx, t.repo, given.Digest, given.Data)
	if m == nil {
		return nil, nil
	}
	source := fromMember
	if q.Held == given.Digest {
		source = fromCache
	}
	return &answer{Manifest: m, source: source}, nil
}

// fromMember asks the upstream for a manifest by digest through another member of the fleet. It
// returns nil if this member is to ask the upstream itself.
func (f *finder) fromMember(ctx context.Context, q question, accept []string) *repository.Manifest {
	if q.here {
		return nil
	}
	given, ok := f.members.Ask(ctx, delegate.Question{Upstream: q.repo.Up.Name, Repository: q.repo.Name, Reference: q.reference, Accept: accept})
	if !ok || given.Digest.String() != q.reference || len(given.Data) == 0 {
		return nil
	}
	return repository.Given(ctx, q.repo, given.Digest, given.Data)
}

// answerMember answers a question of another member, as if a client of this member had asked. It
// records the answer in the facts. The other member then decides by the facts whether its client
// gets the manifest.
func (p *Puller) answerMember(ctx context.Context, q delegate.Question) delegate.Answer {
	up := p.o.Repositories.Upstream(q.Upstream)
	ref, err := oci.ParseReference(q.Reference)
	if up == nil || err != nil || oci.CheckRepo(q.Repository) != nil {
		return delegate.Answer{}
	}
	repo := p.o.Repositories.Repo(up, q.Repository)
	how := upstream.Call{}
	if q.Background {
		how = upstream.InBackground()
	}
	var a *answer
	if ref.ByDigest() {
		if m := repo.Held(ctx, ref.Digest); m != nil {
			a = &answer{Manifest: m}
		} else {
			a, err = p.digestBy(ctx, upstream.Call{}, repo, ref.Digest, q.Accept, true)
		}
	} else {
		a, err = p.together(ctx, how, tag{repo: repo, name: ref.Tag, accept: q.Accept, here: true})
	}
	switch {
	case oci.NotFound(err):
		return delegate.Answer{Answered: true}
	case err != nil || a.stale != nil:
		return delegate.Answer{}
	}
	given := delegate.Answer{Answered: true, Digest: a.Digest}
	if q.Held != a.Digest {
		given.Data = a.Raw
	}
	return given
}
