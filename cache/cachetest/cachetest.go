// Package cachetest has helpers for tests of a cache and of code that uses a cache: deterministic
// blobs, an origin that misbehaves as a test says, and a suite that checks what a cache guarantees
// to every reader.
//
// Invariants:
//   - The same seed always gives the same bytes.
//   - An origin records every call, so that a test can demand an exact list of calls.
package cachetest

import (
	"context"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/cache"
	"dray/cache/disk"
)

// Random returns n pseudo-random bytes that depend only on seed and n.
func Random(seed byte, n int) []byte {
	p := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(p) // never fails
	return p
}

// Blob returns the cache.Blob of p.
func Blob(p []byte) cache.Blob {
	return cache.Blob{Digest: digest.FromBytes(p), Size: int64(len(p))}
}

// Open opens a directory of blobs and closes it when the test ends.
func Open(t testing.TB, opts disk.Options) *disk.Dir {
	t.Helper()
	if opts.Path == "" {
		opts.Path = t.TempDir()
	}
	d, err := disk.Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return d
}

// Start opens a directory and runs a cache on it until the test ends, or until stop is called.
func Start(t testing.TB, opts cache.Options, dir disk.Options) (c *cache.Cache, stop func()) {
	t.Helper()
	opts.Disk = Open(t, dir)
	c = cache.New(opts)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(stop)
	return c, stop
}

// Origin serves Data, with faults. Its method Fetch is a [cache.Origin].
type Origin struct {
	Data []byte
	// Chunk bounds the bytes that one Read gives. Zero means no bound.
	Chunk int
	// Plan has the faults of the first call, the second, and so on. Further calls have no faults.
	Plan [][]Fault
	// At returns further faults of the request Call{start, end}. The parameter n counts the earlier
	// requests that began at the same offset. At may be nil.
	At func(start, end int64, n int) []Fault
	// Pace is how many bytes per second one body gives. Zero means no limit.
	Pace int64

	mu    sync.Mutex
	calls []Call
	open  int
	most  int
}

// Call is a request for the bytes from offset From up to offset To, or to the end if To is -1.
type Call struct{ From, To int64 }

// Fault is one way in which an origin misbehaves. Offsets are relative to the beginning of the
// whole blob.
type Fault struct {
	refuse error
	size   *int64
	whole  bool
	event  func(b *body) (handled bool, err error)
	edit   func(p []byte) []byte
}

// Refuse answers with err.
func Refuse(err error) Fault { return Fault{refuse: err} }

// Announce answers with the given size instead of the true one, or without a size if the given size
// is negative.
func Announce(size int64) Fault { return Fault{size: &size} }

// Whole ignores the requested range: it announces and sends the whole blob.
func Whole() Fault { return Fault{whole: true} }

// Cut ends the body at byte n with err. If err is io.EOF, the body seems to be complete.
func Cut(n int64, err error) Fault {
	return Fault{event: at(n, func(*body) error { return err })}
}

// Stall sends nothing after byte n until the context ends.
func Stall(n int64) Fault { return Hold(n, nil) }

// Hold sends nothing after byte n until gate is closed.
func Hold(n int64, gate <-chan struct{}) Fault {
	return Fault{event: at(n, func(b *body) error {
		select {
		case <-gate:
			return nil
		case <-b.ctx.Done():
			return context.Cause(b.ctx)
		}
	})}
}

// Flip inverts byte n.
func Flip(n int) Fault {
	return Fault{edit: func(p []byte) []byte {
		p = slices.Clone(p)
		p[n] ^= 0xff
		return p
	}}
}

// Extend gives more bytes after the end.
func Extend(more []byte) Fault {
	return Fault{edit: func(p []byte) []byte { return slices.Concat(p, more) }}
}

// [at] makes a body stop at byte n and call resume, which decides how the body continues.
func at(n int64, resume func(b *body) error) func(*body) (bool, error) {
	return func(b *body) (bool, error) {
		if b.off < n {
			b.limit = min(b.limit, n)
			return false, nil
		}
		if b.off > n {
			return false, nil
		}
		return true, resume(b)
	}
}

// Fetch is a [cache.Origin].
func (o *Origin) Fetch(ctx context.Context, from int64) (cache.Stream, error) {
	return o.answer(ctx, from, -1)
}

// Part can be the field Part of a [cache.Split].
func (o *Origin) Part(ctx context.Context, start, end int64) (cache.Stream, error) {
	return o.answer(ctx, start, end)
}

// record notes a call and returns its faults.
func (o *Origin) record(from, to int64) (faults []Fault) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if n := len(o.calls); n < len(o.Plan) {
		faults = o.Plan[n]
	}
	if o.At != nil {
		nth := 0
		for _, c := range o.calls {
			if c.From == from {
				nth++
			}
		}
		faults = append(slices.Clone(faults), o.At(from, to, nth)...)
	}
	o.calls = append(o.calls, Call{from, to})
	return faults
}

func (o *Origin) answer(ctx context.Context, from, to int64) (cache.Stream, error) {
	size, data, whole := int64(len(o.Data)), o.Data, false
	faults := o.record(from, to)
	for _, f := range faults {
		if f.refuse != nil {
			return cache.Stream{}, f.refuse
		}
		if f.size != nil {
			size = *f.size
		}
		whole = whole || f.whole
		if f.edit != nil {
			data = f.edit(data)
		}
	}
	if to >= 0 && !whole {
		data = data[:min(to, int64(len(data)))]
	}
	o.mu.Lock()
	o.open++
	o.most = max(o.most, o.open)
	o.mu.Unlock()
	s := cache.Stream{Size: size, Whole: whole && to >= 0}
	if whole {
		s.Skip = from
	}
	s.Body = &body{origin: o, ctx: ctx, faults: faults, data: data, off: from - s.Skip}
	return s, nil
}

// Calls returns the offset at which each call began, in order.
func (o *Origin) Calls() []int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	var from []int64
	for _, c := range o.calls {
		from = append(from, c.From)
	}
	return from
}

// Requests returns all calls in order.
func (o *Origin) Requests() []Call {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.calls)
}

// Most returns the greatest number of bodies that were open at the same time.
func (o *Origin) Most() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.most
}

// Unclosed returns the number of bodies that are not closed yet.
func (o *Origin) Unclosed() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.open
}

// body is one answer of an origin.
type body struct {
	origin *Origin
	ctx    context.Context
	faults []Fault
	data   []byte
	off    int64
	limit  int64
	once   sync.Once
}

func (b *body) Read(p []byte) (int, error) {
	b.limit = int64(len(b.data))
	for _, f := range b.faults {
		if f.event == nil {
			continue
		}
		if handled, err := f.event(b); handled && err != nil {
			return 0, err
		}
	}
	if b.ctx.Err() != nil {
		return 0, context.Cause(b.ctx)
	}
	if b.off >= int64(len(b.data)) {
		return 0, io.EOF
	}
	n := min(int64(len(p)), b.limit-b.off)
	if b.origin.Chunk > 0 {
		n = min(n, int64(b.origin.Chunk))
	}
	if pace := b.origin.Pace; pace > 0 {
		t := time.NewTimer(time.Duration(n) * time.Second / time.Duration(pace))
		defer t.Stop()
		select {
		case <-t.C:
		case <-b.ctx.Done():
			return 0, context.Cause(b.ctx)
		}
	}
	copy(p[:n], b.data[b.off:])
	b.off += n
	return int(n), nil
}

func (b *body) Close() error {
	b.once.Do(func() {
		b.origin.mu.Lock()
		defer b.origin.mu.Unlock()
		b.origin.open--
	})
	return nil
}

// Gated returns an origin that answers only after gate is closed.
func Gated(gate <-chan struct{}, origin cache.Origin) cache.Origin {
	return func(ctx context.Context, from int64) (cache.Stream, error) {
		select {
		case <-gate:
			return origin(ctx, from)
		case <-ctx.Done():
			return cache.Stream{}, context.Cause(ctx)
		}
	}
}
