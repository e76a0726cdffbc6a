package mirror

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"dray/cache"
	"dray/cache/meta"
	"dray/upstream"
	"dray/upstream/oci"

	"github.com/opencontainers/go-digest"
)

// answer is a manifest on its way to a client.
type answer struct {
	raw       []byte
	digest    digest.Digest
	mediaType string
	// source is one of the constants below.
	source string
	// stale is why an old fact was used; nil for a fresh one.
	stale error
	// lease says how long the facts behind an answer from here hold; nil for any other answer.
	lease *meta.Lease
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

// pushedKey is the Accept key of a fact that a push recorded. It holds for every
// client that takes the pushed media type, since no registry converts then.
const pushedKey = "pushed"

// atHand answers without a question: a digest that is held, or a tag within its
// window, or shortly after it. It is nil, nil when a question is needed.
func (m *Mirror) atHand(ctx context.Context, up *Upstream, repo string, ref oci.Reference, accept []string) (*answer, error) {
	if a := m.queued(up, repo, ref, accept); a != nil {
		return a, nil
	}
	if ref.ByDigest() {
		return m.held(ctx, up, repo, ref.Digest), nil
	}
	key := meta.TagKey{Upstream: up.Name, Repo: repo, Tag: ref.Tag, Accept: oci.AcceptKey(accept)}
	lease := &meta.Lease{}
	fact, ok := m.tagFact(ctx, m.tags.Under(lease), key, accept)
	if a, err := m.fresh(ctx, up, repo, fact, ok); a != nil || err != nil {
		if a != nil {
			a.lease.Join(lease)
		}
		return a, err
	}
	return m.aging(ctx, up, key, accept, fact, ok), nil
}

// manifestKey names a question for a manifest, whose answer depends on the types that are accepted.
type manifestKey struct {
	upstream, repo string
	ref            oci.Reference
	accept         string
}

// byTag finds a manifest by tag that is not at hand.
func (m *Mirror) byTag(ctx context.Context, up *Upstream, repo, tag string, accept []string) (*answer, error) {
	key := meta.TagKey{Upstream: up.Name, Repo: repo, Tag: tag, Accept: oci.AcceptKey(accept)}
	return m.manifests.Do(ctx, manifestKey{up.Name, repo, oci.Reference{Tag: tag}, key.Accept}, func(ctx context.Context) (*answer, error) {
		// Another flight may have landed since it was not at hand.
		fact, ok := m.tagFact(ctx, m.tags, key, accept)
		if a, err := m.fresh(ctx, up, repo, fact, ok); a != nil || err != nil {
			return a, err
		}
		return m.askTag(ctx, upstream.Call{}, up, key, accept, fact, ok)
	})
}

// tagFact is the newest fact that answers a client with these Accept lines.
func (m *Mirror) tagFact(ctx context.Context, tags *meta.Tags, key meta.TagKey, accept []string) (meta.TagFact, bool) {
	fact, err := tags.Get(ctx, key)
	pushed := key
	pushed.Accept = pushedKey
	p, perr := tags.Get(ctx, pushed)
	now := time.Now()
	if perr == nil && oci.Accepts(accept, p.MediaType) && (err != nil || meta.Age(now, p.CheckedAt) < meta.Age(now, fact.CheckedAt)) {
		return p, true
	}
	return fact, err == nil
}

// fresh answers from a fact that is young enough, with nil, nil when there is none.
func (m *Mirror) fresh(ctx context.Context, up *Upstream, repo string, fact meta.TagFact, ok bool) (*answer, error) {
	if !ok {
		return nil, nil
	}
	age := meta.Age(time.Now(), fact.CheckedAt)
	if fact.NotFound {
		return nil, remembered(up, meta.AbsentFact{CheckedAt: fact.CheckedAt, Reason: fact.Reason})
	}
	if age >= up.Tags.Fresh {
		return nil, nil
	}
	a := m.held(ctx, up, repo, fact.Digest)
	if a != nil {
		a.until = fact.CheckedAt.Add(up.Tags.Fresh)
	}
	return a, nil
}

// askTag asks the upstream what a tag is now: with one HEAD where the last answer is
// held, else with one GET.
func (m *Mirror) askTag(ctx context.Context, how upstream.Call, up *Upstream, key meta.TagKey, accept []string, fact meta.TagFact, ok bool) (*answer, error) {
	asked := time.Now()
	ref, repo := oci.Reference{Tag: key.Tag}, up.remote(key.Repo).With(how)
	var old *answer
	if ok && !fact.NotFound {
		old = m.held(ctx, up, key.Repo, fact.Digest)
	}
	source := up.Source
	if old != nil {
		source = up.Once
		d, err := source.StatManifest(ctx, repo, ref, accept)
		if err == nil && d.Digest == fact.Digest {
			fact.CheckedAt = asked
			m.recorded(m.tags.Set(ctx, key, fact, 0))
			return old, nil
		}
		// The refusal of a HEAD has no text. That of a GET tells whether the right is
		// missing or the token has expired, and why.
		if err != nil && !errors.Is(err, oci.ErrDenied) {
			return m.staleOr(ctx, up, key, old, fact, asked, err)
		}
	}
	man, err := source.Manifest(ctx, repo, ref, accept)
	if err != nil {
		return m.staleOr(ctx, up, key, old, fact, asked, err)
	}
	m.keep(ctx, up, key.Repo, man, ownChildren(man))
	m.toucher.touched(ctx, up, key.Repo, key.Tag, man)
	m.recorded(m.tags.Set(ctx, key, meta.TagFact{Digest: man.Digest, MediaType: man.MediaType, Size: int64(len(man.Raw)), CheckedAt: asked}, 0))
	return answerOf(man), nil
}

// staleOr answers with what is held when the error says nothing about the tag, and
// remembers that there is no such tag when it says so.
func (m *Mirror) staleOr(ctx context.Context, up *Upstream, key meta.TagKey, old *answer, fact meta.TagFact, asked time.Time, err error) (*answer, error) {
	if oci.NotFound(err) {
		m.recorded(m.tags.SetNotFound(ctx, key, asked, up.Tags.NotFound, reasonOf(err)))
		return nil, err
	}
	failing := upstream.Transient(err) || errors.Is(err, context.DeadlineExceeded)
	if old == nil || !failing || meta.Age(asked, fact.CheckedAt) > up.Tags.Stale {
		return nil, err
	}
	a := *old
	a.source, a.stale = fromStale, err
	return &a, nil
}

// byDigest finds a manifest by digest that is not at hand: the upstream vouches for
// it, or sends it.
func (m *Mirror) byDigest(ctx context.Context, up *Upstream, repo string, d digest.Digest, accept []string) (*answer, error) {
	// Some registries answer "not found" to who does not take the type.
	absent := meta.AbsentKey{Upstream: up.Name, Repo: repo, Digest: d, Kind: meta.KindManifest, Accept: oci.AcceptKey(accept)}
	if err := m.absent(ctx, up, absent); err != nil {
		return nil, err
	}
	key := manifestKey{up.Name, repo, oci.Reference{Digest: d}, absent.Accept}
	return m.manifests.Do(ctx, key, func(ctx context.Context) (*answer, error) {
		if a := m.held(ctx, up, repo, d); a != nil {
			return a, nil
		}
		asked := time.Now()
		a, err := m.askDigest(ctx, up, repo, d, accept)
		m.rememberAbsent(ctx, up, absent, asked, err)
		return a, err
	})
}

func (m *Mirror) askDigest(ctx context.Context, up *Upstream, repo string, d digest.Digest, accept []string) (*answer, error) {
	ref := oci.Reference{Digest: d}
	if raw, err := m.cache.Bytes(ctx, d, oci.MaxManifestBytes); err == nil {
		desc, err := up.Source.StatManifest(ctx, up.remote(repo), ref, accept)
		if err != nil {
			return nil, err
		}
		if man, err := oci.ParseManifest(desc.MediaType, raw); err == nil {
			man.Digest = d // the algorithm asked for
			m.keep(ctx, up, repo, man, ownChildren(man))
			return &answer{raw: raw, digest: d, mediaType: man.MediaType, source: fromCache}, nil
		}
	}
	man, err := up.Source.Manifest(ctx, up.remote(repo), ref, accept)
	if err != nil {
		return nil, err
	}
	man.Digest = d
	m.keep(ctx, up, repo, man, ownChildren(man))
	m.toucher.touched(ctx, up, repo, "", man)
	return answerOf(man), nil
}

// maxReason bounds what is kept of an upstream's text, in bytes.
const maxReason = 512

// reasonOf is an upstream's answer that something does not exist, in its words.
func reasonOf(err error) meta.Reason {
	e := oci.AsError(err)
	return meta.Reason{Code: e.Code, Text: strings.ToValidUTF8(e.Message[:min(len(e.Message), maxReason)], "")}
}

// rememberAbsent keeps such an answer about a digest. Any other error is none.
func (m *Mirror) rememberAbsent(ctx context.Context, up *Upstream, key meta.AbsentKey, asked time.Time, err error) {
	if oci.NotFound(err) {
		m.recorded(m.absences.Set(ctx, key, meta.AbsentFact{CheckedAt: asked, Reason: reasonOf(err)}, up.Tags.NotFound))
	}
}

// absent is such an answer about a digest for as long as it is believed, else nil.
func (m *Mirror) absent(ctx context.Context, up *Upstream, key meta.AbsentKey) error {
	fact, err := m.absences.Get(ctx, key)
	if err != nil {
		return nil
	}
	return remembered(up, fact)
}

// remembered is an error in the upstream's words, while its "not found" is believed.
func remembered(up *Upstream, fact meta.AbsentFact) error {
	if meta.Age(time.Now(), fact.CheckedAt) >= up.Tags.NotFound {
		return nil
	}
	return &oci.Error{Code: cmp.Or(fact.Reason.Code, oci.ErrManifestUnknown.Code), Status: http.StatusNotFound, Message: fact.Reason.Text}
}

// held is a manifest that lies here and that may be served to the repository, or nil.
func (m *Mirror) held(ctx context.Context, up *Upstream, repo string, d digest.Digest) *answer {
	lease := &meta.Lease{}
	link, visible, err := lookUp(ctx, m.links.Under(lease), up, repo, d)
	if err != nil || !visible || link.Kind != meta.KindManifest {
		return nil
	}
	raw, err := m.cache.Bytes(ctx, d, oci.MaxManifestBytes)
	if err != nil {
		return nil
	}
	return &answer{raw: raw, digest: d, mediaType: link.MediaType, source: fromCache, lease: lease}
}

// heldManifest is held as a manifest; nil where there is none.
func (m *Mirror) heldManifest(ctx context.Context, up *Upstream, repo string, d digest.Digest) (*oci.Manifest, error) {
	a := m.held(ctx, up, repo, d)
	if a == nil {
		return nil, nil
	}
	man, err := oci.ParseManifest(a.mediaType, a.raw)
	if err != nil {
		return nil, err
	}
	man.Digest = d
	return man, nil
}

func answerOf(man *oci.Manifest) *answer {
	return &answer{raw: man.Raw, digest: man.Digest, mediaType: man.MediaType, source: fromOrigin}
}

// anywhere is the repository of facts about an upstream as a whole. No repository has
// an empty name.
const anywhere = ""

// visible reports whether a repository may see a digest without a question, with what
// a manifest says of it. A manifest of the repository must name the digest, and the
// digest must have come through the same upstream: what a manifest names is a claim
// of whoever pushed it, which that upstream has checked against its own content and
// no other's.
func (m *Mirror) visible(ctx context.Context, up *Upstream, repo string, d digest.Digest) (meta.LinkFact, bool, error) {
	key := sighting{up, repo, d}
	if s, ok := m.hot.seen.Get(key); ok && s.lease.Valid(time.Now()) {
		return s.link, true, nil
	}
	lease := &meta.Lease{}
	link, visible, err := lookUp(ctx, m.links.Under(lease), up, repo, d)
	if visible {
		m.hot.seen.Add(key, sight{link, lease})
	}
	return link, visible, err
}

// lookUp is visible, from the facts.
func lookUp(ctx context.Context, links *meta.Links, up *Upstream, repo string, d digest.Digest) (meta.LinkFact, bool, error) {
	link, err := links.Get(ctx, up.Name, repo, d)
	if err != nil {
		return link, false, err
	}
	_, err = links.Get(ctx, up.Name, anywhere, d)
	return link, err == nil, nil
}

// supplied records that an upstream gave a digest, or took it.
func (m *Mirror) supplied(ctx context.Context, up *Upstream, links ...meta.Link) {
	m.recorded(m.links.Add(ctx, up.Name, anywhere, links...))
}

// keep stores a manifest that came from the upstream or landed there, and what it
// says of its children: of those that the registry vouches for by having the manifest. Nothing here
// may fail the pull.
func (m *Mirror) keep(ctx context.Context, up *Upstream, repo string, man *oci.Manifest, vouched []oci.Child) {
	if err := m.cache.Put(ctx, cache.Blob{Digest: man.Digest, Size: int64(len(man.Raw))}, man.Raw); err != nil {
		m.log.Debug("manifest not cached", "digest", man.Digest, "error", err)
	}
	self := meta.Link{Digest: man.Digest, LinkFact: meta.LinkFact{MediaType: man.MediaType, Size: int64(len(man.Raw)), Kind: meta.KindManifest}}
	children := childLinks(vouched)
	m.recorded(m.links.Add(ctx, up.Name, repo, append(children, self)...))
	m.supplied(ctx, up, self)
	if up.Sink == nil {
		return
	}
	held := []meta.Holding{{Digest: self.Digest, KnownFact: meta.KnownFact{Kind: self.Kind, Size: self.Size, Referenced: true}}}
	for _, c := range children {
		held = append(held, meta.Holding{Digest: c.Digest, KnownFact: meta.KnownFact{Kind: c.Kind, Size: c.Size, Referenced: true}})
	}
	m.recorded(m.known.Add(ctx, up.Name, repo, held...))
}

// childLinks are what a manifest says of its children.
func childLinks(children []oci.Child) []meta.Link {
	var links []meta.Link
	for _, c := range children {
		kind := meta.KindBlob
		if c.Manifest {
			kind = meta.KindManifest
		}
		links = append(links, meta.Link{Digest: c.Digest, LinkFact: meta.LinkFact{MediaType: c.MediaType, Size: c.Size, Kind: kind}})
	}
	return links
}

// recorded counts a fact that could not be kept. It costs a question later.
func (m *Mirror) recorded(err error) {
	if err != nil {
		m.metrics.meta.Inc()
		m.log.Debug("fact not recorded", "error", err)
	}
}

func (m *Mirror) getManifest(x *exchange) error {
	if x.hit != nil {
		x.source = x.hit.answer.source
		return m.pulled(x, x.hit.answer, x.sendHit(x.hit))
	}
	m.divert(x)
	ctx, accept, repo, ref := x.r.Context(), x.r.Header.Values("Accept"), x.target.Repo, x.q.Ref
	a, err := m.atHand(ctx, x.up, repo, ref, accept)
	switch {
	case a != nil && a.source == fromUpdating:
	case a != nil:
		m.hot.keep(x, a)
	case err != nil:
	default:
		if a = m.waitingAnswer(x); a == nil {
			a, err = m.asked(ctx, x, accept)
		}
	}
	if err != nil {
		return err
	}
	x.source, x.stale = a.source, a.stale
	m.learner.saw(x.up, x.target.Repo, ref, a.mediaType, a.digest)
	x.warn()
	if x.r.Method == http.MethodGet {
		m.anticipate(x, a)
	}
	return m.pulled(x, a, x.sendManifest(a))
}

// asked finds a manifest that is not at hand.
func (m *Mirror) asked(ctx context.Context, x *exchange, accept []string) (a *answer, err error) {
	up, repo, ref := x.up, x.target.Repo, x.q.Ref
	ask := func(ctx context.Context) error {
		if ref.ByDigest() {
			a, err = m.byDigest(ctx, up, repo, ref.Digest, accept)
		} else {
			a, err = m.byTag(ctx, up, repo, ref.Tag, accept)
		}
		return err
	}
	if x.r.Method != http.MethodHead || m.agedAnswer(ctx, up, repo, ref, accept) {
		return a, ask(ctx)
	}
	err = x.orSend(ctx, oci.ErrManifestUnknown, ask)
	return a, err
}

// agedAnswer reports whether there is an old answer about a tag, for as long as the upstream gives
// none.
func (m *Mirror) agedAnswer(ctx context.Context, up *Upstream, repo string, ref oci.Reference, accept []string) bool {
	if ref.ByDigest() {
		return false
	}
	fact, ok := m.tagFact(ctx, m.tags, meta.TagKey{Upstream: up.Name, Repo: repo, Tag: ref.Tag, Accept: oci.AcceptKey(accept)}, accept)
	return ok && !fact.NotFound && time.Since(fact.CheckedAt) <= up.Tags.Stale && m.held(ctx, up, repo, fact.Digest) != nil
}

// warn marks an old answer. RFC 9111 dropped Warning, but it is the header that clients
// and people know (RFC 7234, 5.5.1 and 5.5.2).
func (x *exchange) warn() {
	if x.stale == nil && x.source != fromUpdating {
		return
	}
	x.w.Header().Add("Warning", `110 dray "Response is Stale"`)
	if x.stale != nil {
		x.w.Header().Add("Warning", `111 dray "Revalidation Failed"`)
		x.listener.Mirror.metrics.stale.WithLabelValues(x.up.Name).Inc()
	}
}

// members lists the blobs of an image. An index has none: who gets it has not chosen a platform yet.
func (a *answer) members() (blobs []digest.Digest) {
	man, err := oci.ParseManifest(a.mediaType, a.raw)
	if err != nil || man.Index() {
		return nil
	}
	for _, c := range man.Children() {
		if !c.Manifest {
			blobs = append(blobs, c.Digest)
		}
	}
	return blobs
}

// pulled reports a manifest that a client got by GET.
func (m *Mirror) pulled(x *exchange, a *answer, err error) error {
	if got := x.w.Status() == http.StatusOK || x.w.Status() == http.StatusPartialContent; err == nil && got && x.r.Method == http.MethodGet {
		m.toucher.pulled(x.up, x.target.Repo, x.q.Ref.Tag, a)
		m.cache.Used(a.digest, a.members)
		if m.onPull != nil {
			m.onPull(x.up, x.target.Repo, x.q.Ref.String())
		}
	}
	return err
}
