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
	// depend on a fact that ages, or cannot become a hot answer.
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
	// The field lists bounds the time that clients wait for a list of referrers.
	lists *impatience
	// The field accepts has the Accept lines of clients that have asked about tags.
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
	// confirm is set if the upstream is asked for a manifest by digest even if the manifest is held
	// here.
	confirm bool
	after   time.Time // see tag.after
	here    bool      // see tag.here
	// background says that no client waits, so that the request yields to the requests of clients.
	background bool
}

// tag is a tag that a client asks for, or a list of referrers.
type tag struct {
	repo repository.Repo
	name string
	// accept has the Accept lines of the client.
	accept []string
	// subject, if not empty, says that the client asks for the manifests that refer to this digest. In
	// that case, the field name is the fallback tag of the digest.
	subject digest.Digest
	// after is set if a fallback is asked. It is the time at which the upstream that the client named
	// has last answered. Older facts of the fallback do not count.
	after time.Time
	// here says that this member asks the upstream itself, because [finder.asksHere] says so, or
	// because another member has passed the question on.
	here bool
	// own says that answers to clients with other Accept lines do not count.
	own bool
}

func (t tag) key() meta.TagKey {
	k := meta.TagKey{Upstream: t.repo.Up.Name, Repo: t.repo.Name, Tag: t.name, Accept: oci.AcceptKey(t.accept)}
	if t.subject != "" {
		k.Accept = meta.Referrers
	}
	return k
}

// tagAtHand answers without waiting for the upstream: from a queued push, or from a fact (see
// the method remembered).
func (f *finder) tagAtHand(ctx context.Context, t tag, allowOld bool) (*answer, *meta.TagFact, error) {
	if m := t.repo.Queued(oci.Reference{Tag: t.name}, t.accept); m != nil {
		return &answer{Manifest: m, source: fromCache}, nil, nil
	}
	return f.remembered(ctx, t, allowOld)
}

// remembered answers from a fresh fact. If allowOld is set, it also uses an old fact that may be
// served while the tag is refreshed. It returns no answer and no error if the client must wait for
// the upstream. An error is a recorded "not found" that is still valid. remembered also returns the
// newest fact, or nil.
func (f *finder) remembered(ctx context.Context, t tag, allowOld bool) (*answer, *meta.TagFact, error) {
	lease := &meta.Lease{}
	fact := newestFact(ctx, f.o.Tags.Under(lease), t)
	if a, err := f.fresh(ctx, t, fact); a != nil || err != nil {
		if a != nil {
			a.Lease.Join(lease)
		}
		return a, fact, err
	}
	if !allowOld {
		return nil, fact, nil
	}
	return f.staleWhileRevalidate(ctx, t, fact), fact, nil
}

// byTag returns the manifest of a tag, or a list of referrers. It asks the upstream unless it has a
// fresh fact.
func (f *finder) byTag(ctx context.Context, how upstream.Call, t tag) (*answer, error) {
	return f.together(ctx, how, t)
}

// together calls freshOrAsk once for all clients and members of the fleet that ask the same
// question at the same time.
func (f *finder) together(ctx context.Context, how upstream.Call, t tag) (*answer, error) {
	t.here = t.here || f.asksHere(t)
	key := question{repo: t.repo, reference: t.name, accept: t.key().Accept, after: t.after, here: t.here, background: how.Background != nil}
	return f.questions.Do(ctx, key, func(ctx context.Context) (*answer, error) {
		how.Asked.Begin()
		// The answer to another question may have arrived since the caller looked.
		return f.freshOrAsk(ctx, how, t)
	})
}

// maxOvertaken bounds how often freshOrAsk asks about a tag. freshOrAsk asks again if a push has
// changed the tag before the answer came. The last answer is good enough, because the client asked
// while the tag was being pushed.
const maxOvertaken = 4

// freshOrAsk answers from a fresh fact, or asks the upstream. If any mirror pushes the tag
// meanwhile, freshOrAsk starts again, because a client that has joined this question may have seen
// the push succeed.
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

// newestFact returns the newest fact that is valid for the client's Accept lines. It returns nil if
// there is no such fact, or if the fact is older than t.after.
func newestFact(ctx context.Context, tags *meta.Tags, t tag) *meta.TagFact {
	fact := anyFact(ctx, tags, t)
	if fact == nil || fact.CheckedAt.Before(t.after) {
		return nil
	}
	return fact
}

// known is newestFact for a caller that is going to ask the upstream. It reads the facts in the
// store, and returns q, with which the caller records the answer. usable is false if the store
// has refused a newer fact of this mirror, so that the returned fact may be out of date.
func (f *finder) known(ctx context.Context, t tag) (fact *meta.TagFact, q meta.Question, usable bool) {
	facts, q, doubtful := f.o.Tags.Ask(ctx, t.keys()...)
	if fact = t.newest(facts); fact != nil && fact.CheckedAt.Before(t.after) {
		fact = nil
	}
	return fact, q, !doubtful
}

// anyFact is newestFact, but also returns facts that are older than t.after.
func anyFact(ctx context.Context, tags *meta.Tags, t tag) *meta.TagFact {
	facts, err := tags.Find(ctx, t.keys()...)
	if err != nil {
		return nil
	}
	return t.newest(facts)
}

// keys returns the keys of the facts that can answer: the key of the question, and the key of a
// fact from a push.
func (t tag) keys() []meta.TagKey {
	key := t.key()
	if t.subject != "" {
		return []meta.TagKey{key}
	}
	pushed := key
	pushed.Accept = repository.PushedAccept
	return []meta.TagKey{key, pushed}
}

// newest returns the newest fact that is valid for the client's Accept lines, or nil. The
// candidates are the facts under the keys that t.keys returns.
func (t tag) newest(candidates []*meta.TagFact) *meta.TagFact {
	fact := candidates[0]
	if len(candidates) == 1 {
		return fact
	}
	now, p := time.Now(), candidates[1]
	if p != nil && oci.Accepts(t.accept, p.MediaType) && (fact == nil || meta.Age(now, p.CheckedAt) < meta.Age(now, fact.CheckedAt)) {
		return p
	}
	return fact
}

// fresh returns the answer from a fact that is fresh. For a negative fact, it returns an error. It
// returns nil, nil if the fact is nil or not fresh, or if its manifest is not held.
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

// askTag asks the upstream for the meaning of a tag, or for a list of referrers, and records the
// answer. overtaken says that the tag was changed before the answer came.
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

// record records the answer to a question, and reports whether the answer was out of date when it
// came.
func (f *finder) record(ctx context.Context, q meta.Question, fact meta.TagFact, keep time.Duration) (overtaken bool) {
	ok, err := f.o.Tags.Set(ctx, q, fact, keep)
	f.o.Repositories.Recorded(err)
	return !ok && err == nil
}

// newer asks the upstream for a tag or list, and returns a nil manifest if the old answer is still
// right. source says where the bytes of the manifest came from. If there is an old answer to a tag,
// or if the upstream has a tier, newer sends a HEAD first. With the digest from the HEAD, newer
// recognises the old answer, or finds the manifest in the tier. If it does neither, newer sends a
// GET. If oneTry is set, the caller has another answer, so newer does not retry after a failure.
func (f *finder) newer(ctx context.Context, how upstream.Call, t tag, old *answer, oneTry bool) (man *oci.Manifest, source string, err error) {
	if t.subject != "" {
		man, err = f.newerList(ctx, how, t, old)
		return man, fromOrigin, err
	}
	ref, remote, from := oci.Reference{Tag: t.name}, t.repo.Remote().With(how), t.repo.Up.ForPulls()
	if oneTry {
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
// this.
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

// toOthers returns the newest answer that clients with other Accept lines got about a tag, and the
// fact behind that answer. The manifest must be held, and this client must accept it. toOthers
// returns nil, nil if there is no such answer. Some registries send one image instead of an index
// to a client that does not accept the index. So an image does not count if this client accepts a
// type of index that the other client does not accept.
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

// coversIndexes compares two keys of Accept lines. It reports whether key accepts all types of
// indexes that otherKey accepts.
func coversIndexes(key, otherKey string) bool {
	types := strings.Split(key, ",")
	return !slices.ContainsFunc(strings.Split(otherKey, ","), func(t string) bool { return isIndex(t) && !slices.Contains(types, t) })
}

// byDigest returns a manifest that is not known to be in the repository. If the cache, the tier or
// another member has the bytes, byDigest asks the upstream only whether the repository has the
// manifest. Otherwise the upstream sends the manifest.
func (f *finder) byDigest(ctx context.Context, how upstream.Call, r repository.Repo, d digest.Digest, accept []string) (*answer, error) {
	return f.digestBy(ctx, how, r, d, accept, false)
}

// digestBy is byDigest. If local is set, this member asks the upstream itself: see tag.here.
func (f *finder) digestBy(ctx context.Context, how upstream.Call, r repository.Repo, d digest.Digest, accept []string, local bool) (*answer, error) {
	// accept is part of the key: some registries answer "not found" if accept lacks the manifest's
	// media type.
	local = local || f.members.Here(delegate.Question{Upstream: r.Up.Name, Repository: r.Name, Reference: d.String()})
	key := question{repo: r, reference: d.String(), accept: oci.AcceptKey(accept), here: local}
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
// if the registry has lost the manifest, a client that may push must get "not found". After any
// other answer, the client would not push the manifest.
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

// Outlook describes how dray would answer a GET of a manifest now, if the upstream answers.
type Outlook struct {
	// Manifest is the manifest that is here and that the client gets, unless the upstream says that
	// the tag has moved. It is nil if none is known.
	Manifest *repository.Manifest
	// Source is the value of X-Cache in the answer: cache, updating or origin.
	Source string
	// Fact is the newest fact about the tag; nil if there is none, or for a digest.
	Fact *meta.TagFact
	// Place is where the manifest is. For a tag, it is set only if a queued push has the manifest.
	Place repository.Place
	// InTier says that dray would serve the manifest from the tier of the upstream. dray has not read
	// it from there yet, so its content is not known. The field Then is for a tag whose manifest is
	// not here: it has the requests that follow Question if the tier does not have the manifest.
	InTier bool
	Then   []upstream.Question
	// Asks says that dray would ask the upstream, and Question is the first request. Held says that
	// dray has an older answer. MayServeOld, which is set only for a tag, says that dray may serve the
	// older answer if the upstream fails. Background says that the client does not wait for the
	// upstream.
	Asks             bool
	Question         upstream.Question
	Held, Background bool
	MayServeOld      bool
	// HeldUp is the reason why dray would not ask in the background now; empty if dray would ask.
	HeldUp string
	// Records says that facts about the children of the manifest are recorded with the answer.
	Records bool
	// Absent is the recorded "not found" that the client gets; nil if there is none.
	Absent error
}

// Foresee returns the Outlook of a GET of a tag or digest. It asks no upstream and changes no fact,
// and does not count as a use of the manifest. need is [repository.Serve] or
// [repository.ServePusher]. If linked is set, Foresee assumes that a manifest of the repository
// names the digest by the time of the GET.
func (f *finder) Foresee(ctx context.Context, r repository.Repo, ref oci.Reference, accept []string, linked bool, need repository.Need) Outlook {
	if ref.ByDigest() {
		return foreseeDigest(ctx, r, ref, accept, linked, need)
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
	foresight := repository.Foresight{Repo: r, Named: linked}
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
		o.Source = fromCache // if a HEAD finds the tag unchanged
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

// getting is [Outlook.asking] for a tag whose manifest is not here. With a tier, dray first asks
// for the digest of the tag, and then for the manifest if the tier does not have it.
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
