package meta

import (
	"context"
	"iter"
	"slices"
	"time"
)

// Except is a [Store] that keeps nothing about certain upstreams: those whose content lies here, so
// that asking them costs no more than reading facts would, and whose facts must not be taken for
// those of a namesake on another machine with the same store.
type Except struct {
	Store
	upstreams []string
}

var (
	_ Store = (*Except)(nil)
	_ Batch = (*Except)(nil)
)

// NewExcept returns s without facts about the given upstreams.
func NewExcept(s Store, upstreams ...string) *Except {
	return &Except{Store: s, upstreams: upstreams}
}

// drops reports whether a key is about one of the upstreams.
func (e *Except) drops(key string) bool {
	upstream, ok := upstreamOf(key)
	return ok && slices.Contains(e.upstreams, upstream)
}

// Get implements Store.
func (e *Except) Get(ctx context.Context, key string) ([]byte, error) {
	return e.getLeased(ctx, key, nil)
}

func (e *Except) getLeased(ctx context.Context, key string, l *Lease) ([]byte, error) {
	if e.drops(key) {
		l.refuse()
		return nil, ErrNotFound
	}
	return GetLeased(ctx, e.Store, key, l)
}

// Put implements Store.
func (e *Except) Put(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	if e.drops(key) {
		return nil
	}
	return e.Store.Put(ctx, key, value, ttl)
}

// PutAll implements Batch.
func (e *Except) PutAll(ctx context.Context, entries []Entry, ttl time.Duration) error {
	kept := slices.DeleteFunc(slices.Clone(entries), func(one Entry) bool { return e.drops(one.Key) })
	return PutAll(ctx, e.Store, kept, ttl)
}

// Delete implements Store.
func (e *Except) Delete(ctx context.Context, key string) error {
	if e.drops(key) {
		return nil
	}
	return e.Store.Delete(ctx, key)
}

// Scan implements Store. What an older configuration left about the upstreams is not seen.
func (e *Except) Scan(ctx context.Context, prefix string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for entry, err := range e.Store.Scan(ctx, prefix) {
			if err == nil && e.drops(entry.Key) {
				continue
			}
			if !yield(entry, err) {
				return
			}
		}
	}
}
