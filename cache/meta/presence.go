package meta

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
)

// PresenceFact says that a target holds something.
type PresenceFact struct {
	Kind Kind
	Size int64 // bytes; negative when unknown
	// Referenced says that the target holds a manifest that references it, or
	// that it is a manifest. A registry may drop what nothing references.
	Referenced bool
	// Confirmed is when the target was last known to hold it; zero in a fact that an older dray
	// recorded, which did not say. Add takes zero for now.
	Confirmed time.Time
}

// Holding is a digest together with what is known about it.
type Holding struct {
	Digest digest.Digest
	PresenceFact
}

// PresenceOptions configure [NewPresence].
type PresenceOptions struct {
	// TTL is how long the fact about a manifest, or about a blob that a manifest
	// references, lives; 0 means 12 hours. Lifecycle rules of a registry delete
	// images behind our back about once a day.
	TTL time.Duration
	// UnreferencedTTL is how long the fact about a blob lives that no manifest
	// references yet; 0 means 1 hour, which covers the push it belongs to.
	UnreferencedTTL time.Duration
}

// Presence remembers what the target of pushes holds, so that it is not sent
// twice. There are only positive facts. One can be wrong, when the target
// deleted something meanwhile: whoever learns so calls Forget and sends it again.
type Presence struct {
	ledger[presenceRecord]
	unreferencedTTL time.Duration
}

// NewPresence returns the facts about targets kept in s.
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
		return fmt.Errorf("known content of kind %q", string(r.Kind))
	}
	return nil
}

// homeRecord names a repository that holds a blob under a manifest.
type homeRecord struct {
	Repo string `json:"r"`
}

func (r homeRecord) check() error {
	if r.Repo == "" {
		return errors.New("home without a repository")
	}
	return nil
}

func (k *Presence) homes() ledger[homeRecord] { return beside[homeRecord](k.ledger) }

// Home returns a repository of upstream that holds the blob d under a manifest: the one that was
// added last. ErrNotFound says that none is known. Whether it still holds it is not certain, and
// who may know of it is the caller's to decide.
func (k *Presence) Home(ctx context.Context, upstream string, d digest.Digest) (string, error) {
	r, err := k.homes().read(ctx, homeKey(upstream, d))
	if err != nil {
		return "", fmt.Errorf("home of %s/%s: %w", upstream, d, err)
	}
	return r.Repo, nil
}

// Get returns the fact that repo of upstream holds d, ErrNotFound when that is
// not known, or the failure of the store.
func (k *Presence) Get(ctx context.Context, upstream, repo string, d digest.Digest) (PresenceFact, error) {
	r, err := k.read(ctx, digestKey{upstream, repo, d}.in(presenceSpace))
	if err != nil {
		return PresenceFact{}, fmt.Errorf("known %s/%s@%s: %w", upstream, repo, d, err)
	}
	fact := PresenceFact{Kind: r.Kind, Size: r.Size, Referenced: r.Referenced}
	if r.Confirmed != 0 {
		fact.Confirmed = time.Unix(r.Confirmed, 0)
	}
	return fact, nil
}

// Add records that repo of upstream holds everything in held. A manifest counts
// as referenced whatever the fact says.
func (k *Presence) Add(ctx context.Context, upstream, repo string, held ...Holding) error {
	var lasting, passing []Entry
	for _, h := range held {
		r := presenceRecord{Kind: h.Kind, Size: h.Size, Referenced: h.Referenced || h.Kind == KindManifest, Confirmed: time.Now().Unix()}
		if !h.Confirmed.IsZero() {
			r.Confirmed = h.Confirmed.Unix()
		}
		e, err := k.entry(digestKey{upstream, repo, h.Digest}.in(presenceSpace), r)
		if err = errors.Join(err, checkDigest(h.Digest)); err != nil {
			return fmt.Errorf("known %s/%s: %w", upstream, repo, err)
		}
		if r.Referenced {
			lasting = append(lasting, e)
			if r.Kind == KindBlob {
				home, err := k.homes().entry(homeKey(upstream, h.Digest), homeRecord{repo})
				if err != nil {
					return fmt.Errorf("known %s/%s: %w", upstream, repo, err)
				}
				lasting = append(lasting, home)
			}
		} else {
			passing = append(passing, e)
		}
	}
	err := errors.Join(
		PutAll(ctx, k.store, lasting, k.ttl),
		PutAll(ctx, k.store, passing, k.unreferencedTTL))
	if err != nil {
		return fmt.Errorf("known %s/%s: %w", upstream, repo, err)
	}
	return nil
}

// Forget removes the facts about the given digests, because the target proved
// them wrong.
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
