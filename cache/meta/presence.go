package meta

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
)

// PresenceFact says that a repository of a target has some content. A target is an upstream that
// pushes go to.
type PresenceFact struct {
	Kind Kind
	Size int64 // bytes; negative if unknown
	// Referenced says that the target has a manifest that references the content, or that the content
	// is a manifest. dray relies on unreferenced content only for a short time, because a registry may
	// delete it.
	Referenced bool
	// Confirmed is when the target was last known to have the content. It is zero in a fact that an
	// older dray recorded without this field. In a call of Add, zero means the present moment.
	Confirmed time.Time
}

// Holding is a digest with the fact about it.
type Holding struct {
	Digest digest.Digest
	PresenceFact
}

// PresenceOptions configure [NewPresence].
type PresenceOptions struct {
	// TTL is how long the fact about a manifest, or about a referenced blob, is kept; 0 means 12
	// hours. The time is short because lifecycle rules of a registry delete images without notice,
	// about once a day.
	TTL time.Duration
	// UnreferencedTTL is how long the fact about a blob that no manifest references yet is kept. 0
	// means 1 hour, which is enough for the push of the blob.
	UnreferencedTTL time.Duration
}

// Presence remembers which content the target of pushes has, so that dray does not send the content
// twice. There are only positive facts. A fact is wrong if the target has deleted the content
// since. A caller that notices this calls Forget and sends the content again.
type Presence struct {
	ledger[presenceRecord]
	unreferencedTTL time.Duration
}

// NewPresence returns a Presence that keeps its facts in the Store s.
func NewPresence(s Store, o PresenceOptions) *Presence {
	return &Presence{
		ledger:          newLedger[presenceRecord](s, "presence", cmp.Or(o.TTL, 12*time.Hour)),
		unreferencedTTL: cmp.Or(o.UnreferencedTTL, time.Hour),
	}
}

// presenceRecord is the stored form of a PresenceFact.
type presenceRecord struct {
	Kind       Kind  `json:"k"`
	Size       int64 `json:"s"`
	Referenced bool  `json:"r,omitempty"`
	Confirmed  int64 `json:"c,omitempty"` // Unix seconds
}

func (r presenceRecord) check() error {
	if !r.Kind.valid() {
		return fmt.Errorf("presence of unknown kind %q", string(r.Kind))
	}
	return nil
}

// homeRecord names a repository that has a blob as part of an image.
type homeRecord struct {
	Repo string `json:"r"`
}

func (r homeRecord) check() error {
	if r.Repo == "" {
		return errors.New("home without a repository")
	}
	return nil
}

func (k *Presence) homes() ledger[homeRecord] { return sibling[homeRecord](k.ledger) }

// Home returns a repository of the upstream that has the blob d as part of an image. Of several
// such repositories, Presence knows only the one for which Add was called last. If it knows none,
// Home returns ErrNotFound. The repository may have lost the blob since that call of Add. Home does
// not check whether a client may know of the repository.
func (k *Presence) Home(ctx context.Context, upstream string, d digest.Digest) (string, error) {
	r, err := k.homes().read(ctx, homeKey(upstream, d))
	if err != nil {
		return "", fmt.Errorf("home of %s/%s: %w", upstream, d, err)
	}
	return r.Repo, nil
}

// Get returns the fact about the digest d in the given repository, ErrNotFound if there is no such
// fact, or the failure of the store.
func (k *Presence) Get(ctx context.Context, upstream, repo string, d digest.Digest) (PresenceFact, error) {
	r, err := k.read(ctx, digestKey{upstream, repo, d}.in(presenceSpace))
	if err != nil {
		return PresenceFact{}, fmt.Errorf("presence of %s/%s@%s: %w", upstream, repo, d, err)
	}
	fact := PresenceFact{Kind: r.Kind, Size: r.Size, Referenced: r.Referenced}
	if r.Confirmed != 0 {
		fact.Confirmed = time.Unix(r.Confirmed, 0)
	}
	return fact, nil
}

// Add records that the given repository has the content of each Holding. A manifest always counts
// as referenced.
func (k *Presence) Add(ctx context.Context, upstream, repo string, held ...Holding) error {
	var referenced, unreferenced []Entry
	for _, h := range held {
		r := presenceRecord{Kind: h.Kind, Size: h.Size, Referenced: h.Referenced || h.Kind == KindManifest, Confirmed: time.Now().Unix()}
		if !h.Confirmed.IsZero() {
			r.Confirmed = h.Confirmed.Unix()
		}
		e, err := k.entry(digestKey{upstream, repo, h.Digest}.in(presenceSpace), r)
		if err = errors.Join(err, checkDigest(h.Digest)); err != nil {
			return fmt.Errorf("presence in %s/%s: %w", upstream, repo, err)
		}
		if r.Referenced {
			referenced = append(referenced, e)
			if r.Kind == KindBlob {
				home, err := k.homes().entry(homeKey(upstream, h.Digest), homeRecord{repo})
				if err != nil {
					return fmt.Errorf("presence in %s/%s: %w", upstream, repo, err)
				}
				referenced = append(referenced, home)
			}
		} else {
			unreferenced = append(unreferenced, e)
		}
	}
	err := errors.Join(
		PutAll(ctx, k.store, referenced, k.ttl),
		PutAll(ctx, k.store, unreferenced, k.unreferencedTTL))
	if err != nil {
		return fmt.Errorf("presence in %s/%s: %w", upstream, repo, err)
	}
	return nil
}

// Forget removes the facts about the digests. Callers use it when the target has proved the facts
// wrong, or may have lost the content.
func (k *Presence) Forget(ctx context.Context, upstream, repo string, ds ...digest.Digest) error {
	var errs []error
	for _, d := range ds {
		if err := k.store.Delete(ctx, digestKey{upstream, repo, d}.in(presenceSpace)); err != nil {
			errs = append(errs, fmt.Errorf("forget %s/%s@%s: %w", upstream, repo, d, err))
		}
		if home, err := k.Home(ctx, upstream, d); err == nil && home == repo {
			errs = append(errs, k.store.Delete(ctx, homeKey(upstream, d)))
		}
	}
	return errors.Join(errs...)
}
