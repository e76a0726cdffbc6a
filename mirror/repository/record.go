package repository

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/cache"
	"dray/cache/meta"
	"dray/upstream"
	"dray/upstream/oci"
)

// PushedAccept stands for the Accept header in the key of a tag fact that a push recorded. The fact
// is valid for every client that accepts the pushed media type, because no registry converts the
// manifest for such a client.
const PushedAccept = "pushed"

// recordSeen records that the upstream sent or accepted the content with these digests. The record
// does not name the repository.
func (r Repo) recordSeen(ctx context.Context, links ...meta.Link) {
	r.store.Recorded(r.store.o.Visibility.Add(ctx, r.Up.Name, anywhere, links...))
}

// confirmed makes a blob visible to the repository, because the upstream has the blob in this
// repository. size is in bytes, -1 if it is not verified yet.
func (r Repo) confirmed(ctx context.Context, d digest.Digest, size int64) {
	link := meta.Link{Digest: d, LinkFact: meta.LinkFact{MediaType: octetStream, Size: size, Kind: meta.KindBlob}}
	r.recordSeen(ctx, link)
	if _, err := r.store.o.Visibility.Get(ctx, r.Up.Name, r.Name, d); err != nil { // do not replace a fact that came from a manifest: it also has the media type
		r.store.Recorded(r.store.o.Visibility.Add(ctx, r.Up.Name, r.Name, link))
	}
}

// PresentAtTarget reports whether a fact says that the upstream has the content with a digest.
func (r Repo) PresentAtTarget(ctx context.Context, d digest.Digest) bool {
	_, ok, _ := remembered(ctx, r, d)
	return ok
}

// RecordAtTarget records that the upstream has a blob in the repository, so that a push may leave
// it out. size is in bytes. Nothing is recorded for an upstream that takes no pushes.
func (r Repo) RecordAtTarget(ctx context.Context, d digest.Digest, size int64) {
	if r.Up.Sink == nil {
		return
	}
	blob := meta.Holding{Digest: d, PresenceFact: meta.PresenceFact{Kind: meta.KindBlob, Size: size}}
	r.store.Recorded(r.store.o.Presence.Add(ctx, r.Up.Name, r.Name, blob))
}

// RecordConfirmed records that the upstream confirmed a manifest, and when it did so. Nothing is
// recorded for an upstream that takes no pushes.
func (r Repo) RecordConfirmed(ctx context.Context, m *Manifest, at time.Time) {
	if r.Up.Sink == nil {
		return
	}
	self := meta.Holding{Digest: m.Digest, PresenceFact: meta.PresenceFact{Kind: meta.KindManifest, Size: int64(len(m.Raw)), Confirmed: at}}
	r.store.Recorded(r.store.o.Presence.Add(ctx, r.Up.Name, r.Name, self))
}

// Ask asks the upstream for the size of a blob, in bytes, and records that the upstream has the
// blob.
func (r Repo) Ask(ctx context.Context, how upstream.Call, d digest.Digest) (int64, error) {
	source := r.Up.Source
	if r.Up.Sink == nil {
		source = r.Up.ForPulls() // without a Sink, only pulls need the answer, and a fallback can answer them
	}
	size, err := source.StatBlob(ctx, r.Remote().With(how), d)
	if err == nil {
		r.RecordAtTarget(ctx, d, size)
	}
	return size, err
}

// Send sends a blob to the upstream and records that the upstream has it. After the upload,
// identify returns the digest and the size of the blob.
func (r Repo) Send(ctx context.Context, how upstream.Call, u upstream.Upload, identify func() (digest.Digest, int64)) error {
	if err := r.Up.Sink.PutBlob(ctx, r.Remote().With(how), u); err != nil {
		return err
	}
	d, size := identify()
	r.RecordAtTarget(ctx, d, size)
	return nil
}

// RecordMounted records that the upstream has mounted a blob into this repository. It looks up the
// blob's size, because the client may ask for the size next, by HEAD.
func (r Repo) RecordMounted(ctx context.Context, d digest.Digest) {
	r.ForgetReference(ctx, oci.Reference{Digest: d}) // first, because the look-up below can fail
	size, held := r.store.o.Cache.Stat(d)
	if !held {
		var err error
		if size, err = r.Up.Source.StatBlob(ctx, r.Remote(), d); err != nil {
			return // the upstream is asked when the blob is needed
		}
	}
	r.RecordAtTarget(ctx, d, size)
}

// MountSource finds another repository of the same upstream that has the blob and a manifest that
// names the blob. It returns false if no such repository is known.
func (r Repo) MountSource(ctx context.Context, d digest.Digest) (Repo, bool) {
	from, err := r.store.o.Presence.Home(ctx, r.Up.Name, d)
	return r.store.Repo(r.Up, from), err == nil && from != r.Name
}

// maxRecorded bounds the children of a manifest. If a manifest has more, no facts are recorded
// about its children, and dray asks the upstream about each child. Real indexes and images have
// fewer. A manifest with thousands may be an attempt to fill the store of facts.
const maxRecorded = 1024

// Store caches a manifest that the upstream sent or accepted. It makes the manifest visible, and
// links the repository to the children that the parameter confirmed lists. A linked child is
// visible once the upstream has sent or accepted it in any repository. If the upstream takes
// pushes, Store also records the presence of the manifest and of the children that are blobs: the
// upstream should have them, because it has the manifest. Store returns no error, because a pull
// does not fail if the manifest or a fact cannot be stored. If the manifest is not
// [oci.Manifest.Keepable], Store does nothing.
func (r Repo) Store(ctx context.Context, man *oci.Manifest, confirmed []oci.Child) {
	s := r.store
	if !man.Keepable() {
		return
	}
	if err := s.o.Cache.Put(ctx, cache.Blob{Digest: man.Digest, Size: int64(len(man.Raw))}, man.Raw); err != nil {
		s.o.Logger.Debug("manifest not cached", "digest", man.Digest, "error", err)
	}
	r.Up.keep(man.Digest, int64(len(man.Raw)))
	self := meta.Link{Digest: man.Digest, LinkFact: meta.LinkFact{MediaType: man.MediaType, Size: int64(len(man.Raw)), Kind: meta.KindManifest}}
	children := childLinks(confirmed)
	for i, c := range children {
		if size, ok := s.o.Cache.Stat(c.Digest); ok { // a manifest may state a wrong size, and the recorded size bounds later fetches
			children[i].Size = size
		}
	}
	s.Recorded(s.o.Visibility.Add(ctx, r.Up.Name, r.Name, append(children, self)...))
	r.recordSeen(ctx, self)
	if r.Up.Sink == nil {
		return
	}
	held := []meta.Holding{{Digest: self.Digest, PresenceFact: meta.PresenceFact{Kind: self.Kind, Size: self.Size, Referenced: true}}}
	for _, c := range children {
		if c.Kind == meta.KindManifest {
			continue // some registries accept an index whose children they lack
		}
		held = append(held, meta.Holding{Digest: c.Digest, PresenceFact: meta.PresenceFact{Kind: c.Kind, Size: c.Size, Referenced: true}})
	}
	s.Recorded(s.o.Presence.Add(ctx, r.Up.Name, r.Name, held...))
}

// Records reports whether facts about the children of a manifest are recorded when the upstream has
// sent or confirmed the manifest.
func Records(man *oci.Manifest) bool {
	return man.Keepable() && len(Children(man)) <= maxRecorded
}

// BeforePush returns the state of the facts about a tag before a push of the tag. The caller passes
// this state to StorePushed, which can then tell whether the tag was pushed or forgotten since. For
// a digest, BeforePush returns the zero Question.
func BeforePush(ctx context.Context, r Repo, ref oci.Reference) (q meta.Question) {
	if ref.Tag != "" {
		_, q, _ = r.store.o.Tags.Ask(ctx, meta.TagKey{Upstream: r.Up.Name, Repo: r.Name, Tag: ref.Tag, Accept: PushedAccept})
	}
	return q
}

// StorePushed stores a manifest that the upstream has accepted. It records that the upstream has
// the manifest and its children. children are those that the push waited for, and base is the
// result of BeforePush. StorePushed replaces all facts about the tag in one step, so that an answer
// under way cannot bring back the old meaning. If the tag was pushed or forgotten since BeforePush,
// StorePushed only forgets it, because dray does not know which push the upstream accepted last. If
// the manifest has a subject, StorePushed also forgets the list of the subject's referrers. It
// releases the staged blobs of the children.
func (r Repo) StorePushed(ctx context.Context, base meta.Question, ref oci.Reference, man *oci.Manifest, children []oci.Child) {
	s := r.store
	r.Store(ctx, man, children)
	r.recordSeen(ctx, childLinks(children)...)
	for _, c := range children {
		if size, held := s.o.Cache.Stat(c.Digest); held {
			r.Up.keep(c.Digest, size)
		}
	}
	r.ForgetReference(ctx, oci.Reference{Digest: man.Digest})
	forgetReferrers(ctx, r, man)
	if ref.Tag != "" {
		s.Recorded(s.o.Tags.Pushed(ctx, base, meta.TagFact{Digest: man.Digest, MediaType: man.MediaType, Size: int64(len(man.Raw))}))
	}
	s.o.Staged.Drop(Keys(r, children)...)
}

// Keys returns the keys of children in a repository. A push may have staged blobs under these keys.
func Keys(r Repo, children []oci.Child) []Key {
	var keys []Key
	for _, c := range children {
		keys = append(keys, r.Key(c.Digest))
	}
	return keys
}

// Children returns the children that the registry must have before it accepts the manifest, each
// once.
func Children(man *oci.Manifest) []oci.Child {
	return childrenWith(man, func(oci.Child) bool { return false })
}

// Needed returns the children that a push waits for: the [Children], and the foreign layers that a
// client has sent to the repository.
func (r Repo) Needed(ctx context.Context, man *oci.Manifest) []oci.Child {
	return childrenWith(man, func(c oci.Child) bool {
		at, _ := r.LocateBlob(ctx, c.Digest, Wait)
		return at.Place != Nowhere
	})
}

// childrenWith returns the children of a manifest, each once. A foreign layer is included only if
// the given function returns true for it.
func childrenWith(man *oci.Manifest, with func(oci.Child) bool) []oci.Child {
	var all []oci.Child
	seen := map[digest.Digest]bool{}
	for _, c := range man.Children() {
		if !seen[c.Digest] && (!c.Foreign() || with(c)) {
			seen[c.Digest] = true
			all = append(all, c)
		}
	}
	return all
}

// childLinks returns the links to record for children, or nil if there are more than maxRecorded
// children.
func childLinks(children []oci.Child) []meta.Link {
	if len(children) > maxRecorded {
		return nil
	}
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

// ForgetReference deletes the facts about a tag, or the "not found" of a digest. If a request about
// the reference is under way, its answer will not be recorded.
func (r Repo) ForgetReference(ctx context.Context, ref oci.Reference) {
	if ref.ByDigest() {
		r.store.Recorded(r.store.absences.Forget(ctx, r.Up.Name, r.Name, ref.Digest))
		return
	}
	r.store.Recorded(r.store.o.Tags.Forget(ctx, r.Up.Name, r.Name, ref.Tag))
}

// forgetReferrers forgets the list of referrers of the manifest's subject, if there is a subject.
func forgetReferrers(ctx context.Context, r Repo, man *oci.Manifest) {
	if man.Subject != nil {
		r.ForgetReference(ctx, oci.Reference{Tag: oci.FallbackTag(man.Subject.Digest)})
	}
}

// ForgetManifest drops the facts about a manifest and the list of its referrers. If [Repo.Held]
// finds the manifest, it also drops the facts about the children and, if the manifest has a
// subject, the list of the subject's referrers. Facts about tags may still name the manifest, but
// it is no longer visible. If another manifest needs one of the children, dray asks the upstream
// about that child again.
func (r Repo) ForgetManifest(ctx context.Context, d digest.Digest) {
	gone := []digest.Digest{d}
	r.ForgetReference(ctx, oci.Reference{Tag: oci.FallbackTag(d)})
	if m := r.Held(ctx, d); m != nil {
		if man, err := m.Parse(); err == nil {
			forgetReferrers(ctx, r, man)
			for _, c := range man.Children() {
				gone = append(gone, c.Digest)
			}
		}
	}
	r.Forget(ctx, gone...)
}

// Forget drops three facts about each digest: its visibility in the repository, its presence at the
// upstream, and "not found".
func (r Repo) Forget(ctx context.Context, ds ...digest.Digest) {
	r.ForgetAtTarget(ctx, ds...)
	for _, d := range ds {
		r.store.Recorded(r.store.o.Visibility.Forget(ctx, r.Up.Name, r.Name, d))
		r.ForgetReference(ctx, oci.Reference{Digest: d})
	}
}

// ForgetChildren is ForgetAtTarget for the children of a manifest.
func (r Repo) ForgetChildren(ctx context.Context, man *oci.Manifest) {
	var ds []digest.Digest
	for _, c := range man.Children() {
		ds = append(ds, c.Digest)
	}
	r.ForgetAtTarget(ctx, ds...)
}

// ForgetAtTarget drops the facts that the upstream has the content with these digests.
func (r Repo) ForgetAtTarget(ctx context.Context, ds ...digest.Digest) {
	r.store.Recorded(r.store.o.Presence.Forget(ctx, r.Up.Name, r.Name, ds...))
}

// Absence reads and records the fact that the upstream has answered "not found" for a digest in a
// repository.
type Absence struct {
	repo     Repo
	key      meta.AbsentKey
	question *meta.Question // nil before Asking
}

// NoManifest returns the Absence with which a caller reads or records that a manifest is missing.
// The fact need not be recorded yet. accept lists the media types that the client accepts: some
// registries answer "not found" if the client does not accept the type of the manifest.
func (r Repo) NoManifest(d digest.Digest, accept []string) Absence {
	return Absence{repo: r, key: meta.AbsentKey{Upstream: r.Up.Name, Repo: r.Name, Digest: d, Kind: meta.KindManifest, Accept: oci.AcceptKey(accept)}}
}

// NoBlob returns the Absence with which a caller reads or records that a blob is missing. The fact
// need not be recorded yet.
func (r Repo) NoBlob(d digest.Digest) Absence {
	return Absence{repo: r, key: meta.AbsentKey{Upstream: r.Up.Name, Repo: r.Name, Digest: d, Kind: meta.KindBlob}}
}

// Asking returns the Absence for a caller that is about to ask the upstream. If a push or a mount
// brings the content before the upstream answers, Remember records nothing.
func (a Absence) Asking(ctx context.Context) Absence {
	q := a.repo.store.absences.Ask(ctx, a.key)
	a.question = &q
	return a
}

// Remember records the fact and the text of err, but only if err is "not found". askedAt is the
// time at which the caller asked the upstream, after its call of Asking.
func (a Absence) Remember(ctx context.Context, askedAt time.Time, err error) {
	if oci.NotFound(err) && a.question != nil {
		a.repo.store.Recorded(a.repo.store.absences.Set(ctx, *a.question, meta.AbsentFact{CheckedAt: askedAt, Reason: ReasonOf(err)}, a.repo.Up.Tags.NotFound))
	}
}

// Err returns the recorded "not found" as an error. It returns nil if there is none, or if dray no
// longer believes it.
func (a Absence) Err(ctx context.Context) error {
	_, err := a.Believed(ctx)
	return err
}

// Believed is Err, but also returns the time at which the upstream was asked.
func (a Absence) Believed(ctx context.Context) (asked time.Time, err error) {
	fact, err := a.repo.store.absences.Get(ctx, a.key)
	if err != nil {
		return time.Time{}, nil
	}
	return fact.CheckedAt, a.repo.Up.Absent(fact)
}

// maxReason bounds the recorded text of a "not found", in bytes.
const maxReason = 512

// ReasonOf returns the code and the text of an upstream's "not found". The text is cut to
// maxReason.
func ReasonOf(err error) meta.Reason {
	e := oci.AsError(err)
	return meta.Reason{Code: e.Code, Text: strings.ToValidUTF8(e.Message[:min(len(e.Message), maxReason)], "")}
}

// Absent returns a recorded "not found" as an error, or nil if dray no longer believes it
// ([TagPolicy.NotFound]).
func (u *Upstream) Absent(fact meta.AbsentFact) error {
	if meta.Age(time.Now(), fact.CheckedAt) >= u.Tags.NotFound {
		return nil
	}
	return &oci.Error{Code: cmp.Or(fact.Reason.Code, oci.ErrManifestUnknown.Code), Status: http.StatusNotFound, Message: fact.Reason.Text}
}

// borrower returns a name that [Lend] uses in place of the name of a repository, to record which
// digests a fallback has lent to r. No repository has this name, because it has a space.
func borrower(r Repo) string { return "for " + r.Up.Name + "/" + r.Name }

// lent reports whether a fallback has lent a digest to a repository.
func lent(ctx context.Context, lender, r Repo, d digest.Digest) bool {
	_, err := r.store.o.Visibility.Get(ctx, lender.Up.Name, borrower(r), d)
	return err == nil
}

// Lend records that lender, a repository at a fallback, has answered for r. m is the digest of the
// answer, which was a manifest or a list of referrers. names are the children of the manifest, or
// the manifests in the list. Because of this record, dray asks the fallback first for m and for
// these children or manifests (see [Turns]), even after the upstream of r has recovered. The record
// makes nothing visible.
func Lend(ctx context.Context, lender, r Repo, m digest.Digest, names []oci.Child) {
	links := append(childLinks(names), meta.Link{Digest: m})
	if !slices.ContainsFunc(links, func(l meta.Link) bool { return !lent(ctx, lender, r, l.Digest) }) {
		return
	}
	for i := range links {
		links[i].LinkFact = meta.LinkFact{Size: -1, Kind: meta.KindBlob} // a blob, so that lists of images leave it out
	}
	r.store.Recorded(r.store.o.Visibility.Add(ctx, lender.Up.Name, borrower(r), links...))
}
