package meta

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/maphash"
	"iter"
	"log/slog"
	"slices"
	"strings"
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
	// Staleness is how long reads get an entry from memory before they ask the store again; 0 means 1
	// second. Within this time, reads may still get an entry that has expired or that another process
	// has replaced.
	Staleness time.Duration
	// OnError is the age up to which reads get an entry from memory while the store fails. The age
	// counts from the moment when the entry was read from the store. 0 means 1 hour. If this process
	// has written the entry with a TTL, and has not read it from the store since, the bound is the
	// TTL instead.
	OnError time.Duration
	// Logger gets a line when the store has refused more deletions and epochs (see epoch.go) than Run
	// can send again; nil discards it.
	Logger *slog.Logger
}

// heldValueMax is the size of the largest value that is kept in memory. So the bound on the number
// of entries also bounds the bytes. A fact has a few hundred bytes.
const heldValueMax = 16 << 10

// Cached is a [Store] that keeps recent reads and writes of another store in memory.
//
// Writes of this process are visible to it at once, even if the store fails. Reads may lag behind
// writes of other processes by Staleness. The answer "not found" of the store is remembered for at
// most a second. While the store fails, reads get the entries that are in memory, without an error.
//
// If a write failed, reads get the written value from memory while the store fails. When the store
// answers again, Cached drops the value and never sends it, because other processes may have
// written a newer value. Under some keys it matters which value is newer (see [ordered]). Under
// such a key, reads of this process find nothing after the drop. This ends when a write of this
// process succeeds, and after OnError at the latest. Run repeats failed deletions and epochs: they
// cannot restore an old value, and other processes must not miss them.
type Cached struct {
	store Store
	o     CachedOptions

	// held is filled only under the lock of the key's stripe.
	held    *lru.Cache[string, held]
	seed    maphash.Seed
	stripes [64]stripe
	clock   clock
	again   again
	process string // names this process in epochs

	answers *prometheus.CounterVec
}

var (
	_ Store   = (*Cached)(nil)
	_ Batch   = (*Cached)(nil)
	_ Swapper = (*Cached)(nil)
	_ Clocked = (*Cached)(nil)
)

// held is one remembered answer. Several goroutines share value, so its bytes never change.
type held struct {
	value      []byte
	absent     bool      // not found, or deleted
	refused    bool      // the store has refused the last write of this process
	deletion   bool      // that refused write was a deletion
	freshUntil time.Time // until then the store need not be asked
	validUntil time.Time // until then reads may get this answer; zero means forever
}

// stripe counts the writes to some of the keys. The answer of a read is remembered only if the
// count has not changed since the read began. Without this rule, an answer from before a write
// could replace the written value. The count changes only under mu, and only after the written
// value is in Cached.held.
type stripe struct {
	mu     sync.Mutex
	writes atomic.Uint64
}

// NewCached returns s with a memory in front of it. Close also closes s.
func NewCached(s Store, o CachedOptions) *Cached {
	cache, _ := lru.New[string, held](max(cmp.Or(o.Entries, 65536), 1)) // fails only for sizes below 1
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	o.Staleness, o.OnError = cmp.Or(o.Staleness, time.Second), cmp.Or(o.OnError, time.Hour)
	return &Cached{
		store: s,
		o:     o,
		held:  cache,
		seed:  maphash.MakeSeed(),
		again: newAgain(), process: rand.Text(),
		answers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dray_meta_cached_reads_total",
			Help: "Reads of facts, by the source of the answer: memory, store, or bridged (memory, because the store failed).",
		}, []string{"from"}),
	}
}

// processOf returns the name of this process in epochs. It is empty for a store without a [Cached],
// because no other process shares such a store.
func processOf(s Store) string {
	if s, ok := s.(interface{ processName() string }); ok {
		return s.processName()
	}
	return ""
}

func (c *Cached) processName() string { return c.process }

// [Cached.absent] returns the answer "not found", which is fresh for at most a second.
func (c *Cached) absent(now time.Time) held {
	return held{absent: true, freshUntil: now.Add(min(c.o.Staleness, time.Second)), validUntil: now.Add(c.o.OnError)}
}

func (c *Cached) stripe(key string) *stripe {
	return &c.stripes[maphash.String(c.seed, key)%uint64(len(c.stripes))]
}

// Get implements [Store].
func (c *Cached) Get(ctx context.Context, key string) ([]byte, error) {
	return c.getLeased(ctx, key, nil)
}

func (c *Cached) getLeased(ctx context.Context, key string, lease *Lease) ([]byte, error) {
	all, err := c.getAllLeased(ctx, []string{key}, lease)
	if err != nil {
		return nil, err
	}
	if !all[0].Found {
		return nil, ErrNotFound
	}
	return all[0].Value, nil
}

// GetAll implements [Batch].
func (c *Cached) GetAll(ctx context.Context, keys []string) ([]Seen, error) {
	return c.getAllLeased(ctx, keys, nil)
}

func (c *Cached) getAllLeased(ctx context.Context, keys []string, lease *Lease) ([]Seen, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	all := make([]Seen, len(keys))
	var missing []recalled
	var at []int
	now := time.Now()
	for i, k := range keys {
		m := c.recall(k, now)
		if !m.sure {
			missing, at = append(missing, m), append(at, i)
			continue
		}
		if m.dropped() {
			lease.revoke()
		} else {
			lease.cover(m.stripe, m.writes, m.held)
		}
		c.answers.WithLabelValues("memory").Inc()
		all[i] = m.seen()
	}
	if len(missing) == 0 {
		return all, nil
	}
	asked, err := c.ask(ctx, missing, lease)
	if err != nil {
		if errors.Is(err, ErrClosed) || ctx.Err() != nil || slices.ContainsFunc(missing, func(m recalled) bool { return !m.known }) {
			return nil, err
		}
		c.answers.WithLabelValues("bridged").Add(float64(len(missing)))
	}
	for i, seen := range asked {
		if all[at[i]] = seen; seen.Refused && err == nil {
			all[at[i]] = Seen{Entry: Entry{Key: seen.Key}, Refused: true}
		}
	}
	return all, nil
}

// Reread reads the entries under the keys from the store, and not from the memory of a [Cached]. If
// the store fails, it returns the entries in memory together with the error.
func Reread(ctx context.Context, s Store, keys []string) ([]Seen, error) {
	if s, ok := s.(interface {
		reread(ctx context.Context, keys []string) ([]Seen, error)
	}); ok {
		return s.reread(ctx, keys)
	}
	return GetAll(ctx, s, keys)
}

func (c *Cached) reread(ctx context.Context, keys []string) ([]Seen, error) {
	all := make([]recalled, len(keys))
	now := time.Now()
	for i, k := range keys {
		all[i] = c.recall(k, now)
	}
	return c.ask(ctx, all, nil)
}

// recalled is the answer in memory under a key.
type recalled struct {
	key string
	held
	known  bool // memory has an answer that has not expired
	sure   bool // the store need not be asked
	stripe *stripe
	writes uint64 // the count of the stripe before the read
	now    time.Time
}

func (c *Cached) recall(key string, now time.Time) recalled {
	s := c.stripe(key)
	m := recalled{key: key, stripe: s, writes: s.writes.Load(), now: now}
	m.held, m.known = c.held.Get(key)
	// An expired write of this process does not mean that the entry is absent: another process may
	// have written it since.
	m.known = m.known && !m.expired(now)
	m.sure = m.known && (now.Before(m.freshUntil) || m.dropped())
	return m
}

// [held.dropped] reports whether the value of a refused write was dropped. That happens when the
// store answers again.
func (h held) dropped() bool { return h.refused && h.absent && !h.deletion }

func (m recalled) seen() Seen {
	s := Seen{Entry: Entry{Key: m.key}, Found: m.known && !m.absent, Refused: m.known && m.refused}
	if s.Found {
		s.Value = bytes.Clone(m.value)
	}
	return s
}

// ask asks the store for keys, and remembers its answers. If the store fails, ask returns the
// answers in memory together with the error. The field Refused of the result concerns keys whose
// last write the store refused. If the store fails now, ask sets Refused for all of these keys. If
// the store answers, ask sets it only for keys that are ordered, or whose last write was a
// deletion.
func (c *Cached) ask(ctx context.Context, all []recalled, lease *Lease) ([]Seen, error) {
	keys := make([]string, len(all))
	for i := range all {
		keys[i] = all[i].key
	}
	seen, err := GetAll(ctx, c.store, keys)
	if err != nil {
		lease.revoke()
		seen = make([]Seen, len(all))
		for i, m := range all {
			seen[i] = m.seen()
		}
		return seen, err
	}
	c.answers.WithLabelValues("store").Add(float64(len(all)))
	for i, m := range all {
		if m.known && m.refused && (m.deletion || ordered(m.key)) {
			lease.revoke()
			if seen[i].Refused = true; !m.deletion { // Run sends a deletion again
				c.remember(m.key, held{absent: true, refused: true, validUntil: m.now.Add(c.o.OnError)}, m.stripe, m.writes)
			}
			continue
		}
		h := c.readFrom(seen[i], m.now)
		c.remember(m.key, h, m.stripe, m.writes)
		lease.cover(m.stripe, m.writes, h)
	}
	return seen, nil
}

// [ordered] reports whether it matters which of two values under a key is newer. It matters for
// answers about tags, for negative facts ([Absences]) and for epochs. In the other spaces, a value
// is right as long as nobody deletes it. So the value in the store is right even if the store has
// refused a later write.
func ordered(key string) bool {
	return !slices.ContainsFunc([]string{linkSpace, presenceSpace, homeSpace, transitSpace, touchSpace, verdictSpace, baseSpace}, func(space string) bool { return strings.HasPrefix(key, space) })
}

func (c *Cached) readFrom(s Seen, now time.Time) held {
	if !s.Found {
		return c.absent(now)
	}
	return held{value: bytes.Clone(s.Value), freshUntil: now.Add(c.o.Staleness), validUntil: now.Add(c.o.OnError)}
}

func (h held) expired(now time.Time) bool { return !h.validUntil.IsZero() && !now.Before(h.validUntil) }

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

// noteWrite records a write. Writers call it before they write to the store, so that readers see
// the write at once. They call it again after the store has answered, so that the answer of a read
// during the write is not remembered.
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

// finishWrite records a write again when the store has accepted it or failed.
func (c *Cached) finishWrite(key string, h held, err error) {
	h.refused = err != nil
	h.deletion = h.refused && h.absent
	switch {
	case errors.Is(err, ErrClosed):
		c.held.Remove(key)
		return
	case h.validUntil.IsZero():
		h.validUntil = h.freshUntil.Add(c.o.OnError)
	}
	c.noteWrite(key, h)
	if h.refused && (h.deletion || isEpoch(key)) {
		if c.again.add(key) {
			c.o.Logger.Warn("the metadata store refused more facts than dray can send again; other mirrors may use old facts about these tags until they ask the registry",
				"kept", maxAgain)
		}
	} else {
		c.again.remove(key)
	}
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

// Swap implements [Swapper]. If the store fails, Swap compares with the memory of this process, and
// keeps the entries only there.
func (c *Cached) Swap(ctx context.Context, writes []Write, snapshot []Seen) (ok bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	now := time.Now()
	// If Clock fails, the clock of this process may have dated the entries. Other machines must not
	// see such dates, so Swap does not send the entries to the store.
	if _, _, err = c.Clock(ctx); err == nil {
		ok, err = Swap(ctx, c.store, writes, snapshot)
	}
	switch {
	case err != nil && !c.recalls(snapshot, now):
		return false, err
	case err == nil && !ok:
		for _, s := range snapshot {
			c.forget(s.Key)
		}
		return false, nil
	}
	for _, w := range writes {
		c.finishWrite(w.Key, c.written(w.Value, w.TTL, now), err)
	}
	return true, err
}

// recalls reports whether all answers in memory agree with snapshot.
func (c *Cached) recalls(snapshot []Seen, now time.Time) bool {
	return !slices.ContainsFunc(snapshot, func(s Seen) bool {
		m := c.recall(s.Key, now)
		return m.known && !m.seen().same(s)
	})
}

// forget makes the next read of a key ask the store, unless the last write was refused.
func (c *Cached) forget(key string) {
	s := c.stripe(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if h, ok := c.held.Peek(key); ok && !h.refused {
		c.held.Remove(key)
	}
	s.writes.Add(1)
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
