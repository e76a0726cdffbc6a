package meta

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"
)

// TransitTTL is how long a fact about a blob in transit is kept. The mirror renews the fact until
// the upstream has the blob, or until the mirror no longer has the blob staged.
const TransitTTL = time.Minute

// TransitFact says that a mirror has received a whole blob from a client.
type TransitFact struct {
	Size int64 // bytes
	// Held says that the mirror does not send the blob to the upstream now: the blob waits for a
	// verdict, or sending it has failed.
	Held bool
}

// Transit has the facts about blobs in transit: a mirror has received them from clients, but has
// not sent them to the upstream yet. All mirrors that share a store read these facts.
type Transit struct {
	ledger[transitRecord]
	self string
}

// NewTransit returns the facts in s for the mirror whose name is self. The store s must have no
// cache in memory, because this mirror reads the facts that other mirrors write.
func NewTransit(s Store, self string) *Transit {
	return &Transit{newLedger[transitRecord](s, "transit", TransitTTL), self}
}

// transitRecord is the stored form of a TransitFact.
type transitRecord struct {
	Mirror string `json:"m"`
	Size   int64  `json:"s"`
	Held   bool   `json:"h,omitempty"`
}

func (r transitRecord) check() error {
	if r.Mirror == "" || r.Size < 0 {
		return errors.New("transit without a mirror or size")
	}
	return nil
}

// uploadRecord names the mirror that has an upload open.
type uploadRecord struct {
	Mirror string `json:"m"`
}

func (r uploadRecord) check() error {
	if r.Mirror == "" {
		return errors.New("upload without a mirror")
	}
	return nil
}

func (t *Transit) uploads() ledger[uploadRecord] { return sibling[uploadRecord](t.ledger) }

// Get returns the fact about a blob of a repository, if another mirror has recorded it. If none
// has, it returns ErrNotFound. If the store fails, it returns the error of the store.
func (t *Transit) Get(ctx context.Context, upstream, repo string, d digest.Digest) (TransitFact, error) {
	r, err := t.read(ctx, digestKey{upstream, repo, d}.in(transitSpace))
	if err == nil && r.Mirror == t.self {
		err = ErrNotFound
	}
	if err != nil {
		return TransitFact{}, fmt.Errorf("transit of %s/%s@%s: %w", upstream, repo, d, err)
	}
	return TransitFact{r.Size, r.Held}, nil
}

// Set records the fact about a blob for TransitTTL.
func (t *Transit) Set(ctx context.Context, upstream, repo string, d digest.Digest, f TransitFact) error {
	if err := t.writeOf(ctx, digestKey{upstream, repo, d}, transitSpace, transitRecord{t.self, f.Size, f.Held}); err != nil {
		return fmt.Errorf("transit of %s/%s@%s: %w", upstream, repo, d, err)
	}
	return nil
}

// Forget removes the fact about a blob, unless another mirror has recorded it.
func (t *Transit) Forget(ctx context.Context, upstream, repo string, d digest.Digest) error {
	key := digestKey{upstream, repo, d}.in(transitSpace)
	if r, err := t.read(ctx, key); err == nil && r.Mirror != t.self {
		return nil
	}
	if err := t.store.Delete(ctx, key); err != nil {
		return fmt.Errorf("transit of %s/%s@%s: %w", upstream, repo, d, err)
	}
	return nil
}

// Opened records that this mirror has opened an upload. The record expires after ttl.
func (t *Transit) Opened(ctx context.Context, id string, ttl time.Duration) error {
	if err := t.uploads().writeFor(ctx, path(uploadSpace, id), uploadRecord{t.self}, ttl); err != nil {
		return fmt.Errorf("upload %s: %w", id, err)
	}
	return nil
}

// OpenElsewhere reports whether another mirror has opened the upload with the given id.
func (t *Transit) OpenElsewhere(ctx context.Context, id string) bool {
	r, err := t.uploads().read(ctx, path(uploadSpace, id))
	return err == nil && r.Mirror != t.self
}

// Collectors returns the metrics of the facts.
func (t *Transit) Collectors() []prometheus.Collector { return t.ledger.Collectors() }
