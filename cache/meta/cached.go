package meta

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/prometheus/client_golang/prometheus"
)

// CachedOptions configure [NewCached].
type CachedOptions struct {
	// Entries bounds the number of entries held; 0 means 65536.
	Entries int
	// Staleness is how long an entry is answered from memory before the store is
	// asked again; 0 means 1 second. It is also how late the write of another
	// member on the same store, or an expiry, may be noticed.
	Staleness time.Duration
	// OnError bounds how long an entry read from a store is still answered from
	// memory while the store fails; 0 means 1 hour.
	OnError time.Duration
}

// heldValueMax bounds the size of a value held in memory, so that a bound on
// entries is a bound on bytes. Facts are a few hundred bytes.
const heldValueMax = 16 << 10

// Cached is a [Store] with a memory of recent reads and writes before another
// store.
//
// Writes of this process are visible to it at once, whatever the store says.
// Reads may lag behind writes of other processes by Staleness. "Not found" is
// remembered for at most a second. While the store fails, what is held is
// answered without an error, and a write the store refused is answered from
// memory and offered to the store again when it is next read.
type Cached struct {
	store Store
	o     CachedOptions

	// held is filled only under the lock of the key's stripe.
	held    *lru.Cache[string, held]
	seed    maphash.Seed
	stripes [64]stripe

	answers *prometheus.CounterVec
}

var (
	_ Store = (*Cached)(nil)
	_ Batch = (*Cached)(nil)
)

// held is one remembered answer. value is shared and never written to.
type held struct {
	value   []byte
	absent  bool      // not found, or deleted
	unsaved bool      // written here, not yet accepted by the store
	fresh   time.Time // until when the store need not be asked
	dead    time.Time // from when it must not be answered at all; zero: never
}

// stripe orders the writes to a share of the keys against reads that began
// before them: a read may be remembered only if writes has not moved.
// writes moves only under mu, and only after the write is held.
type stripe struct {
	mu     sync.Mutex
	writes atomic.Uint64
}

// NewCached returns s with a memory before it. Closing it closes s.
func NewCached(s Store, o CachedOptions) *Cached {
	cache, _ := lru.New[string, held](max(cmp.Or(o.Entries, 65536), 1)) // fails for sizes below 1 only
	o.Staleness, o.OnError = cmp.Or(o.Staleness, time.Second), cmp.Or(o.OnError, time.Hour)
	return &Cached{
		store: s,
		o:     o,
		held:  cache,
		seed:  maphash.MakeSeed(),
		answers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dray_meta_cached_reads_total",
			Help: "Reads of facts, by the source of the answer: memory, store, or bridged (memory, because the store failed).",
		}, []string{"from"}),
	}
}

// absent is the answer that there is nothing, which is remembered for at most a second.
func (f *Cached) absent(now time.Time) held {
	return held{absent: true, fresh: now.Add(min(f.o.Staleness, time.Second))}
}

func (f *Cached) stripe(key string) *stripe {
	return &f.stripes[maphash.String(f.seed, key)%uint64(len(f.stripes))]
}

// Get implements [Store].
func (f *Cached) Get(ctx context.Context, key string) ([]byte, error) {
	return f.getLeased(ctx, key, nil)
}

func (f *Cached) getLeased(ctx context.Context, key string, lease *Lease) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	now := time.Now()
	s := f.stripe(key)
	before := s.writes.Load()
	h, ok := f.held.Get(key)
	if ok && h.expired(now) {
		// A write of ours that ran out is not known to be absent: another
		// process may have written since.
		ok = false
	}
	if ok && now.Before(h.fresh) {
		lease.note(s, before, h)
		f.answers.WithLabelValues("memory").Inc()
		return h.answer()
	}
	if ok && h.unsaved {
		lease.refuse()
		f.save(ctx, key, now)
		f.answers.WithLabelValues("memory").Inc()
		return h.answer()
	}
	value, err := f.store.Get(ctx, key)
	if err != nil && !errors.Is(err, ErrNotFound) {
		lease.refuse()
		if ok && ctx.Err() == nil && !errors.Is(err, ErrClosed) {
			f.answers.WithLabelValues("bridged").Inc()
			return h.answer()
		}
		return nil, err
	}
	f.answers.WithLabelValues("store").Inc()
	h = f.readFrom(value, err, now)
	f.remember(key, h, s, before)
	lease.note(s, before, h)
	return value, err
}

func (f *Cached) readFrom(value []byte, err error, now time.Time) held {
	if err != nil {
		h := f.absent(now)
		h.dead = h.fresh
		return h
	}
	return held{value: bytes.Clone(value), fresh: now.Add(f.o.Staleness), dead: now.Add(f.o.OnError)}
}

func (h held) expired(now time.Time) bool { return !h.dead.IsZero() && !now.Before(h.dead) }

func (h held) answer() ([]byte, error) {
	if h.absent {
		return nil, ErrNotFound
	}
	return bytes.Clone(h.value), nil
}

// remember keeps what a read found unless a write came between.
func (f *Cached) remember(key string, h held, s *stripe, before uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.writes.Load() == before {
		f.putLocked(key, h)
	}
}

// putLocked needs the stripe's lock.
func (f *Cached) putLocked(key string, h held) {
	if len(h.value) > heldValueMax {
		f.held.Remove(key)
		return
	}
	f.held.Add(key, h)
}

// note records a write: before the store is asked, so that readers see it at
// once, and again after, so that a read which overtook it is not remembered.
func (f *Cached) note(key string, h held) {
	s := f.stripe(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	f.putLocked(key, h)
	s.writes.Add(1)
}

func (f *Cached) written(value []byte, ttl time.Duration, now time.Time) held {
	h := held{value: bytes.Clone(value), fresh: now.Add(f.o.Staleness)}
	switch {
	case ttl < 0:
		h = f.absent(now)
	case ttl > 0:
		h.dead = now.Add(ttl)
	}
	return h
}

// finish notes a write again once its fate is known. A deletion the store
// refused is held no longer than other failures are bridged.
func (f *Cached) finish(key string, h held, err error) {
	h.unsaved = err != nil
	switch {
	case errors.Is(err, ErrClosed):
		f.held.Remove(key)
		return
	case h.absent && !h.unsaved:
		h.dead = h.fresh
	case h.dead.IsZero() && (h.absent || !h.unsaved):
		h.dead = h.fresh.Add(f.o.OnError)
	}
	f.note(key, h)
}

// save offers an unsaved write to the store again, at most once per Staleness.
func (f *Cached) save(ctx context.Context, key string, now time.Time) {
	s := f.stripe(key)
	s.mu.Lock()
	current, ok := f.held.Peek(key)
	if !ok || !current.unsaved || now.Before(current.fresh) {
		s.mu.Unlock()
		return
	}
	current.fresh = now.Add(f.o.Staleness)
	f.putLocked(key, current)
	writes := s.writes.Add(1)
	s.mu.Unlock()

	if err := f.put(ctx, key, current, now); err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.writes.Load() == writes {
		current.unsaved = false
		f.putLocked(key, current)
	}
}

// put writes what is held, with what is left of its life.
func (f *Cached) put(ctx context.Context, key string, h held, now time.Time) error {
	if h.absent {
		return f.store.Delete(ctx, key)
	}
	var ttl time.Duration
	if !h.dead.IsZero() {
		ttl = h.dead.Sub(now)
	}
	return f.store.Put(ctx, key, h.value, ttl)
}

// Put implements [Store].
func (f *Cached) Put(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	h := f.written(value, ttl, time.Now())
	f.note(key, h)
	err := f.store.Put(ctx, key, value, ttl)
	f.finish(key, h, err)
	return err
}

// PutAll implements [Batch].
func (f *Cached) PutAll(ctx context.Context, entries []Entry, ttl time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	now := time.Now()
	for _, e := range entries {
		f.note(e.Key, f.written(e.Value, ttl, now))
	}
	err := PutAll(ctx, f.store, entries, ttl)
	for _, e := range entries {
		f.finish(e.Key, f.written(e.Value, ttl, now), err)
	}
	if err != nil {
		return fmt.Errorf("put %d entries: %w", len(entries), err)
	}
	return nil
}

// Delete implements [Store].
func (f *Cached) Delete(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	h := f.absent(time.Now())
	f.note(key, h)
	err := f.store.Delete(ctx, key)
	f.finish(key, h, err)
	return err
}

// Scan implements [Store]. It asks the store and remembers nothing.
func (f *Cached) Scan(ctx context.Context, prefix string) iter.Seq2[Entry, error] {
	return f.store.Scan(ctx, prefix)
}

// Close implements [Store].
func (f *Cached) Close() error {
	f.held.Purge()
	return f.store.Close()
}

// Collectors returns the metrics of the memory.
func (f *Cached) Collectors() []prometheus.Collector { return []prometheus.Collector{f.answers} }
