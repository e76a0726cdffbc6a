package meta

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"
)

// Kind says whether a digest names a manifest or a blob. Registries have different URLs for the two
// kinds, so some facts record the kind.
type Kind string

// The two kinds of content.
const (
	KindBlob     Kind = "blob"
	KindManifest Kind = "manifest"
)

func (k Kind) valid() bool { return k == KindBlob || k == KindManifest }

// Options configure a facade, such as [Tags].
type Options struct {
	// TTL is how long a fact is kept after it was set; 0 means the default of the facade.
	TTL time.Duration
}

// record is the stored form of a fact. check returns an error for a record that this version of
// dray would not write.
type record interface{ check() error }

// ledger keeps records of one type as compact JSON, each for a limited time. It counts the records
// that cannot be decoded. The facades are made of ledgers.
type ledger[R record] struct {
	facts      string // the type of the facts, as metrics and errors name it
	store      Store
	lease      *Lease // says how long the results of reads are valid; may be nil
	ttl        time.Duration
	unreadable prometheus.Counter
}

func newLedger[R record](s Store, facts string, ttl time.Duration) ledger[R] {
	return ledger[R]{facts: facts, store: s, ttl: ttl, unreadable: prometheus.NewCounter(prometheus.CounterOpts{
		Name:        "dray_meta_unreadable_total",
		Help:        "Facts in the metadata store that dray could not read and treated as absent, by type of facts.",
		ConstLabels: prometheus.Labels{"facts": facts},
	})}
}

// sibling returns a ledger of records of another type, with the store, lease, TTL and metric of l.
func sibling[R, O record](l ledger[O]) ledger[R] {
	return ledger[R](l)
}

// read returns the record under key. It returns ErrNotFound if there is no record, or if the record
// cannot be decoded.
func (l ledger[R]) read(ctx context.Context, key string) (r R, err error) {
	value, err := GetLeased(ctx, l.store, key, l.lease)
	if err != nil {
		return r, err
	}
	return l.decode(value)
}

func (l ledger[R]) decode(value []byte) (r R, err error) {
	if err = json.Unmarshal(value, &r); err == nil {
		err = r.check()
	}
	if err != nil {
		l.unreadable.Inc()
		return *new(R), fmt.Errorf("%w: unreadable value: %w", ErrNotFound, err)
	}
	return r, nil
}

// write puts r under key for the TTL of the ledger.
func (l ledger[R]) write(ctx context.Context, key string, r R) error {
	return l.writeFor(ctx, key, r, l.ttl)
}

// writeOf calls write for a fact about a digest, with the key of the digest in the given space. It
// refuses a malformed digest, which could not be read from the key again.
func (l ledger[R]) writeOf(ctx context.Context, k digestKey, space string, r R) error {
	if err := checkDigest(k.digest); err != nil {
		return err
	}
	return l.write(ctx, k.in(space), r)
}

func (l ledger[R]) writeFor(ctx context.Context, key string, r R, ttl time.Duration) error {
	e, err := l.entry(key, r)
	if err != nil {
		return err
	}
	return l.store.Put(ctx, e.Key, e.Value, ttl)
}

// entry encodes a record. It returns an error for a record that decode would refuse.
func (l ledger[R]) entry(key string, r R) (Entry, error) {
	if err := r.check(); err != nil {
		return Entry{}, err
	}
	value, err := json.Marshal(r)
	return Entry{key, value}, err
}

// list yields the facts of the records whose keys begin with prefix. Records that cannot be decoded
// are counted and left out. Records for which factOf returns ErrNotFound are left out, too. list
// reads the whole store if the store does not order its keys.
func list[F, K any, R record](ctx context.Context, l ledger[R], prefix string, parse func(string) (K, bool), factOf func(K, R) (F, error)) iter.Seq2[F, error] {
	return func(yield func(F, error) bool) {
		for entry, err := range l.store.Scan(ctx, prefix) {
			key, ok := parse(entry.Key)
			if err == nil && !ok {
				l.unreadable.Inc()
				continue
			}
			var r R
			var f F
			if err == nil {
				r, err = l.decode(entry.Value)
			}
			if err == nil {
				f, err = factOf(key, r)
			}
			if errors.Is(err, ErrNotFound) {
				continue
			}
			if err != nil {
				err = fmt.Errorf("list %s: %w", l.facts, err)
			}
			if !yield(f, err) || err != nil {
				return
			}
		}
	}
}

// Collectors returns the metrics of the facts.
func (l ledger[R]) Collectors() []prometheus.Collector {
	return []prometheus.Collector{l.unreadable}
}

func checkDigest(d digest.Digest) error {
	if err := d.Validate(); err != nil {
		return fmt.Errorf("digest %q: %w", string(d), err)
	}
	return nil
}
