// Package metatest has a suite of tests that every metadata store must pass. For other tests it has
// a store in memory, a store that fails on request, and a redis-server.
package metatest

import (
	"bytes"
	"context"
	"iter"
	"strings"
	"sync"
	"time"

	"dray/cache/meta"
)

// Memory is a [meta.Store] in memory.
type Memory struct {
	mu      sync.Mutex
	entries map[string]entry
	closed  bool
}

type entry struct {
	value   []byte
	expires time.Time // zero means never
}

var (
	_ meta.Store   = (*Memory)(nil)
	_ meta.Swapper = (*Memory)(nil)
)

// NewMemory returns an empty store.
func NewMemory() *Memory { return &Memory{entries: map[string]entry{}} }

// [Memory.usable] returns an error if the store is closed or ctx has ended. The caller holds m.mu.
func (m *Memory) usable(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if m.closed {
		return meta.ErrClosed
	}
	return nil
}

func (e entry) living() bool { return e.expires.IsZero() || time.Now().Before(e.expires) }

// Get implements [meta.Store].
func (m *Memory) Get(ctx context.Context, key string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(ctx); err != nil {
		return nil, err
	}
	e, ok := m.entries[key]
	if !ok || !e.living() {
		return nil, meta.ErrNotFound
	}
	return bytes.Clone(e.value), nil
}

// Put implements [meta.Store].
func (m *Memory) Put(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(ctx); err != nil {
		return err
	}
	m.put(key, value, ttl)
	return nil
}

// put is Put for callers that hold m.mu.
func (m *Memory) put(key string, value []byte, ttl time.Duration) {
	e := entry{value: bytes.Clone(value)}
	if ttl != 0 {
		e.expires = time.Now().Add(ttl)
	}
	m.entries[key] = e
}

// Swap implements [meta.Swapper].
func (m *Memory) Swap(ctx context.Context, writes []meta.Write, snapshot []meta.Seen) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(ctx); err != nil {
		return false, err
	}
	for _, s := range snapshot {
		e, ok := m.entries[s.Key]
		if found := ok && e.living(); found != s.Found || found && !bytes.Equal(e.value, s.Value) {
			return false, nil
		}
	}
	for _, w := range writes {
		m.put(w.Key, w.Value, w.TTL)
	}
	return true, nil
}

// Delete implements [meta.Store].
func (m *Memory) Delete(ctx context.Context, key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(ctx); err != nil {
		return err
	}
	delete(m.entries, key)
	return nil
}

// Scan implements [meta.Store].
func (m *Memory) Scan(ctx context.Context, prefix string) iter.Seq2[meta.Entry, error] {
	return func(yield func(meta.Entry, error) bool) {
		found, err := m.matching(ctx, prefix)
		if err != nil {
			yield(meta.Entry{}, err)
			return
		}
		for _, e := range found {
			if err := ctx.Err(); err != nil {
				yield(meta.Entry{}, err)
				return
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

func (m *Memory) matching(ctx context.Context, prefix string) ([]meta.Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(ctx); err != nil {
		return nil, err
	}
	var found []meta.Entry
	for k, e := range m.entries {
		if strings.HasPrefix(k, prefix) && e.living() {
			found = append(found, meta.Entry{Key: k, Value: bytes.Clone(e.value)})
		}
	}
	return found, nil
}

// Close implements [meta.Store].
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

// Faulty is a [meta.Store] that counts its calls and fails on request.
type Faulty struct {
	meta.Store

	mu    sync.Mutex
	err   error
	delay time.Duration
	calls map[string]int
}

// NewFaulty returns a Faulty on top of s. It works until Fail is called.
func NewFaulty(s meta.Store) *Faulty { return &Faulty{Store: s, calls: map[string]int{}} }

// Fail makes every later call but Close wait for the given delay, and then fail with err. If err is
// nil, the calls work after the wait. A call whose context ends during the wait returns the error
// of the context.
func (f *Faulty) Fail(err error, delay time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err, f.delay = err, delay
}

// Calls returns the number of calls of an operation: get, put, delete or scan.
func (f *Faulty) Calls(op string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[op]
}

func (f *Faulty) call(ctx context.Context, op string) error {
	f.mu.Lock()
	f.calls[op]++
	err, delay := f.err, f.delay
	f.mu.Unlock()
	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return err
}

// Get implements [meta.Store].
func (f *Faulty) Get(ctx context.Context, key string) ([]byte, error) {
	if err := f.call(ctx, "get"); err != nil {
		return nil, err
	}
	return f.Store.Get(ctx, key)
}

// Put implements [meta.Store].
func (f *Faulty) Put(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	if err := f.call(ctx, "put"); err != nil {
		return err
	}
	return f.Store.Put(ctx, key, value, ttl)
}

// Delete implements [meta.Store].
func (f *Faulty) Delete(ctx context.Context, key string) error {
	if err := f.call(ctx, "delete"); err != nil {
		return err
	}
	return f.Store.Delete(ctx, key)
}

// Scan implements [meta.Store].
func (f *Faulty) Scan(ctx context.Context, prefix string) iter.Seq2[meta.Entry, error] {
	return func(yield func(meta.Entry, error) bool) {
		if err := f.call(ctx, "scan"); err != nil {
			yield(meta.Entry{}, err)
			return
		}
		for e, err := range f.Store.Scan(ctx, prefix) {
			if !yield(e, err) {
				return
			}
		}
	}
}
