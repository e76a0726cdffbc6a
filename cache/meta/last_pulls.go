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

// TouchFact says when an upstream last saw a pull of an image. dray records it because some
// upstreams delete images that nobody pulls from them.
type TouchFact struct {
	// Touched is when dray last asked the upstream for the manifest. Requests that failed do not
	// count.
	Touched time.Time
	// Pulled says that a client has got the image from dray since then.
	Pulled bool
	// MediaType is the media type of the manifest. Tag is the last known tag by which a client pulled
	// the image; it may be empty.
	MediaType, Tag string
}

// Touch is one fact of a listing.
type Touch struct {
	Upstream, Repo string
	Digest         digest.Digest
	TouchFact
}

// LastPulls remembers when dray last asked an upstream for an image. Because of these facts, only
// one of the mirrors that share a store asks, and a restart does not repeat the request. A lost
// fact costs one more request.
type LastPulls struct {
	ledger[touchRecord]
}

// NewLastPulls returns the facts in s. They are kept for o.TTL, by default 30 days. This time must
// be longer than the time between two requests for an image.
func NewLastPulls(s Store, o Options) *LastPulls {
	return &LastPulls{newLedger[touchRecord](s, "last_pulls", cmp.Or(o.TTL, 30*24*time.Hour))}
}

// touchRecord is the stored form of a TouchFact.
type touchRecord struct {
	Touched   int64  `json:"t"` // Unix nanoseconds
	Pulled    bool   `json:"p,omitempty"`
	MediaType string `json:"m,omitempty"`
	Tag       string `json:"g,omitempty"`
}

func (r touchRecord) check() error {
	if r.Touched <= 0 {
		return errors.New("last pull without a time")
	}
	return nil
}

func (r touchRecord) fact() TouchFact {
	return TouchFact{Touched: time.Unix(0, r.Touched), Pulled: r.Pulled, MediaType: r.MediaType, Tag: r.Tag}
}

// Get returns the fact about an image, ErrNotFound if there is none, or the failure of the store.
func (t *LastPulls) Get(ctx context.Context, upstream, repo string, d digest.Digest) (TouchFact, error) {
	r, err := t.read(ctx, digestKey{upstream, repo, d}.in(touchSpace))
	if err != nil {
		return TouchFact{}, fmt.Errorf("last pull of %s/%s@%s: %w", upstream, repo, d, err)
	}
	return r.fact(), nil
}

// Set records the fact about an image.
func (t *LastPulls) Set(ctx context.Context, upstream, repo string, d digest.Digest, f TouchFact) error {
	r := touchRecord{Touched: f.Touched.UnixNano(), Pulled: f.Pulled, MediaType: f.MediaType, Tag: f.Tag}
	if err := t.writeOf(ctx, digestKey{upstream, repo, d}, touchSpace, r); err != nil {
		return fmt.Errorf("last pull of %s/%s@%s: %w", upstream, repo, d, err)
	}
	return nil
}

// All yields every fact, in no particular order. It reads the whole store if the store does not
// order its keys.
func (t *LastPulls) All(ctx context.Context) iter.Seq2[Touch, error] {
	return list(ctx, t.ledger, touchSpace, digestKeyIn(touchSpace), func(k digestKey, r touchRecord) (Touch, error) {
		return Touch{Upstream: k.upstream, Repo: k.repo, Digest: k.digest, TouchFact: r.fact()}, nil
	})
}
