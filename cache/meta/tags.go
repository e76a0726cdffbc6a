package meta

import (
	"cmp"
	"context"
	"errors"
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
// if the registry has the call, so that forgetting the tag also forgets the list. No normalised
// Accept header equals Referrers.
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
	// NotFound says that the upstream answered that there is no such tag. Digest, media type and size
	// are then empty.
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

// Tags remembers the digests of tags and of lists of referrers.
//
// Forget hides all facts about a tag at once, for every Accept, by writing a new epoch. A fact is
// invisible if its question was asked in an older epoch. If mirrors share the store, its clock
// dates the facts, so the clocks of the mirrors may differ.
type Tags struct {
	ledger[tagRecord]
}

// tagsTTL is how long tag facts are kept at most.
const tagsTTL = 30 * 24 * time.Hour

// NewTags returns the tag facts in s. They are kept for at most 30 days, or for Options.TTL if that
// is less. A fact may be kept for longer than it is fresh, because dray still uses an old fact
// while the upstream is down. The caller decides by CheckedAt whether a fact is fresh.
func NewTags(s Store, o Options) *Tags {
	return &Tags{newLedger[tagRecord](s, "tags", min(cmp.Or(o.TTL, tagsTTL), tagsTTL))}
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
	NotFound  bool          `json:"n,omitempty"`
	Reason    *Reason       `json:"r,omitempty"`
	dated
}

func (r tagRecord) check() error {
	if r.NotFound {
		return nil
	}
	return checkDigest(r.Digest)
}

func recordOf(f TagFact, d dated) tagRecord {
	r := tagRecord{Digest: f.Digest, MediaType: f.MediaType, Size: f.Size, NotFound: f.NotFound, dated: d}
	if f.NotFound && f.Reason != (Reason{}) {
		r.Reason = &f.Reason
	}
	return r
}

func (t *Tags) fact(ctx context.Context, r tagRecord) TagFact {
	f := TagFact{Digest: r.Digest, MediaType: r.MediaType, Size: r.Size, CheckedAt: r.time(ctx, t.store), NotFound: r.NotFound}
	if r.Reason != nil {
		f.Reason = *r.Reason
	}
	return f
}

// Get returns the fact about k, ErrNotFound if there is none, or the failure of the store. A fact
// with NotFound set is an answer, not ErrNotFound.
func (t *Tags) Get(ctx context.Context, k TagKey) (TagFact, error) {
	all, err := t.Find(ctx, k)
	if err == nil && all[0] == nil {
		err = ErrNotFound
	}
	if err != nil {
		return TagFact{}, fmt.Errorf("tag %s: %w", k, err)
	}
	return *all[0], nil
}

// Find returns the fact about each key. The keys have the same tag and differ in their Accept. An
// element is nil if there is no fact. An error is a failure of the store.
func (t *Tags) Find(ctx context.Context, keys ...TagKey) ([]*TagFact, error) {
	all, _, err := t.find(ctx, false, keys)
	return all, err
}

// Ask is like Find, but reads from the store and not from memory. q is the question about the first
// key. If the store fails, q is valid nevertheless, and the facts are those in memory. The caller
// must not ask the upstream before Ask has returned, and records the answer by [Tags.Set]. doubtful
// says that the store has refused the last write of this process to the fact about the first key,
// or to its epoch. The caller must then ask the upstream before it uses the facts.
func (t *Tags) Ask(ctx context.Context, keys ...TagKey) (all []*TagFact, q Question, doubtful bool) {
	all, q, _ = t.find(ctx, true, keys)
	return all, q, q.doubtful()
}

func (t *Tags) find(ctx context.Context, fromStore bool, keys []TagKey) ([]*TagFact, Question, error) {
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = k.key()
	}
	records, q, err := answers(ctx, t.ledger, fromStore, keys[0].forgetKey(), names...)
	all := make([]*TagFact, len(keys))
	for i, r := range records {
		if r != nil {
			f := t.fact(ctx, *r)
			all[i] = &f
		}
	}
	return all, q, err
}

// Set records f, which is the answer to q. The fact is kept for the duration ttl, but at most for
// the time that [NewTags] sets. A ttl of 0 means that time. If ttl is negative, Set records
// nothing. A zero CheckedAt means the time of the question. ok is false if the answer is out of
// date, because the tag was pushed or forgotten since the question, or because the answer to a
// later question is recorded. The caller then asks again.
func (t *Tags) Set(ctx context.Context, q Question, f TagFact, ttl time.Duration) (ok bool, err error) {
	if ttl < 0 {
		return true, nil
	}
	if ttl == 0 || ttl > t.ttl {
		ttl = t.ttl
	}
	if f.CheckedAt.IsZero() {
		f.CheckedAt = q.asked
	}
	ok, err = recordAnswer(ctx, t.ledger, q, f.CheckedAt, ttl, func(d dated) tagRecord { return recordOf(f, d) })
	if err != nil {
		return ok, fmt.Errorf("set tag %s: %w", q.fact.Key, err)
	}
	return ok, nil
}

// Pushed records f, which a push of the tag has made true. It makes every other fact about the tag
// invisible, for every Accept, including answers that are still on their way. The caller got q from
// [Tags.Ask] before it sent the push to the upstream. If the tag was pushed or forgotten since,
// nobody knows which push the upstream accepted last, so Pushed does not record f.
func (t *Tags) Pushed(ctx context.Context, q Question, f TagFact) error {
	w, e, err := beginning(t.ledger, q.epoch.Key)
	if err != nil {
		return err
	}
	entry, err := t.entry(q.fact.Key, recordOf(f, dateOf(ctx, t.store, time.Now(), e)))
	if err != nil {
		return fmt.Errorf("pushed tag %s: %w", q.fact.Key, err)
	}
	ok, err := Swap(ctx, t.store, []Write{w, {entry, t.ttl}}, []Seen{q.epoch})
	if !ok {
		err = begin(ctx, t.ledger, q.epoch.Key)
	}
	if err != nil {
		return fmt.Errorf("pushed tag %s: %w", q.fact.Key, err)
	}
	return nil
}

// Overtaken returns true if a tag was pushed, deleted or forgotten between two questions about it,
// and another process did so last. If the store did not answer one of the questions, or has lost
// the epoch of the tag, Overtaken cannot tell, and returns false.
func (t *Tags) Overtaken(earlier, later Question) bool {
	if !earlier.answered || !later.answered || !later.epoch.Found {
		return false
	}
	e := epochIn(t.ledger, later.epoch)
	return e.Name != epochIn(t.ledger, earlier.epoch).Name && e.By != processOf(t.store)
}

// Forget makes every fact about a tag invisible, for every Accept, including answers that are still
// on their way.
func (t *Tags) Forget(ctx context.Context, upstream, repo, tag string) error {
	if err := begin(ctx, t.ledger, TagKey{Upstream: upstream, Repo: repo, Tag: tag}.forgetKey()); err != nil {
		return fmt.Errorf("forget tag %s/%s:%s: %w", upstream, repo, tag, err)
	}
	return nil
}

// All yields the visible facts about tags of one upstream, or of all upstreams if upstream is
// empty. It leaves out facts about lists of referrers. It is for listings, and too slow for a pull:
// it reads the whole store if the store does not order its keys.
func (t *Tags) All(ctx context.Context, upstream string) iter.Seq2[Tag, error] {
	return list(ctx, t.ledger, upstreamPrefix(tagSpace, upstream), parseTagKey, func(k TagKey, r tagRecord) (Tag, error) {
		e, err := sibling[epoch](t.ledger).read(ctx, k.forgetKey())
		if errors.Is(err, ErrNotFound) {
			err = nil
		}
		if err == nil && (k.Accept == Referrers || r.Epoch != e.Name) {
			err = ErrNotFound
		}
		return Tag{Upstream: k.Upstream, Repo: k.Repo, Tag: k.Tag, TagFact: t.fact(ctx, r)}, err
	})
}

// String returns the tag with its repository, for messages.
func (k TagKey) String() string { return k.Upstream + "/" + k.Repo + ":" + k.Tag }
