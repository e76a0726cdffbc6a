package fleet_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
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
var patient = fleet.Patience{Dial: time.Minute, Stall: 20 * time.Millisecond, Begin: time.Minute, Answer: time.Minute, Store: time.Minute}

// member is a member with a cache and a listener of its own.
type member struct {
	*fleet.Fleet
	testing.TB
	cache *cache.Cache
	info  fleet.Member
	// down makes the listener and its connections end at once, like a killed process.
	down func()
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
	ln := &killable{Listener: inner}
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
	m.down = ln.kill
	t.Cleanup(func() {
		stop()
		ln.kill()
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

// killable is a listener that can end with all its connections.
type killable struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn
	dead  bool
}

func (k *killable) Accept() (net.Conn, error) {
	c, err := k.Listener.Accept()
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.dead {
		c.Close()
		return nil, net.ErrClosed
	}
	k.conns = append(k.conns, c)
	return c, nil
}

func (k *killable) kill() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dead = true
	k.Close()
	for _, c := range k.conns {
		c.Close()
	}
}

// registry gives one blob, up to a gate, and counts the bytes that it gives.
type registry struct {
	blob   []byte
	digest digest.Digest
	sent   atomic.Int64
	asked  atomic.Int64

	mu   sync.Mutex
	gate int64 // no byte from here on is given
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

// origin is a [cache.Origin].
func (r *registry) origin(ctx context.Context, from int64) (cache.Stream, error) {
	r.asked.Add(1)
	return cache.Stream{Body: &answer{r, ctx, from}, Size: int64(len(r.blob))}, nil
}

type answer struct {
	*registry
	ctx context.Context
	off int64
}

func (a *answer) Read(p []byte) (int, error) {
	for {
		a.mu.Lock()
		gate, more := a.gate, a.more
		a.mu.Unlock()
		if a.off == int64(len(a.blob)) {
			return 0, io.EOF
		}
		if n := copy(p, a.blob[a.off:max(gate, a.off)]); n > 0 {
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
	size := int64(len(r.blob))
	share := m.Share(r.digest)
	return m.cache.Open(ctx, cache.Blob{Digest: r.digest, Size: size, Observer: share}, func(ctx context.Context, from int64) (cache.Stream, error) {
		if s, ok := share.Open(ctx, from, size); ok {
			return s, nil
		}
		return r.origin(ctx, from)
	})
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

// TestOneFetch has clients of all members read a blob while it arrives. The registry is asked once,
// and each client has bytes before the registry has sent the rest.
func TestOneFetch(t *testing.T) {
	for _, n := range []int{2, 5} {
		r := newRegistry(3*mib + 17)
		var pulls []*pull
		for _, m := range several(t, &fleettest.Memory{}, n) {
			pulls = append(pulls, m.pull(r), m.pull(r))
		}
		for at := int64(0); at < 3*mib; at += mib {
			r.open(at + mib)
			for _, p := range pulls {
				p.reaches(at + mib/2)
			}
		}
		r.openAll()
		for _, p := range pulls {
			p.ends()
		}
		if sent := r.sent.Load(); sent != int64(len(r.blob)) || r.asked.Load() != 1 {
			t.Errorf("%d members: the registry was asked %d times and sent %d bytes of %d", n, r.asked.Load(), sent, len(r.blob))
		}
	}
}

// TestFinished has a member ask for a blob that another one has fetched a while ago.
func TestFinished(t *testing.T) {
	leases := &fleettest.Memory{}
	all := several(t, leases, 2)
	r := newRegistry(mib)
	r.openAll()
	all[0].pull(r).ends()
	all[0].Tick()
	all[1].pull(r).ends()
	if r.asked.Load() != 1 {
		t.Errorf("the registry was asked %d times", r.asked.Load())
	}
	if n := all[1].value("dray_fleet_received_bytes_total", "same"); n != mib {
		t.Errorf("%v bytes were counted", n)
	}
	if err := all[0].cache.Delete(t.Context(), r.digest); err != nil {
		t.Fatal(err)
	}
	all[0].Tick() // gives the lease up
	if n := all[0].value("dray_fleet_leases", ""); n != 0 {
		t.Errorf("%v leases of blobs that are gone", n)
	}
	third := start(t, leases, "third", nil)
	third.pull(r).ends()
	if r.asked.Load() != 2 || third.value("dray_fleet_takeovers_total", "") != 0 {
		t.Errorf("the registry was asked %d times", r.asked.Load())
	}
}

// TestHolderDies kills the holder in the middle of a blob. The registry is asked for the rest
// alone, by one of the others.
func TestHolderDies(t *testing.T) {
	all := several(t, &fleettest.Memory{}, 3)
	r := newRegistry(4 * mib)
	r.open(2 * mib)
	all[0].pull(r)
	eventually(t, "request", func() bool { return r.asked.Load() == 1 })
	followers := []*pull{all[1].pull(r), all[2].pull(r)}
	for _, p := range followers {
		p.reaches(2*mib - 64<<10) // a reader lags behind by the step of waking at most
	}
	all[0].down()
	eventually(t, "second request", func() bool { return r.asked.Load() == 2 })
	r.openAll()
	for _, p := range followers {
		p.ends()
	}
	holders := all[1].value("dray_fleet_takeovers_total", "") + all[2].value("dray_fleet_takeovers_total", "")
	if holders != 1 || r.asked.Load() != 2 {
		t.Errorf("%v members took over, and the registry was asked %d times", holders, r.asked.Load())
	}
	// The dead member's fetch goes on in this process, so the registry sends it the second half, too.
	if sent := r.sent.Load(); sent > 6*mib+256<<10 {
		t.Errorf("the registry sent %d bytes", sent)
	}
}

// TestSlowRegistry has the registry pause for much longer than a stream may stand. The holder says
// that it has no more, so nobody leaves it.
func TestSlowRegistry(t *testing.T) {
	all := several(t, &fleettest.Memory{}, 2)
	r := newRegistry(2 * mib)
	r.open(mib)
	holder := all[0].pull(r)
	holder.reaches(mib / 2)
	follower := all[1].pull(r)
	follower.reaches(mib / 2)
	time.Sleep(10 * patient.Stall)
	r.openAll()
	holder.ends()
	follower.ends()
	if r.asked.Load() != 1 {
		t.Errorf("the registry was asked %d times", r.asked.Load())
	}
}

// TestSilent has a member that accepts connections and says nothing, as when its process is
// stopped, its machine has lost its network, or it hangs in the middle of a blob.
func TestSilent(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"no answer": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"half an answer": func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodHead {
				<-r.Context().Done()
			}
			begin(w, mib, 5)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		},
		"lost the blob": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Dray-Protocol", "1")
			w.WriteHeader(http.StatusNotFound)
		},
	} {
		t.Run(name, func(t *testing.T) {
			leases, r := &fleettest.Memory{}, newRegistry(mib)
			r.openAll()
			fake(t, leases, r.digest, false, answer)
			m := start(t, leases, "one", func(o *fleet.Options) { o.Patience.Answer = 20 * time.Millisecond })
			m.pull(r).ends()
			if r.asked.Load() != 1 || m.value("dray_fleet_takeovers_total", "") != 1 {
				t.Errorf("the registry was asked %d times", r.asked.Load())
			}
		})
	}
}

// TestSlowHolder has a holder that is alive, and whose fetch has not begun. A member waits for it a
// moment, and then fetches for itself without blaming it.
func TestSlowHolder(t *testing.T) {
	leases, r := &fleettest.Memory{}, newRegistry(mib)
	r.openAll()
	fake(t, leases, r.digest, true, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	m := start(t, leases, "one", func(o *fleet.Options) { o.Patience.Begin = 20 * time.Millisecond })
	p := m.pull(r)
	eventually(t, "request", func() bool { return r.asked.Load() == 1 })
	p.ends()
	if late, taken := m.value("dray_fleet_alone_total", "late"), m.value("dray_fleet_takeovers_total", ""); late != 1 || taken != 0 {
		t.Errorf("%v late fetches, and %v leases were taken over", late, taken)
	}
	if l := must(leases.Take(t.Context(), r.digest, m.info, 0)); l.Holder != "fake" {
		t.Errorf("the lease is that of %s", l.Holder)
	}
}

// TestTakeover has a member that takes over answer once as the follower that it was. Others do not
// take the lease from it.
func TestTakeover(t *testing.T) {
	leases, r := &fleettest.Memory{}, newRegistry(mib)
	r.openAll()
	var asked atomic.Int64
	fake(t, leases, r.digest, true, func(w http.ResponseWriter, req *http.Request) {
		from := must(strconv.Atoi(req.URL.Query().Get("from")))
		n := asked.Add(1)
		begin(w, mib, []int64{5, 5, 6}[n-1])
		w.Header().Set("Content-Length", strconv.Itoa(mib-from))
		switch n {
		case 1: // the holder dies
			_, _ = w.Write(r.blob[:mib/2])
			must(leases.Take(context.Background(), r.digest, fleet.Member{ID: "fake", Address: req.Host}, 0))
			panic(http.ErrAbortHandler)
		case 2:
			w.Header().Set("Dray-Hop", "1")
		}
		_, _ = w.Write(r.blob[from:])
	})
	m := start(t, leases, "one", nil)
	m.pull(r).ends()
	if n := m.value("dray_fleet_takeovers_total", ""); n != 0 || asked.Load() != 3 || r.asked.Load() != 0 {
		t.Errorf("%v leases were taken over, after %d questions, and the registry was asked %d times", n, asked.Load(), r.asked.Load())
	}
}

// begin writes the header of an answer of a blob.
func begin(w http.ResponseWriter, size int, generation int64) {
	h := w.Header()
	h.Set("Dray-Protocol", "1")
	h.Set("Dray-Member", "fake")
	h.Set("Dray-Generation", strconv.FormatInt(generation, 10))
	h.Set("Dray-Hop", "0")
	h.Set("Dray-Size", strconv.Itoa(size))
	h.Set("Content-Length", strconv.Itoa(size))
}

// fake is a member that knows the secret, holds the lease of a blob, and answers as the test says.
// If it is alive, it says that it has no more bytes than it has sent.
func fake(t *testing.T, leases fleet.Leases, d digest.Digest, alive bool, answer http.HandlerFunc) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead && alive {
			w.Header().Set("Dray-Ready", "0")
			return
		}
		answer(w, r)
	}), TLSConfig: fleet.ServerTLS(keysOf(t, secret))}
	done := make(chan error, 1)
	go func() { done <- s.ServeTLS(ln, "", "") }()
	t.Cleanup(func() { s.Close(); <-done })
	if _, err := leases.Take(t.Context(), d, fleet.Member{ID: "fake", Address: ln.Addr().String()}, 0); err != nil {
		t.Fatal(err)
	}
}

// TestWrongBytes has a member give bytes that are not the blob. They are nobody's blob, the member
// is banned, and the next fetch is from the registry alone.
func TestWrongBytes(t *testing.T) {
	leases, r := &fleettest.Memory{}, newRegistry(mib)
	r.openAll()
	fake(t, leases, r.digest, true, func(w http.ResponseWriter, req *http.Request) {
		begin(w, mib, 5)
		_, _ = w.Write(make([]byte, mib))
	})
	m := start(t, leases, "one", nil)
	late := must(m.get(t.Context(), r)) // a client that has read nothing when the bytes are known to be wrong
	defer late.Close()
	var got bytes.Buffer
	if _, err := got.ReadFrom(must(m.get(t.Context(), r))); !errors.Is(err, cache.ErrCorrupt) && !bytes.Equal(got.Bytes(), r.blob) {
		t.Fatalf("wrong bytes end with %v", err)
	}
	if n := m.value("dray_fleet_bans_total", ""); n != 1 {
		t.Errorf("%v members are banned", n)
	}
	if got, err := io.ReadAll(late); err != nil || !bytes.Equal(got, r.blob) {
		t.Errorf("the late client got %d bytes, %v", len(got), err)
	}
	m.pull(r).ends()
	if r.asked.Load() != 1 || m.value("dray_fleet_alone_total", "digest") != 1 {
		t.Errorf("the registry was asked %d times", r.asked.Load())
	}
	other := newRegistry(mib + 1) // another blob that the banned member says to have
	other.openAll()
	if _, err := leases.Take(t.Context(), other.digest, fleet.Member{ID: "fake", Address: "127.0.0.1:1"}, 0); err != nil {
		t.Fatal(err)
	}
	m.pull(other).ends()
	if other.asked.Load() != 1 {
		t.Errorf("the registry was asked %d times for another blob", other.asked.Load())
	}
}

// TestOneBlames has bytes of a member and of the registry make a wrong blob: who is wrong is not
// known, so nobody is banned.
func TestOneBlames(t *testing.T) {
	leases, r := &fleettest.Memory{}, newRegistry(mib)
	r.openAll()
	fake(t, leases, r.digest, true, func(w http.ResponseWriter, req *http.Request) {
		begin(w, mib, 5)
		_, _ = w.Write(make([]byte, mib/2))
		panic(http.ErrAbortHandler)
	})
	m := start(t, leases, "one", nil)
	var got bytes.Buffer
	if _, err := got.ReadFrom(must(m.get(t.Context(), r))); !errors.Is(err, cache.ErrCorrupt) && !bytes.Equal(got.Bytes(), r.blob) {
		t.Fatalf("wrong bytes end with %v", err)
	}
	if n := m.value("dray_fleet_bans_total", ""); n != 0 {
		t.Errorf("%v members are banned", n)
	}
	m.pull(r).ends()
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestStoreAway has the store of leases fail. Each member fetches for itself, and asks the store
// once for many blobs.
func TestStoreAway(t *testing.T) {
	leases := &fleettest.Memory{}
	leases.Fail(errors.New("away"))
	all := several(t, leases, 2)
	for i := range 10 {
		r := newRegistry(1000 + i)
		r.openAll()
		for _, m := range all {
			m.pull(r).ends()
		}
		if r.asked.Load() != 2 {
			t.Errorf("the registry was asked %d times", r.asked.Load())
		}
	}
	leases.Fail(nil)
	for _, m := range all {
		m.Tick()
	}
	r := newRegistry(5000)
	r.openAll()
	all[0].pull(r).ends()
	all[1].pull(r).ends()
	if r.asked.Load() != 1 {
		t.Errorf("after the store is back, the registry was asked %d times", r.asked.Load())
	}
}

// hanging is a store of leases that never answers.
type hanging struct{ fleettest.Memory }

func (h *hanging) Take(ctx context.Context, _ digest.Digest, _ fleet.Member, _ int64) (fleet.Lease, error) {
	<-ctx.Done()
	return fleet.Lease{}, ctx.Err()
}

// TestStoreHangs has the store of leases not answer. A member waits for it a moment, and then
// fetches for itself.
func TestStoreHangs(t *testing.T) {
	m := start(t, &hanging{}, "one", func(o *fleet.Options) { o.Patience.Store = 20 * time.Millisecond })
	r := newRegistry(1000)
	r.openAll()
	m.pull(r).ends()
	if n := m.value("dray_fleet_alone_total", "store"); n != 1 || r.asked.Load() != 1 {
		t.Errorf("%v fetches without the store, and the registry was asked %d times", n, r.asked.Load())
	}
}

// TestManyLeases has a member fetch more blobs than it may have leases.
func TestManyLeases(t *testing.T) {
	m := start(t, &fleettest.Memory{}, "one", nil)
	m.SetMost(2)
	var pulls []*pull
	for i := range 3 {
		r := newRegistry(1000 + i)
		if i < 2 {
			r.openAll()
		}
		p := m.pull(r)
		if i < 2 {
			p.ends()
			eventually(t, "end of a fetch", func() bool { _, held := m.cache.Stat(r.digest); return held })
			m.Tick() // notes the end, even if the observer of the fetch is not called yet
		}
		pulls = append(pulls, p)
	}
	eventually(t, "third request", func() bool { return pulls[2].asked.Load() == 1 })
	if n := m.value("dray_fleet_leases", ""); n != 2 {
		t.Errorf("%v leases", n)
	}
	fourth, fifth := newRegistry(2000), newRegistry(2001)
	for _, r := range []*registry{fourth, fifth} { // all leases are then of blobs on their way
		pulls = append(pulls, m.pull(r))
		eventually(t, "request", func() bool { return r.asked.Load() == 1 })
	}
	if n := m.value("dray_fleet_alone_total", "leases"); n != 1 {
		t.Errorf("%v fetches without a lease", n)
	}
	for _, p := range pulls[2:] {
		p.openAll()
		p.ends()
	}
}

// TestFlushed has the store forget everything while a blob is on its way. The holder's renewal
// restores its lease.
func TestFlushed(t *testing.T) {
	leases := &fleettest.Memory{}
	all := several(t, leases, 2)
	r := newRegistry(mib)
	r.open(mib / 2)
	holder := all[0].pull(r)
	holder.reaches(mib / 4)
	leases.Flush()
	all[0].Tick()
	follower := all[1].pull(r)
	follower.reaches(mib / 4)
	r.openAll()
	holder.ends()
	follower.ends()
	if r.asked.Load() != 1 {
		t.Errorf("the registry was asked %d times", r.asked.Load())
	}
}

// interleaved is a store of leases in which something happens before the answer to Renew arrives.
type interleaved struct {
	fleettest.Memory
	meanwhile func()
}

func (i *interleaved) Renew(ctx context.Context, m fleet.Member, held []fleet.Lease) ([]digest.Digest, error) {
	lost, err := i.Memory.Renew(ctx, m, held)
	i.meanwhile()
	return lost, err
}

// TestTakenAgain has a member take a lease again while it learns that it has lost the former one.
func TestTakenAgain(t *testing.T) {
	for again, left := range map[bool]float64{false: 0, true: 1} {
		leases, d := &interleaved{}, digest.FromString("taken again")
		m := start(t, leases, "one", nil)
		first := must(m.Take(t.Context(), d, 0))
		second := must(leases.Take(t.Context(), d, fleet.Member{ID: "other"}, first.Generation))
		leases.meanwhile = func() {
			if again {
				must(m.Take(t.Context(), d, second.Generation))
			}
		}
		m.Renew(t.Context())
		if n := m.value("dray_fleet_leases", ""); n != left {
			t.Errorf("taken again %v: %v leases are left", again, n)
		}
	}
}

// TestManyConnections has other members keep many connections that they do not use. The holder
// still answers.
func TestManyConnections(t *testing.T) {
	leases, r := &fleettest.Memory{}, newRegistry(mib)
	r.openAll()
	holder := start(t, leases, "holder", nil)
	holder.pull(r).ends()
	settings := fleet.ClientTLS(keysOf(t, secret))
	for range 200 {
		c, err := tls.DialWithDialer(&net.Dialer{Timeout: time.Minute}, "tcp", holder.info.Address, settings)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := fmt.Fprintf(c, "HEAD /blobs/%s?from=0 HTTP/1.1\r\nHost: holder\r\nDray-Protocol: 1\r\n\r\n", r.digest); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: http.MethodHead})
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%v, %v", resp, err)
		}
	}
	start(t, leases, "follower", nil).pull(r).ends()
	if r.asked.Load() != 1 {
		t.Errorf("the registry was asked %d times", r.asked.Load())
	}
}

// TestManyFollowers has more followers than one member serves. The others read from followers.
func TestManyFollowers(t *testing.T) {
	all := several(t, &fleettest.Memory{}, 12)
	r := newRegistry(mib)
	r.open(mib / 2)
	holder := all[0].pull(r)
	holder.reaches(mib / 4)
	var pulls []*pull
	for _, m := range all[1:] {
		p := m.pull(r)
		p.reaches(mib / 4)
		pulls = append(pulls, p)
	}
	if n := all[0].value("dray_fleet_followers", ""); n != 8 {
		t.Errorf("the holder has %v followers", n)
	}
	r.openAll()
	for _, p := range append(pulls, holder) {
		p.ends()
	}
	if r.asked.Load() != 1 {
		t.Errorf("the registry was asked %d times", r.asked.Load())
	}
}

// TestLeftHolder has all clients of the holder leave. A follower still gets the blob.
func TestLeftHolder(t *testing.T) {
	all := several(t, &fleettest.Memory{}, 2)
	r := newRegistry(mib)
	r.open(mib / 2)
	ctx, leave := context.WithCancel(t.Context())
	client := must(all[0].get(ctx, r))
	follower := all[1].pull(r)
	follower.reaches(mib / 4)
	leave()
	client.Close()
	r.openAll()
	follower.ends()
	if r.asked.Load() != 1 {
		t.Errorf("the registry was asked %d times", r.asked.Load())
	}
}

// TestRefused has the registry refuse the holder. That is no answer for another member.
func TestRefused(t *testing.T) {
	all := several(t, &fleettest.Memory{}, 2)
	r := newRegistry(mib)
	r.openAll()
	share := all[0].Share(r.digest)
	asked, refuse := make(chan struct{}), make(chan struct{})
	refused := make(chan error, 1)
	go func() {
		_, err := all[0].cache.Open(t.Context(), cache.Blob{Digest: r.digest, Size: mib, Observer: share}, func(ctx context.Context, from int64) (cache.Stream, error) {
			if s, ok := share.Open(ctx, from, mib); ok {
				return s, nil
			}
			close(asked)
			<-refuse
			return cache.Stream{}, errors.New("denied")
		})
		refused <- err
	}()
	<-asked
	follower := all[1].pull(r)
	eventually(t, "follower", func() bool { return all[0].value("dray_fleet_followers", "") == 1 })
	close(refuse)
	if err := <-refused; err == nil {
		t.Error("the refusal was lost")
	}
	follower.ends()
}

// TestProtocols has members whose protocols differ by one, and by two.
func TestProtocols(t *testing.T) {
	for protocol, together := range map[int]bool{1: true, 2: true, 3: false} {
		leases, r := &fleettest.Memory{}, newRegistry(mib)
		r.openAll()
		one := start(t, leases, "one", nil)
		other := start(t, leases, "other", func(o *fleet.Options) { o.Self.Protocol = protocol })
		one.pull(r).ends()
		other.pull(r).ends()
		if asked := r.asked.Load(); together != (asked == 1) {
			t.Errorf("protocols 1 and %d: the registry was asked %d times", protocol, asked)
		}
		if n := other.value("dray_fleet_alone_total", "protocol"); together != (n == 0) {
			t.Errorf("protocols 1 and %d: %v fetches without others", protocol, n)
		}
	}
}

// TestStops has the holder stop while another member reads. That can read on, and nobody else finds
// the lease.
func TestStops(t *testing.T) {
	leases, r := &fleettest.Memory{}, newRegistry(mib)
	r.open(mib / 2)
	holder := start(t, leases, "holder", nil)
	follower := start(t, leases, "follower", nil)
	first := holder.pull(r)
	first.reaches(mib / 4)
	second := follower.pull(r)
	second.reaches(mib / 4)
	ctx, stop := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- holder.Run(ctx) }()
	stop()
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	if l := must(leases.Take(t.Context(), r.digest, fleet.Member{ID: "third"}, 0)); l.Holder != "third" {
		t.Errorf("the lease is that of %s", l.Holder)
	}
	r.openAll()
	first.ends()
	second.ends()
	if r.asked.Load() != 1 {
		t.Errorf("the registry was asked %d times", r.asked.Load())
	}
}

// TestGrace has a member stop while another one reads from it, and does not get to the end.
func TestGrace(t *testing.T) {
	r := newRegistry(mib)
	r.open(mib / 2)
	m := start(t, &fleettest.Memory{}, "one", func(o *fleet.Options) { o.Grace = time.Millisecond })
	m.pull(r).reaches(mib / 4)
	ln := must(net.Listen("tcp", "127.0.0.1:0"))
	ctx, stop := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- m.Serve(ctx, ln) }()
	req := must(http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("https://%s/blobs/%s?from=0", ln.Addr(), r.digest), nil))
	req.Header.Set("Dray-Protocol", "1")
	resp := must(m.Client().Do(req))
	defer resp.Body.Close()
	began := time.Now()
	stop()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took >= 30*time.Second {
		t.Errorf("the stop took %s", took)
	}
	if n, err := io.Copy(io.Discard, resp.Body); err == nil || n >= mib {
		t.Errorf("the other member got %d bytes, %v", n, err)
	}
	r.openAll()
}

// TestMembers lists the members.
func TestMembers(t *testing.T) {
	all := several(t, &fleettest.Memory{}, 2)
	for _, m := range all {
		m.Tick()
	}
	list, err := all[0].Members(t.Context())
	if err != nil || len(list) != 2 || !slices.ContainsFunc(list, func(m fleet.Member) bool { return m.ID == "member 1" && m.Protocol == fleet.Protocol }) {
		t.Errorf("got %+v, %v", list, err)
	}
}
