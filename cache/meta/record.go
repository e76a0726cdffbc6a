package meta

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"
)

// Kind says whether a digest names a manifest or a blob. The two are different
// questions to a registry, so a fact must remember which.
type Kind string

// The two kinds of content.
const (
	KindBlob     Kind = "blob"
	KindManifest Kind = "manifest"
)

func (k Kind) valid() bool { return k == KindBlob || k == KindManifest }

// record is what a facade keeps under a key. check refuses what decodes but
// cannot have been written by this version.
type record interface{ check() error }

// ledger is the part the facades share: values as compact JSON, and a count of
// those that could not be read.
type ledger struct {
	store      Store
	lease      *Lease // covers the reads; nil: nothing does
	unreadable prometheus.Counter
}

func newLedger(s Store, facts string) ledger {
	return ledger{store: s, unreadable: prometheus.NewCounter(prometheus.CounterOpts{
		Name:        "dray_meta_unreadable_total",
		Help:        "Facts found in the metadata store that could not be read and were treated as not found.",
		ConstLabels: prometheus.Labels{"facts": facts},
	})}
}

// read fills rec from what is under key. What cannot be read is not found.
func (l *ledger) read(ctx context.Context, key string, rec record) error {
	value, err := GetLeased(ctx, l.store, key, l.lease)
	if err != nil {
		return err
	}
	return l.decode(value, rec)
}

func (l *ledger) decode(value []byte, rec record) error {
	err := json.Unmarshal(value, rec)
	if err == nil {
		err = rec.check()
	}
	if err != nil {
		l.unreadable.Inc()
		return fmt.Errorf("%w: unreadable value: %w", ErrNotFound, err)
	}
	return nil
}

func (l *ledger) write(ctx context.Context, key string, rec record, ttl time.Duration) error {
	value, err := encode(rec)
	if err != nil {
		return err
	}
	return l.store.Put(ctx, key, value, ttl)
}

// encode refuses to write what read would not accept.
func encode(rec record) ([]byte, error) {
	if err := rec.check(); err != nil {
		return nil, err
	}
	return json.Marshal(rec)
}

func checkDigest(d digest.Digest) error {
	if err := d.Validate(); err != nil {
		return fmt.Errorf("digest %q: %w", string(d), err)
	}
	return nil
}

func (l *ledger) collectors() []prometheus.Collector {
	return []prometheus.Collector{l.unreadable}
}
