package pull

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"

	"dray/cache/meta"
	"dray/mirror/delegate"
	"dray/mirror/flight"
	"dray/mirror/repository"
	"dray/upstream"
	"dray/upstream/oci"
)

// answer is a manifest that is sent to a client.
type answer struct {
	*repository.Manifest
	// source is one of the constants below.
	source string
	// stale is the error of the upstream if an old fact was used because of that error; nil otherwise.
	stale error
	// until is when the fact behind the answer ceases to be fresh. It is zero if the answer does not
	// depend on a fact that ages.
	until time.Time
}

const (
	fromCache  = "cache"
	fromOrigin = "origin"
	// fromBucket marks content whose bytes came from the tier of its upstream.
	fromBucket = "bucket"
	// fromMember marks content whose bytes came from another member of a fleet.
	fromMember = "member"
	// fromStale marks an old answer that is sent because the upstream failed. fromUpdating marks an
	// old answer that is sent while the upstream is asked in the background.
	fromStale    = "stale"
	fromUpdating = "updating"
)

// finder finds manifests here or at their upstream.
type finder struct {
	o         Options
	questions *flight.Group[question, *answer]
	refreshes *refreshes
	refreshed *prometheus.CounterVec
	// lists bounds the time that clients wait for a list of referrers.
	lists *impatience
	// accepts has the kinds of clients that have asked about tags.
	accepts *accepts
	// members is nil without a fleet.
	members *delegate.Delegate
}

// question identifies a request to an upstream, so that several clients can share the request. It
// asks for the meaning of a tag, for a list of referrers, or for a manifest by digest.
type question struct {
	repo      repository.Repo
	reference string
	accept    string
	// confirm is set if the upstream is asked for a manifest by digest although the manifest is held
	// here.
	confirm bool
	after   time.Time // as in tag
	here    bool      // as in tag
	// background says that no client waits, so that the request yields to those of clients.
	background bool
}

// tag is a tag that a client asks for, or a list of referrers.
type tag struct {
	repo repository.Repo
	name string
	// accept has the Accept lines of the client.
	accept []string
	// subject, if not empty, says that the client asks for the manifests that refer to this digest.
	// Then the field name is the fallback tag of the digest.
	subject digest.Digest
	// after is when the upstream answered last whose fallback is asked. A fact of the fallback that is
	// older does not count. It is zero if no upstream has a fallback here.
	after time.Time
	// here says that no other member of the fleet is asked, because one has asked this one.
	here bool
	// own says that answers to other clients do not count.
	own bool
}

func (t tag) key() meta.TagKey {
	k := meta.TagKey{Upstream: t.repo.Up.Name, Repo: t.repo.Name, Tag: t.name, Accept: oci.AcceptKey(t.accept)}
	if t.subject != "" {
		k.Accept = meta.Referrers
	}
	return k
}

// tagAtHand answers without waiting for the upstream: from a queued push, or from a fact. See
// remembered.
func (f *finder) tagAtHand(ctx context.Context, t tag, updating bool) (*answer, *meta.TagFact, error) {
	if m := t.repo.Queued(oci.Reference{Tag: t.name}, t.accept); m != nil {
		return &answer{Manifest: m, source: fromCache}, nil, nil
	}
	return f.remembered(ctx, t, updating)
}

// remembered answers from a fresh fact. If updating is set, it also uses an old fact that may be
// served while the tag is refreshed. It returns no answer and no error if the client must wait for
// the upstream. An error is a recorded "not found" that is still valid. remembered also returns the
// newest fact, or nil.
func (f *finder) remembered(ctx context.Context, t tag, updating bool) (*answer, *meta.TagFact, error) {
	lease := &meta.Lease{}
	fact := newestFact(ctx, f.o.Tags.Under(lease), t)
	if a, err := f.fresh(ctx, t, fact); a != nil || err != nil {
		if a != nil {
			a.Lease.Join(lease)
		}
		return a, fact, err
	}
	if !updating {
		return nil, fact, nil
	}
	return f.staleWhileRevalidate(ctx, t, fact), fact, nil
}

// byTag returns the manifest of a tag, or a list of referrers. It asks the upstream unless it has a
// fresh fact.
func (f *finder) byTag(ctx context.Context, how upstream.Call, t tag) (*answer, error) {
	return f.together(ctx, how, t)
}

// together is freshOrAsk, once for all that ask at the same time, clients as well as members of the
// fleet.
func (f *finder) together(ctx context.Context, how upstream.Call, t tag) (*answer, error) {
	t.here = t.here || f.asksHere(t)
	key := question{repo: t.repo, reference: t.name, accept: t.key().Accept, after: t.after, here: t.here, background: how.Background != nil}
	return f.questions.Do(ctx, key, func(ctx context.Context) (*answer, error) {
		how.Asked.Begin()
		// The answer to another question may have arrived since the caller looked.
		return f.freshOrAsk(ctx, how, t)
	})
}

// maxOvertaken bounds the questions about a tag that is pushed each time before the upstream has
// answered. The last answer is then good enough: the client asked while the tag was being pushed.
const maxOvertaken = 4

// freshOrAsk answers from a fresh fact, or asks the upstream. If the tag is pushed meanwhile, by
// whichever mirror, it looks again: who has joined this question may have seen the push succeed.
func (f *finder) freshOrAsk(ctx context.Context, how upstream.Call, t tag) (a *answer, err error) {
	if t.subject == "" {
		f.accepts.add(t.key().Accept)
	}
	for range maxOvertaken {
		fact, q, fresh := f.known(ctx, t)
		if fresh {
			if a, err := f.fresh(ctx, t, fact); a != nil || err != nil {
				return a, err
			}
		}
		if a, err := f.byMember(ctx, how, t, fact); a != nil || err != nil {
			return a, err
		}
		overtaken := false
		if a, overtaken, err = f.askTag(ctx, how, t, fact, q); !overtaken {
			break
		}
	}
	return a, err
}

// newestFact returns the newest fact that is valid for the client's Accept lines, or nil.
func newestFact(ctx context.Context, tags *meta.Tags, t tag) *meta.TagFact {
	fact := anyFact(ctx, tags, t)
	if fact == nil || fact.CheckedAt.Before(t.after) {
		return nil
	}
	return fact
}

// known is newestFact for a caller that is going to ask the upstream: it reads what the store has
// now, and returns the question by which the answer is recorded. usable is false if this mirror
// knew something that the store has refused. The fact may then be older than that.
func (f *finder) known(ctx context.Context, t tag) (fact *meta.TagFact, q meta.Question, usable bool) {
	facts, q, doubtful := f.o.Tags.Ask(ctx, t.keys()...)
	if fact = t.newest(facts); fact != nil && fact.CheckedAt.Before(t.after) {
		fact = nil
	}
	return fact, q, !doubtful
}

// anyFact is newestFact without the bound that the field after of a tag sets.
func anyFact(ctx context.Context, tags *meta.Tags, t tag) *meta.TagFact {
	facts, err := tags.Find(ctx, t.keys()...)
	if err != nil {
		return nil
	}
	return t.newest(facts)
}

// keys returns the keys of the facts that can answer: that of the question, and that of a push.
func (t tag) keys() []meta.TagKey {
	key := t.key()
	if t.subject != "" {
		return []meta.TagKey{key}
	}
	pushed := key
	pushed.Accept = repository.PushedAccept
	return []meta.TagKey{key, pushed}
}

// newest returns the newest of the facts under keys that is valid for the client's Accept lines, or
// nil.
func (t tag) newest(facts []*meta.TagFact) *meta.TagFact {
	fact := facts[0]
	if len(facts) == 1 {
		return fact
	}
	now, p := time.Now(), facts[1]
	if p != nil && oci.Accepts(t.accept, p.MediaType) && (fact == nil || meta.Age(now, p.CheckedAt) < meta.Age(now, fact.CheckedAt)) {
		return p
	}
	return fact
}

// fresh returns the answer that a fact gives while it is fresh. The answer of a negative fact is an
// error. It returns nil, nil if the fact is nil or not fresh, or if its manifest is not held.
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
	m := f.held(ctx, t, fact.Digest)
	if m == nil {
		return nil, nil
	}
	return &answer{Manifest: m, source: fromCache, until: fact.CheckedAt.Add(t.repo.Up.Tags.Fresh)}, nil
}

func (f *finder) held(ctx context.Context, t tag, d digest.Digest) *repository.Manifest {
	if t.subject != "" {
		return f.heldList(ctx, d)
	}
	return t.repo.Held(ctx, d)
}

// askTag asks the upstream for the meaning of a tag, or for a list of referrers. For a tag, it
// sends a HEAD if the last answer is held, and a GET if there is no such answer or the tag has
// moved. overtaken says that the answer was out of date when it came.
func (f *finder) askTag(ctx context.Context, how upstream.Call, t tag, fact *meta.TagFact, q meta.Question) (a *answer, overtaken bool, err error) {
	var old *answer
	if fact != nil && !fact.NotFound {
		if m := f.held(ctx, t, fact.Digest); m != nil {
			old = &answer{Manifest: m, source: fromCache}
		}
	}
	spare := old
	if fact == nil && !t.own {
		spare, fact = f.toOthers(ctx, t)
	}
	man, source, err := f.newer(ctx, how, t, old, spare != nil)
	if err != nil {
		return f.staleIfError(ctx, t, spare, fact, q, err)
	}
	if man == nil {
		if t.subject == "" {
			t.repo.RecordConfirmed(ctx, old.Manifest, q.Asked())
		}
		return old, f.record(ctx, q, meta.TagFact{Digest: fact.Digest, MediaType: fact.MediaType, Size: fact.Size}, 0), nil
	}
	if t.subject != "" {
		f.storeList(ctx, t, man)
	} else {
		t.repo.Store(ctx, man, repository.Children(man))
		if source == fromOrigin {
			f.o.KeepAlive.Touched(ctx, t.repo, t.name, man)
		}
	}
	overtaken = f.record(ctx, q, meta.TagFact{Digest: man.Digest, MediaType: man.MediaType, Size: int64(len(man.Raw))}, 0)
	return &answer{Manifest: repository.ManifestOf(man), source: source}, overtaken, nil
}

// record records the answer to a question, and reports whether it was out of date when it came.
func (f *finder) record(ctx context.Context, q meta.Question, fact meta.TagFact, keep time.Duration) (overtaken bool) {
	ok, err := f.o.Tags.Set(ctx, q, fact, keep)
	f.o.Repositories.Recorded(err)
	return !ok && err == nil
}

// newer asks the upstream for a tag or list, and returns a nil manifest if the answer is still the
// old one. source says where the bytes of the manifest came from. With a tier, whose manifests cost
// the upstream nothing but a HEAD, newer asks by HEAD even if there is no old answer. spare says
// that the caller can answer without the upstream, so that a failure need not be waited out.
func (f *finder) newer(ctx context.Context, how upstream.Call, t tag, old *answer, spare bool) (man *oci.Manifest, source string, err error) {
	if t.subject != "" {
		man, err = f.newerList(ctx, how, t, old)
		return man, fromOrigin, err
	}
	ref, remote, from := oci.Reference{Tag: t.name}, t.repo.Remote().With(how), t.repo.Up.ForPulls()
	if spare {
		from = t.repo.Up.OneTry()
	}
	if old != nil || t.repo.Up.Tier != nil {
		d, err := t.repo.Up.OneTry().StatManifest(ctx, remote, ref, t.accept)
		switch {
		case old != nil && (err != nil || d.Digest == old.Digest), oci.NotFound(err):
			return nil, "", err
		case err == nil && d.Data != nil:
			return repository.ReadManifest(d.Digest, d.MediaType, d.Data), fromOrigin, nil
		case err == nil && t.repo.Up.Tier != nil:
			if raw, err := f.o.Repositories.Bytes(ctx, t.repo.Up, d.Digest); err == nil {
				return repository.ReadManifest(d.Digest, d.MediaType, raw), fromBucket, nil
			}
		}
	}
	man, err = from.Manifest(ctx, remote, ref, t.accept)
	return man, fromOrigin, err
}

// staleIfError returns the old answer if the upstream failed and the fact is not too old (RFC
// 5861). Otherwise it returns err. If err says that there is no such tag, staleIfError records
// that.
func (f *finder) staleIfError(ctx context.Context, t tag, old *answer, fact *meta.TagFact, q meta.Question, err error) (*answer, bool, error) {
	if oci.NotFound(err) {
		absent := meta.TagFact{NotFound: true, Reason: repository.ReasonOf(err)}
		return nil, f.record(ctx, q, absent, cmp.Or(max(t.repo.Up.Tags.NotFound, 0), -1)), err
	}
	if old == nil || !NotAnswered(err) || meta.Age(q.Asked(), fact.CheckedAt) > t.repo.Up.Tags.Stale {
		return nil, false, err
	}
	a := *old
	a.source, a.stale = fromStale, err
	return &a, false, nil
}

// toOthers returns the newest answer about a tag to clients with other Accept lines whose manifest
// is held, if this client accepts it, with its fact. It returns nil, nil if there is none. An image
// does not count if this client accepts an index that the other one does not: where a tag is an
// index, some registries send such a client one of its images.
func (f *finder) toOthers(ctx context.Context, t tag) (best *answer, fact *meta.TagFact) {
	var keys []meta.TagKey
	for _, accept := range f.accepts.others(t.key().Accept) {
		key := t.key()
		key.Accept = accept
		keys = append(keys, key)
	}
	if t.subject != "" || len(keys) == 0 {
		return nil, nil
	}
	facts, err := f.o.Tags.Find(ctx, keys...)
	if err != nil {
		return nil, nil
	}
	for i, other := range facts {
		if other == nil || other.NotFound || other.CheckedAt.Before(t.after) || meta.Age(time.Now(), other.CheckedAt) > t.repo.Up.Tags.Stale || fact != nil && !other.CheckedAt.After(fact.CheckedAt) {
			continue
		}
		if !oci.Accepts(t.accept, other.MediaType) || !isIndex(other.MediaType) && !coversIndexes(keys[i].Accept, t.key().Accept) {
			continue
		}
		if m := f.held(ctx, t, other.Digest); m != nil {
			best, fact = &answer{Manifest: m, source: fromCache}, other
		}
	}
	return best, fact
}

func isIndex(mediaType string) bool {
	return mediaType == oci.MediaTypeOCIIndex || mediaType == oci.MediaTypeDockerList
}

// coversIndexes reports whether the types of one key of Accept lines have all types of indexes that
// another one has.
func coversIndexes(key, other string) bool {
	types := strings.Split(key, ",")
	return !slices.ContainsFunc(strings.Split(other, ","), func(t string) bool { return isIndex(t) && !slices.Contains(types, t) })
}

// byDigest returns a manifest that is not known to be in the repository. If the cache has the bytes
// of the manifest, the upstream confirms that it has the manifest. Otherwise the upstream sends it.
func (f *finder) byDigest(ctx context.Context, how upstream.Call, r repository.Repo, d digest.Digest, accept []string) (*answer, error) {
	return f.digestBy(ctx, how, r, d, accept, false)
}

// digestBy is byDigest. here is as in tag.
func (f *finder) digestBy(ctx context.Context, how upstream.Call, r repository.Repo, d digest.Digest, accept []string, here bool) (*answer, error) {
	// accept is part of the key: some registries answer "not found" if accept lacks the manifest's
	// media type.
	here = here || f.members.Here(delegate.Question{Upstream: r.Up.Name, Repository: r.Name, Reference: d.String()})
	key := question{repo: r, reference: d.String(), accept: oci.AcceptKey(accept), here: here}
	return f.questions.Do(ctx, key, func(ctx context.Context) (*answer, error) {
		how.Asked.Begin()
		if m := r.Held(ctx, d); m != nil {
			return &answer{Manifest: m, source: fromCache}, nil
		}
		if m := f.fromMember(ctx, key, accept); m != nil {
			return &answer{Manifest: m, source: fromMember}, nil
		}
		absent, asked := r.NoManifest(d, accept).Asking(ctx), time.Now()
		a, err := f.askDigest(ctx, how, r, d, accept)
		absent.Remember(ctx, asked, err)
		return a, err
	})
}

// confirmed returns a manifest by digest that the upstream confirms now. A copy here is not enough:
// if the registry has lost the manifest, a client that may push it must learn that. Otherwise the
// client would not push the manifest.
func (f *finder) confirmed(ctx context.Context, how upstream.Call, r repository.Repo, d digest.Digest, accept []string) (*answer, error) {
	key := question{repo: r, reference: d.String(), accept: oci.AcceptKey(accept), confirm: true}
	return f.questions.Do(ctx, key, func(ctx context.Context) (*answer, error) {
		how.Asked.Begin()
		held := r.Held(ctx, d)
		if held == nil {
			a, err := f.byDigest(ctx, how, r, d, accept)
			if err != nil || a.source != fromMember {
				return a, err
			}
			held = a.Manifest // no registry has confirmed it yet
		}
		absent, asked := r.NoManifest(d, accept).Asking(ctx), time.Now()
		ref, once := oci.Reference{Digest: d}, r.Up.OneTry()
		_, err := once.StatManifest(ctx, r.Remote().With(how), ref, oci.AnyManifest())
		if err != nil {
			absent.Remember(ctx, asked, err)
			if oci.NotFound(err) {
				r.ForgetAtTarget(ctx, d)
			}
			return nil, err
		}
		r.RecordConfirmed(ctx, held, asked)
		return &answer{Manifest: held, source: fromCache, until: asked.Add(r.Up.Tags.Fresh)}, nil
	})
}

func (f *finder) askDigest(ctx context.Context, how upstream.Call, r repository.Repo, d digest.Digest, accept []string) (*answer, error) {
	ref := oci.Reference{Digest: d}
	raw, err := f.o.Repositories.Bytes(ctx, r.Up, d)
	if err != nil {
		if raw = f.members.Bytes(ctx, r.Up.Name, d, oci.MaxManifestBytes); raw != nil {
			if m := repository.Given(ctx, r, d, raw); m != nil {
				return &answer{Manifest: m, source: fromMember}, nil
			}
			err = nil
		}
	}
	if err == nil {
		desc, err := r.Up.ForPulls().StatManifest(ctx, r.Remote().With(how), ref, accept)
		if err != nil {
			return nil, err
		}
		man := repository.ReadManifest(d, desc.MediaType, raw)
		r.Store(ctx, man, repository.Children(man))
		return &answer{Manifest: repository.ManifestOf(man), source: fromCache}, nil
	}
	man, err := r.Up.ForPulls().Manifest(ctx, r.Remote().With(how), ref, accept)
	if err != nil {
		return nil, err
	}
	man.Digest = d
	r.Store(ctx, man, repository.Children(man))
	f.o.KeepAlive.Touched(ctx, r, "", man)
	return &answer{Manifest: repository.ManifestOf(man), source: fromOrigin}, nil
}

// Outlook is what a GET of a manifest would find now, if the upstream answers.
type Outlook struct {
	// Manifest is the manifest that is here and that the client gets, unless the upstream says that it
	// has changed. It is nil if none is known.
	Manifest *repository.Manifest
	// Source is where the answer comes from, as X-Cache says it: cache, updating or origin.
	Source string
	// Fact is the newest fact about the tag; nil if there is none, or for a digest.
	Fact *meta.TagFact
	// Place is where a manifest by digest is.
	Place repository.Place
	// InTier says that the tier of the upstream has the manifest, and that it is served from there.
	// Its content is not known. Then says how the upstream is asked after the Question, because the
	// tier does not have the manifest, or may not have it.
	InTier bool
	Then   []upstream.Question
	// Asks says that the upstream is asked, and Question how. Held says that an older answer is at
	// hand, which may be served for a tag if the upstream fails (MayServeOld). Background says that
	// the client does not wait.
	Asks             bool
	Question         upstream.Question
	Held, Background bool
	MayServeOld      bool
	// HeldUp says why the question in the background would not be sent now; it is empty if it would
	// be.
	HeldUp string
	// Records says that facts about the children of the manifest are recorded with the answer.
	Records bool
	// Absent is the recorded "not found" that the client gets; nil if there is none.
	Absent error
}

// Foresee returns what a GET of a tag or digest would find. It asks no upstream, uses no content
// and changes no fact. need is [repository.Serve] or [repository.ServePusher]. named says that a
// manifest of the repository will name the digest by then.
func (f *finder) Foresee(ctx context.Context, r repository.Repo, ref oci.Reference, accept []string, named bool, need repository.Need) Outlook {
	if ref.ByDigest() {
		return foreseeDigest(ctx, r, ref, accept, named, need)
	}
	t := tag{repo: r, name: ref.Tag, accept: accept}
	if m := r.Queued(ref, accept); m != nil {
		return Outlook{Manifest: m, Source: fromCache, Place: repository.InQueue}
	}
	now := time.Now()
	o := Outlook{Fact: newestFact(ctx, f.o.Tags, t), Source: fromOrigin}
	if o.Fact == nil {
		return o.getting(r)
	}
	if o.Fact.NotFound {
		if o.Absent = r.Up.Absent(meta.AbsentFact{CheckedAt: o.Fact.CheckedAt, Reason: o.Fact.Reason}); o.Absent != nil {
			return o
		}
		return o.getting(r)
	}
	foresight := repository.Foresight{Repo: r, Named: named}
	if o.Manifest = foresight.Peek(ctx, o.Fact.Digest); o.Manifest == nil {
		o.InTier = foresight.InTier(ctx, o.Fact.Digest)
	}
	switch {
	case o.Manifest == nil && !o.InTier:
		return o.getting(r)
	case meta.Age(now, o.Fact.CheckedAt) < r.Up.Tags.Fresh:
		o.Source = fromCache
		return o
	case f.mayUpdate(t, o.Fact):
		o.Source, o.Background = fromUpdating, true
		o.HeldUp = f.refreshes.heldUp(t.key(), now)
	default:
		o.Source = fromCache // a HEAD that finds the tag unchanged
		o.MayServeOld = meta.Age(now, o.Fact.CheckedAt) <= r.Up.Tags.Stale
	}
	o.Held = true
	return o.asking(upstream.DescribeManifest)
}

func foreseeDigest(ctx context.Context, r repository.Repo, ref oci.Reference, accept []string, named bool, need repository.Need) (o Outlook) {
	foresight := repository.Foresight{Repo: r, Named: named}
	at, err := foresight.Manifest(ctx, ref.Digest, accept, need)
	o.Place, o.Manifest, o.Source, o.Absent = at.Place, at.Manifest, fromCache, err
	if err != nil || at.Manifest != nil {
		return o
	}
	if o.InTier = foresight.InTier(ctx, ref.Digest); o.InTier {
		return o
	}
	if o.Manifest = foresight.PeekAt(ctx, ref.Digest, ""); o.Manifest != nil {
		man, err := o.Manifest.Parse()
		o.Records = err == nil && repository.Records(man)
		return o.asking(upstream.DescribeManifest)
	}
	if r.Up.Tier != nil && r.Up.Tier.Has(ctx, ref.Digest) {
		o.InTier = true
		return o.asking(upstream.DescribeManifest)
	}
	o.Source = fromOrigin
	return o.asking(upstream.GetManifest)
}

// getting is asking for a manifest of a tag that is not here. With a tier, the upstream is first
// asked what the tag means, and then for the manifest, unless the tier has that.
func (o Outlook) getting(r repository.Repo) Outlook {
	if r.Up.Tier == nil {
		return o.asking(upstream.GetManifest)
	}
	o.Then = []upstream.Question{upstream.GetManifest}
	return o.asking(upstream.DescribeManifest)
}

func (o Outlook) asking(q upstream.Question) Outlook {
	o.Asks, o.Question = true, q
	return o
}
