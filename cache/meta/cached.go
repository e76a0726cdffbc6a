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
	// Entries bounds the number of entries in memory; 0 means 65536.
	Entries int
	// Staleness is how long reads get an entry from memory before the store is asked again; 0 means 1
	// second. So reads may notice an expiry, or a write of another process, with this delay.
	Staleness time.Duration
	// OnError is how long, at most, reads get an entry of the store from memory while the store fails;
	// 0 means 1 hour.
	OnError time.Duration
}

// heldValueMax is the size of the largest value that is kept in memory. So the bound on the number
// of entries also bounds the bytes. A fact has a few hundred bytes.
const heldValueMax = 16 << 10

// Cached is a [Store] that keeps recent reads and writes of another store in memory.
//
// Writes of this process are visible to it at once, even if the store fails. Reads may lag behind
// writes of other processes by Staleness. The answer "not found" of the store is remembered for at
// most a second. While the store fails, reads get the entries that are in memory, without an error.
// If a write failed, reads get the written value from memory, and send it to the store again, at
// most once per Staleness.
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

// held is one remembered answer. Several goroutines share value, so its bytes never change.
type held struct {
	value      []byte
	absent     bool      // not found, or deleted
	unsaved    bool      // this process wrote the entry, and the store has not accepted it
	freshUntil time.Time // until then the store need not be asked
	validUntil time.Time // until then the entry may be the answer; zero means forever
}

// stripe counts the writes to some of the keys. The answer of a read is remembered only if the
// count has not changed since the read began. Otherwise an answer from before a write could replace
// the written value. The count changes only under mu, and only after the written value is in
// Cached.held.
type stripe struct {
	mu     sync.Mutex
	writes atomic.Uint64
}

// NewCached returns s with a memory in front of it. Close also closes s.
func NewCached(s Store, o CachedOptions) *Cached {
	cache, _ := lru.New[string, held](max(cmp.Or(o.Entries, 65536), 1)) // fails only for sizes below 1
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

// absent returns the answer "not found", which is fresh for at most a second.
func (c *Cached) absent(now time.Time) held {
	return held{absent: true, freshUntil: now.Add(min(c.o.Staleness, time.Second))}
}

func (c *Cached) stripe(key string) *stripe {
	return &c.stripes[maphash.String(c.seed, key)%uint64(len(c.stripes))]
}

// Get implements [Store].
func (c *Cached) Get(ctx context.Context, key string) ([]byte, error) {
	return c.getLeased(ctx, key, nil)
}

func (c *Cached) getLeased(ctx context.Context, key string, lease *Lease) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	now := time.Now()
	s := c.stripe(key)
	before := s.writes.Load()
	h, ok := c.held.Get(key)
	if ok && h.expired(now) {
		// An expired write of this process does not mean that the entry is absent: another process may
		// have written it since.
		ok = false
	}
	if ok && now.Before(h.freshUntil) {
		lease.cover(s, before, h)
		c.answers.WithLabelValues("memory").Inc()
		return h.answer()
	}
	if ok && h.unsaved {
		lease.revoke()
		c.save(ctx, key, now)
		c.answers.WithLabelValues("memory").Inc()
		return h.answer()
	}
	value, err := c.store.Get(ctx, key)
	if err != nil && !errors.Is(err, ErrNotFound) {
		lease.revoke()
		if ok && ctx.Err() == nil && !errors.Is(err, ErrClosed) {
			c.answers.WithLabelValues("bridged").Inc()
			return h.answer()
		}
		return nil, err
	}
	c.answers.WithLabelValues("store").Inc()
	h = c.readFrom(value, err, now)
	c.remember(key, h, s, before)
	lease.cover(s, before, h)
	return value, err
}

func (c *Cached) readFrom(value []byte, err error, now time.Time) held {
	if err != nil {
		h := c.absent(now)
		h.validUntil = h.freshUntil
		return h
	}
	return held{value: bytes.Clone(value), freshUntil: now.Add(c.o.Staleness), validUntil: now.Add(c.o.OnError)}
}

func (h held) expired(now time.Time) bool { return !h.validUntil.IsZero() && !now.Before(h.validUntil) }

func (h held) answer() ([]byte, error) {
	if h.absent {
		return nil, ErrNotFound
	}
	return bytes.Clone(h.value), nil
}

// remember keeps the answer of a read, unless the stripe has seen a write since the read began.
func (c *Cached) remember(key string, h held, s *stripe, before uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.writes.Load() == before {
		c.putLocked(key, h)
	}
}

// putLocked keeps an answer unless it is too large. It needs the stripe's lock.
func (c *Cached) putLocked(key string, h held) {
	if len(h.value) > heldValueMax {
		c.held.Remove(key)
		return
	}
	c.held.Add(key, h)
}

// noteWrite records a write. It is called before the store is asked, so that readers see the write
// at once. It is called again after the store has answered, so that the answer of a read during the
// write is not remembered.
func (c *Cached) noteWrite(key string, h held) {
	s := c.stripe(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	c.putLocked(key, h)
	s.writes.Add(1)
}

func (c *Cached) written(value []byte, ttl time.Duration, now time.Time) held {
	h := held{value: bytes.Clone(value), freshUntil: now.Add(c.o.Staleness)}
	switch {
	case ttl < 0:
		h = c.absent(now)
	case ttl > 0:
		h.validUntil = now.Add(ttl)
	}
	return h
}

// finishWrite records a write again when the store has accepted it or failed. If the store failed,
// a deletion is remembered for OnError, and a value until its expiry.
func (c *Cached) finishWrite(key string, h held, err error) {
	h.unsaved = err != nil
	switch {
	case errors.Is(err, ErrClosed):
		c.held.Remove(key)
		return
	case h.absent && !h.unsaved:
		h.validUntil = h.freshUntil
	case h.validUntil.IsZero() && (h.absent || !h.unsaved):
		h.validUntil = h.freshUntil.Add(c.o.OnError)
	}
	c.noteWrite(key, h)
}

// save sends an unsaved write to the store again, at most once per Staleness.
func (c *Cached) save(ctx context.Context, key string, now time.Time) {
	s := c.stripe(key)
	s.mu.Lock()
	current, ok := c.held.Peek(key)
	if !ok || !current.unsaved || now.Before(current.freshUntil) {
		s.mu.Unlock()
		return
	}
	current.freshUntil = now.Add(c.o.Staleness)
	c.putLocked(key, current)
	writes := s.writes.Add(1)
	s.mu.Unlock()

	if err := c.put(ctx, key, current, now); err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.writes.Load() == writes {
		current.unsaved = false
		c.putLocked(key, current)
	}
}

// put writes a held entry to the store with the remaining ttl. If h is absent, put deletes the
// entry.
func (c *Cached) put(ctx context.Context, key string, h held, now time.Time) error {
	if h.absent {
		return c.store.Delete(ctx, key)
	}
	var ttl time.Duration
	if !h.validUntil.IsZero() {
		ttl = h.validUntil.Sub(now)
	}
	return c.store.Put(ctx, key, h.value, ttl)
}

// Put implements [Store].
func (c *Cached) Put(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	h := c.written(value, ttl, time.Now())
	c.noteWrite(key, h)
	err := c.store.Put(ctx, key, value, ttl)
	c.finishWrite(key, h, err)
	return err
}

// PutAll implements [Batch].
func (c *Cached) PutAll(ctx context.Context, entries []Entry, ttl time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	now := time.Now()
	for _, e := range entries {
		c.noteWrite(e.Key, c.written(e.Value, ttl, now))
	}
	err := PutAll(ctx, c.store, entries, ttl)
	for _, e := range entries {
		c.finishWrite(e.Key, c.written(e.Value, ttl, now), err)
	}
	if err != nil {
		return fmt.Errorf("put %d entries: %w", len(entries), err)
	}
	return nil
}

// Delete implements [Store].
func (c *Cached) Delete(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	h := c.absent(time.Now())
	c.noteWrite(key, h)
	err := c.store.Delete(ctx, key)
	c.finishWrite(key, h, err)
	return err
}

// Scan implements [Store]. It asks the store and remembers nothing.
func (c *Cached) Scan(ctx context.Context, prefix string) iter.Seq2[Entry, error] {
	return c.store.Scan(ctx, prefix)
}

// Close implements [Store].
func (c *Cached) Close() error {
	c.held.Purge()
	return c.store.Close()
}

// Collectors returns the metrics of the memory.
func (c *Cached) Collectors() []prometheus.Collector { return []prometheus.Collector{c.answers} }
