package meta

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/opencontainers/go-digest"
)

// TagKey names one question about a tag. Accept is the normalised Accept header of the question.
// Some registries convert a manifest to a type that the client accepts, so one tag can have several
// digests at once. If Accept is [Referrers], the question is about a list of referrers.
type TagKey struct {
	Upstream, Repo, Tag, Accept string
}

// Referrers is the Accept of a question about the list of manifests that refer to a certain
// manifest. Tag is then the fallback tag, under which a registry without the referrers call has
// this list (OCI distribution specification 1.1, "Referrers Tag Schema"). The key has this tag even
// if the registry has the call, so that forgetting the tag also forgets the list. No Accept header
// has this normalised form.
const Referrers = "referrers"

// TagFact is the answer of an upstream about a tag, or about a list of referrers.
type TagFact struct {
	// Digest is the digest of the manifest or list.
	Digest    digest.Digest
	MediaType string
	Size      int64 // bytes of the manifest or list; negative if unknown
	// CheckedAt is when the upstream was asked, not when it answered: an answer that was on its way
	// while the tag was pushed must count as old.
	CheckedAt time.Time
	// NotFound says that the upstream answered that there is no such tag. Digest, media type and
	// size are then empty.
	NotFound bool
	// Reason is what the upstream said, if NotFound is set.
	Reason Reason
}

// Reason is what an upstream said when it answered that something does not exist.
type Reason struct {
	Code string `json:"c,omitempty"` // the error code of the registry protocol
	Text string `json:"t,omitempty"` // the message for people
}

// Tag is one fact of a listing. It lacks the Accept of the question.
type Tag struct {
	Upstream, Repo, Tag string
	TagFact
}

// Tags remembers what tags point to, and which manifests refer to a manifest.
//
// Forget hides all facts about a tag at once, for every Accept, by writing a new epoch. Facts of an
// older epoch are invisible, and so are facts whose question was asked before the new epoch began.
// The clocks of mirrors that share a store must agree to within seconds. If they differ by n
// seconds, facts around a push can be wrongly hidden or visible for n seconds.
type Tags struct {
	ledger[tagRecord]
}

// NewTags returns the tag facts in s. By default they are kept for at most 30 days. A fact may be
// kept for longer than it is fresh, because an old fact still serves while the upstream is down.
// The caller decides by CheckedAt whether a fact is fresh.
func NewTags(s Store, o Options) *Tags {
	return &Tags{newLedger[tagRecord](s, "tags", cmp.Or(o.TTL, 30*24*time.Hour))}
}

// Under returns the same facts. The lease l covers all reads through the result.
func (t *Tags) Under(l *Lease) *Tags {
	leased := *t
	leased.lease = l
	return &leased
}

// tagRecord is the stored form of a TagFact.
type tagRecord struct {
	Digest    digest.Digest `json:"d,omitempty"`
	MediaType string        `json:"m,omitempty"`
	Size      int64         `json:"s,omitempty"`
	Checked   int64         `json:"c"` // Unix nanoseconds
	NotFound  bool          `json:"n,omitempty"`
	Reason    *Reason       `json:"r,omitempty"`
	Epoch     string        `json:"e,omitempty"`
}

func (r tagRecord) check() error {
	if r.NotFound {
		return nil
	}
	return checkDigest(r.Digest)
}

func (r tagRecord) fact() TagFact {
	f := TagFact{
		Digest: r.Digest, MediaType: r.MediaType, Size: r.Size,
		CheckedAt: time.Unix(0, r.Checked), NotFound: r.NotFound,
	}
	if r.Reason != nil {
		f.Reason = *r.Reason
	}
	return f
}

// Get returns the fact about k, ErrNotFound if there is none, or the failure of the store. A fact
// with NotFound set is an answer, not ErrNotFound.
func (t *Tags) Get(ctx context.Context, k TagKey) (TagFact, error) {
	r, err := t.read(ctx, k.key())
	if err != nil {
		return TagFact{}, fmt.Errorf("tag %s: %w", k, err)
	}
	e, err := epochsOf(t.ledger).at(ctx, k.forgetKey())
	if err == nil && e.hides(r.Epoch, r.Checked) {
		err = ErrNotFound
	}
	if err != nil {
		return TagFact{}, fmt.Errorf("tag %s: %w", k, err)
	}
	return r.fact(), nil
}

// Set records f. The parameter keep is how long the fact is kept, at most Options.TTL; 0 means
// Options.TTL. A zero CheckedAt means now. Set records nothing and returns nil if the question was
// asked before the last Forget of its tag.
func (t *Tags) Set(ctx context.Context, k TagKey, f TagFact, keep time.Duration) error {
	if keep == 0 || keep > t.ttl {
		keep = t.ttl
	}
	if f.CheckedAt.IsZero() {
		f.CheckedAt = time.Now()
	}
	e, err := epochsOf(t.ledger).at(ctx, k.forgetKey())
	if err != nil {
		return fmt.Errorf("set tag %s: %w", k, err)
	}
	r := tagRecord{
		Digest: f.Digest, MediaType: f.MediaType, Size: f.Size,
		Checked: f.CheckedAt.UnixNano(), NotFound: f.NotFound, Epoch: e.Name,
	}
	if f.NotFound && f.Reason != (Reason{}) {
		r.Reason = &f.Reason
	}
	if e.hides(r.Epoch, r.Checked) {
		return nil
	}
	if err := t.writeFor(ctx, k.key(), r, keep); err != nil {
		return fmt.Errorf("set tag %s: %w", k, err)
	}
	return nil
}

// SetNotFound records that the upstream, asked at the given time, had no such tag. The parameter
// window is how long the fact is kept. If window is not positive, SetNotFound records nothing.
func (t *Tags) SetNotFound(ctx context.Context, k TagKey, asked time.Time, window time.Duration, why Reason) error {
	if window <= 0 {
		return nil
	}
	return t.Set(ctx, k, TagFact{CheckedAt: asked, NotFound: true, Reason: why}, window)
}

// Forget makes every fact about a tag invisible, for every Accept, including answers that are
// still on their way. A push calls Forget before it records the new digest.
func (t *Tags) Forget(ctx context.Context, upstream, repo, tag string) error {
	if err := epochsOf(t.ledger).begin(ctx, TagKey{Upstream: upstream, Repo: repo, Tag: tag}.forgetKey()); err != nil {
		return fmt.Errorf("forget tag %s/%s:%s: %w", upstream, repo, tag, err)
	}
	return nil
}

// All yields the visible facts about tags of one upstream, or of all upstreams if upstream is
// empty. It leaves out facts about lists of referrers. It is for listings, and too slow for a pull:
// it reads the whole store if the store does not order its keys.
func (t *Tags) All(ctx context.Context, upstream string) iter.Seq2[Tag, error] {
	return list(ctx, t.ledger, upstreamPrefix(tagSpace, upstream), parseTagKey, func(k TagKey, r tagRecord) (Tag, error) {
		e, err := epochsOf(t.ledger).at(ctx, k.forgetKey())
		if err == nil && (k.Accept == Referrers || e.hides(r.Epoch, r.Checked)) {
			err = ErrNotFound
		}
		return Tag{Upstream: k.Upstream, Repo: k.Repo, Tag: k.Tag, TagFact: r.fact()}, err
	})
}

// String returns the tag with its repository, for messages.
func (k TagKey) String() string { return k.Upstream + "/" + k.Repo + ":" + k.Tag }
