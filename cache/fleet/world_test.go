package fleet_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"

	"dray/cache"
	"dray/cache/disk"
	"dray/cache/fleet"
	"dray/cache/fleet/fleettest"
)

const secret = "a secret of 32 characters or more"

func keysOf(t *testing.T, text string) func() *fleet.Keys {
	t.Helper()
	k, err := fleet.ParseKeys([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return func() *fleet.Keys { return k }
}

// patient never takes a slow machine for a dead member. It still asks after a short stall.
var patient = fleet.Patience{Dial: time.Minute, Stall: 100 * time.Millisecond, Begin: time.Minute, Answer: time.Minute, Store: time.Minute, Presence: time.Minute, Far: time.Minute}

// lasting returns leases that do not expire while a slow machine runs a test.
func lasting() *fleettest.Memory { return &fleettest.Memory{TTL: time.Hour} }

// member is a member with a cache and a listener of its own.
type member struct {
	*fleet.Fleet
	testing.TB
	cache *cache.Cache
	info  fleet.Member
	// down makes the listener and its connections end at once, like a killed process.
	down func()
	// split has blobs fetched in parts.
	split  bool
	bucket *bucket
}

// start starts a member. The function edit may change its options.
func start(t testing.TB, leases fleet.Leases, id string, edit func(*fleet.Options)) *member {
	t.Helper()
	d, err := disk.Open(disk.Options{Path: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	m := &member{TB: t, cache: cache.New(cache.Options{Disk: d})}
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln := &fleettest.Listener{Listener: inner}
	keys, err := fleet.ParseKeys([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	m.info = fleet.Member{ID: id, Address: ln.Addr().String()}
	o := fleet.Options{Self: m.info, Leases: leases, Cache: m.cache, Keys: func() *fleet.Keys { return keys }, Patience: patient}
	if edit != nil {
		edit(&o)
	}
	m.Fleet = fleet.New(o)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- m.cache.Run(ctx) }()
	go func() { done <- m.Serve(ctx, ln) }()
	m.down = ln.Kill
	t.Cleanup(func() {
		stop()
		ln.Kill()
		for range 2 {
			if err := <-done; err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		}
		m.Client().CloseIdleConnections()
		d.Close()
	})
	return m
}

// registry gives one blob, up to a gate, and counts the bytes that it gives.
type registry struct {
	blob   []byte
	digest digest.Digest
	sent   atomic.Int64
	asked  atomic.Int64

	mu   sync.Mutex
	gate int64 // no byte from here on is given
	also int64 // but from here on, if it is not 0
	more chan struct{}
}

func newRegistry(size int) *registry {
	r := &registry{blob: make([]byte, size), more: make(chan struct{})}
	rnd := rand.New(rand.NewPCG(1, uint64(size)))
	for i := range r.blob {
		r.blob[i] = byte(rnd.Uint32())
	}
	r.digest = digest.FromBytes(r.blob)
	return r
}

// open moves the gate.
func (r *registry) open(to int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gate = to
	close(r.more)
	r.more = make(chan struct{})
}

func (r *registry) openAll() { r.open(int64(len(r.blob))) }

// part gives the bytes from one offset to another; to 0 means the end.
func (r *registry) part(ctx context.Context, from, to int64) (cache.Stream, error) {
	r.asked.Add(1)
	size := int64(len(r.blob))
	return cache.Stream{Body: &answer{r, ctx, from, cmp.Or(to, size)}, Size: size, End: to % size}, nil
}

type answer struct {
	*registry
	ctx      context.Context
	off, end int64
}

func (a *answer) Read(p []byte) (int, error) {
	for {
		a.mu.Lock()
		gate, more := a.gate, a.more
		if a.also > 0 && a.off >= a.also {
			gate = a.end
		}
		a.mu.Unlock()
		if a.off == a.end {
			return 0, io.EOF
		}
		if n := copy(p, a.blob[a.off:max(min(gate, a.end), a.off)]); n > 0 {
			a.off += int64(n)
			a.sent.Add(int64(n))
			return n, nil
		}
		select {
		case <-more:
		case <-a.ctx.Done():
			return 0, context.Cause(a.ctx)
		}
	}
}

func (a *answer) Close() error { return nil }

// get opens a blob through the fleet.
func (m *member) get(ctx context.Context, r *registry) (*cache.Reader, error) {
	share := m.Share(r.digest, m.bucket != nil)
	b := cache.Blob{Digest: r.digest, Size: int64(len(r.blob)), Observer: observer{share}}
	open := func(ctx context.Context, from, to int64, on bool) (cache.Stream, error) {
		w := fleet.Want{From: from, To: to, On: on, Most: b.Size}
		s, until, err := share.Open(ctx, w)
		if errors.Is(err, fleet.ErrFinished) {
			if m.bucket.holds.Load() {
				return m.bucket.part(ctx, from, to)
			}
			share.NoBucket()
			s, until, err = share.Open(ctx, w)
		}
		if errors.Is(err, fleet.ErrRegistry) {
			return r.part(ctx, from, until)
		}
		return s, err
	}
	if m.split {
		b.Split = &cache.Split{Threshold: 1, Piece: pieceSize, Streams: 3, Slots: cache.NewSlots(16),
			Part:  func(ctx context.Context, from, to int64) (cache.Stream, error) { return open(ctx, from, to, false) },
			First: func(ctx context.Context, from, to int64) (cache.Stream, error) { return open(ctx, from, to, true) },
		}
	}
	return m.cache.Open(ctx, b, func(ctx context.Context, from int64) (cache.Stream, error) { return open(ctx, from, 0, false) })
}

// observer tells a share how a fetch has ended.
type observer struct{ *fleet.Share }

func (observer) Joined(cache.Observer) {}

// pieceSize is the length of a part of a blob that is fetched in parts.
const pieceSize = 128 << 10

// bucket is one that may have the blob of a registry.
type bucket struct {
	*registry
	holds atomic.Bool
}

// pull is a client that reads a blob.
type pull struct {
	*member
	*registry
	read atomic.Int64
	done chan error
}

// pull starts a client. It has opened the blob when pull returns.
func (m *member) pull(r *registry) *pull {
	p := &pull{member: m, registry: r, done: make(chan error, 1)}
	go func() {
		content, err := m.get(m.Context(), r)
		if err != nil {
			p.done <- err
			return
		}
		defer content.Close()
		var got bytes.Buffer
		buf := make([]byte, 16<<10)
		for err == nil {
			var n int
			n, err = content.Read(buf)
			got.Write(buf[:n])
			p.read.Add(int64(n))
		}
		if err == io.EOF && !bytes.Equal(got.Bytes(), r.blob) {
			err = errors.New("wrong bytes")
		}
		p.done <- err
	}()
	return p
}

// reaches waits until the client has read so much.
func (p *pull) reaches(n int64) {
	p.Helper()
	eventually(p.TB, fmt.Sprint(n, " bytes"), func() bool { return p.read.Load() >= n })
}

// ends waits for the end of the client, who must have got the blob.
func (p *pull) ends() {
	p.Helper()
	if err := <-p.done; err != io.EOF {
		p.Fatalf("%s: %v", p.info.ID, err)
	}
}

// eventually waits for a condition. The bound is for a test that fails.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %s", what)
		}
	}
}

// value returns the sum of a metric over the labels that begin with what.
func (m *member) value(name, label string) (sum float64) {
	m.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(m.Collectors()...)
	families, err := reg.Gather()
	if err != nil {
		m.Fatal(err)
	}
	for _, f := range families {
		for _, v := range f.GetMetric() {
			if f.GetName() == name && (label == "" || v.GetLabel()[0].GetValue() == label) {
				sum += v.GetCounter().GetValue() + v.GetGauge().GetValue()
			}
		}
	}
	return sum
}

func several(t testing.TB, leases fleet.Leases, n int) (all []*member) {
	for i := range n {
		all = append(all, start(t, leases, fmt.Sprint("member ", i), nil))
	}
	return all
}

const mib = 1 << 20

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
