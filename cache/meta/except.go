package meta

import (
	"context"
	"iter"
	"slices"
	"time"
)

// Except is a [Store] that keeps no facts about upstreams whose content is on this machine. Asking
// such an upstream costs no more than reading a fact. Machines that share a store may each have
// such an upstream, with the same name but different content. A fact about one of these upstreams
// would be wrong about the others.
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

// excludes reports whether a key is about one of the upstreams.
func (e *Except) excludes(key string) bool {
	upstream, ok := upstreamOf(key)
	return ok && slices.Contains(e.upstreams, upstream)
}

// Get implements Store.
func (e *Except) Get(ctx context.Context, key string) ([]byte, error) {
	return e.getLeased(ctx, key, nil)
}

func (e *Except) getLeased(ctx context.Context, key string, l *Lease) ([]byte, error) {
	if e.excludes(key) {
		l.revoke()
		return nil, ErrNotFound
	}
	return GetLeased(ctx, e.Store, key, l)
}

// Put implements Store.
func (e *Except) Put(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	if e.excludes(key) {
		return nil
	}
	return e.Store.Put(ctx, key, value, ttl)
}

// PutAll implements Batch.
func (e *Except) PutAll(ctx context.Context, entries []Entry, ttl time.Duration) error {
	kept := slices.DeleteFunc(slices.Clone(entries), func(one Entry) bool { return e.excludes(one.Key) })
	return PutAll(ctx, e.Store, kept, ttl)
}

// Delete implements Store.
func (e *Except) Delete(ctx context.Context, key string) error {
	if e.excludes(key) {
		return nil
	}
	return e.Store.Delete(ctx, key)
}

// Scan implements Store. It leaves out facts about the excluded upstreams, which may have been put
// under an older configuration.
func (e *Except) Scan(ctx context.Context, prefix string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for entry, err := range e.Store.Scan(ctx, prefix) {
			if err == nil && e.excludes(entry.Key) {
				continue
			}
			if !yield(entry, err) {
				return
			}
		}
	}
}
