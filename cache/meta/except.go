package meta

import (
	"context"
	"iter"
	"slices"
	"time"
)

// Except is a [Store] that keeps no facts about upstreams whose content is on this machine. Asking
// such an upstream costs no more than reading a fact. Machines that share a store can each have
// such an upstream, with the same name but different content. A fact about one of these upstreams
// would be wrong about the others.
type Except struct {
	Store
	upstreams []string
}

var (
	_ Store   = (*Except)(nil)
	_ Batch   = (*Except)(nil)
	_ Swapper = (*Except)(nil)
	_ Clocked = (*Except)(nil)
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

// GetAll implements Batch.
func (e *Except) GetAll(ctx context.Context, keys []string) ([]Seen, error) {
	return e.getAllLeased(ctx, keys, nil)
}

func (e *Except) getAllLeased(ctx context.Context, keys []string, l *Lease) ([]Seen, error) {
	return e.present(keys, l, func(keys []string) ([]Seen, error) { return GetAllLeased(ctx, e.Store, keys, l) })
}

func (e *Except) reread(ctx context.Context, keys []string) ([]Seen, error) {
	return e.present(keys, nil, func(keys []string) ([]Seen, error) { return Reread(ctx, e.Store, keys) })
}

func (e *Except) processName() string { return processOf(e.Store) }

// [Except.present] reads keys, and finds nothing under the excluded keys.
func (e *Except) present(keys []string, l *Lease, read func([]string) ([]Seen, error)) ([]Seen, error) {
	if !slices.ContainsFunc(keys, e.excludes) {
		return read(keys)
	}
	l.revoke()
	all := make([]Seen, len(keys))
	for i, k := range keys {
		all[i].Key = k
		if e.excludes(k) {
			continue
		}
		one, err := read([]string{k})
		if err != nil {
			return nil, err
		}
		all[i] = one[0]
	}
	return all, nil
}

// Swap implements Swapper.
func (e *Except) Swap(ctx context.Context, writes []Write, snapshot []Seen) (bool, error) {
	if slices.ContainsFunc(writes, func(w Write) bool { return e.excludes(w.Key) }) {
		return true, nil
	}
	return Swap(ctx, e.Store, writes, snapshot)
}

// Clock implements Clocked.
func (e *Except) Clock(ctx context.Context) (store, local time.Time, err error) {
	return askClock(ctx, e.Store)
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

// Scan implements Store. It leaves out facts about the excluded upstreams. The Store can still have
// such facts from the time of an older configuration.
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
