package ceilings_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"dray/cache/fleet"
	"dray/cache/fleet/fleettest"
	"dray/mirror/ceilings"
	"dray/upstream"
	"dray/upstream/oci"
	"dray/upstream/upstreamtest"
)

// ceiling is that of the registry, in requests per second.
const ceiling = 40.

// registry notes when requests reach it.
type registry struct {
	mu     sync.Mutex
	at     []time.Time
	answer func() *http.Response // nil means a manifest
}

func (r *registry) RoundTrip(q *http.Request) (*http.Response, error) {
	r.mu.Lock()
	r.at = append(r.at, time.Now())
	answer := r.answer
	r.mu.Unlock()
	time.Sleep(10 * time.Millisecond)
	if answer != nil {
		if resp := answer(); resp != nil {
			resp.Request = q
			return resp, nil
		}
	}
	return respond(200, http.Header{"Content-Type": {oci.MediaTypeOCIIndex}}, q), nil
}

func respond(status int, h http.Header, q *http.Request) *http.Response {
	body := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)), Request: q, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
}

// within counts the requests of a time.
func (r *registry) within(from, to time.Time) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, at := range r.at {
		if !at.Before(from) && at.Before(to) {
			n++
		}
	}
	return n
}

// world is a fleet in one process.
type world struct {
	*testing.T
	registry *registry
	store    *fleettest.Memory
	members  []*member
}

type member struct {
	*ceilings.Ceilings
	fleet.Member
	world   *world
	client  *upstream.Client
	limiter *upstream.Limiter
	cutOff  atomic.Bool  // from the store
	slow    atomic.Int64 // nanoseconds that a question to the store takes
	stop    func()
}

// Live implements ceilings.Fleet.
func (m *member) Live() (all []fleet.Member) {
	for i, o := range m.world.members {
		info := o.Member
		info.Upstreams = fleet.NewUpstreams([]fleet.Upstream{{Name: "any", Identity: "registry", Quota: o.Quota(fmt.Sprint("name ", i))}})
		all = append(all, info)
	}
	return all
}

// Send implements ceilings.Fleet.
func (m *member) Send(_ context.Context, to fleet.Member, r *http.Request) (*http.Response, error) {
	time.Sleep(5 * time.Millisecond)
	for _, o := range m.world.members {
		if o.ID == to.ID {
			w := httptest.NewRecorder()
			o.ServeHTTP(w, r)
			return w.Result(), nil
		}
	}
	return nil, errors.New("no such member")
}

// Share implements fleet.Shares.
func (m *member) Share(ctx context.Context, id string, ttl time.Duration, wants []fleet.Need) ([]float64, error) {
	time.Sleep(time.Millisecond + time.Duration(m.slow.Load()))
	if m.cutOff.Load() {
		return nil, errors.New("cut off")
	}
	return m.world.store.Share(ctx, id, ttl, wants)
}

// start starts n members. Their upstreams of the registry have different names.
func start(t *testing.T, n int) *world { return startPatient(t, n, 0) }

// startPatient is start. The first member has the given patience with the store; 0 means the usual
// one.
func startPatient(t *testing.T, n int, patience time.Duration) *world {
	t.Helper()
	w := &world{T: t, registry: &registry{}, store: &fleettest.Memory{}}
	for i := range n {
		m := &member{Member: fleet.Member{ID: fmt.Sprint("member ", i)}, world: w}
		m.connect()
		o := ceilings.Options{Self: m.ID, Fleet: m, Shares: m, Logger: slog.New(slog.DiscardHandler)}
		if i == 0 {
			o.Patience = patience
		}
		m.Ceilings = ceilings.New(o)
		w.members = append(w.members, m)
	}
	for i, m := range w.members {
		m.Use([]ceilings.Upstream{{Name: fmt.Sprint("name ", i), Identity: "registry", Limiter: m.limiter}})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = m.Run(ctx) })
		m.stop = sync.OnceFunc(func() { cancel(); running.Wait() })
		time.Sleep(137 * time.Millisecond) // members do not ask at the same moment
	}
	t.Cleanup(func() {
		for _, m := range w.members {
			m.stop()
		}
	})
	return w
}

// connect gives the member a new client of the registry, with a new limiter.
func (m *member) connect() {
	base := &url.URL{Scheme: "http", Host: "registry.example"}
	m.limiter = upstream.NewLimiter(upstream.LimiterOptions{Name: "x", Reserve: 10, Wait: time.Minute, Rates: []upstream.Rate{{Name: "manifests", Classes: []upstream.Class{upstream.ManifestGet, upstream.ManifestHead}, PerSecond: ceiling}}})
	m.client = upstreamtest.NewClient(m.world, upstream.Options{Name: "x", Base: base, Transport: m.world.registry, Limiter: m.limiter})
}

func (m *member) get(ctx context.Context) error {
	_, err := m.client.Manifest(ctx, upstream.Repo{Name: "a"}, oci.Reference{Tag: "v1"}, nil)
	return err
}

// load has workers of the member send requests, one after the other, for a while.
func (m *member) load(workers int, d time.Duration) (wait func()) {
	var working sync.WaitGroup
	end := time.Now().Add(d)
	for range workers {
		working.Go(func() {
			for time.Now().Before(end) {
				_ = m.get(m.world.Context()) // also a refusal is a request that was waited for
			}
		})
	}
	return working.Wait
}

// bounded checks that no span of time has more requests than the ceiling allows, and the burst of
// each limiter.
func (w *world) bounded() {
	w.Helper()
	w.registry.mu.Lock()
	defer w.registry.mu.Unlock()
	at := w.registry.at
	allowance := ceiling/2 + float64(len(w.members))
	for i := 0; i < len(at); i += 7 {
		for j := i; j < len(at); j += 7 {
			if n, most := float64(j-i+1), ceiling*at[j].Sub(at[i]).Seconds()+allowance; n > most {
				w.Fatalf("%v requests within %v, more than %.1f", n, at[j].Sub(at[i]), most)
			}
		}
	}
}

// used checks how much of the ceiling was used in a time.
func (w *world) used(from, to time.Time, atLeast float64) {
	w.Helper()
	if got := float64(w.registry.within(from, to)) / to.Sub(from).Seconds() / ceiling; got < atLeast {
		w.Errorf("%.3f of the ceiling was used for %v, want %.3f", got, to.Sub(from), atLeast)
	}
}

// TestRates has members with different demand. They never send more than the ceiling together, and
// use at least 90 % of it if one of them alone has the demand, wherever that is.
func TestRates(t *testing.T) {
	for _, n := range []int{1, 6} {
		for name, c := range map[string]struct {
			atLeast float64
			run     func(*world)
		}{
			"one":  {0.9, func(w *world) { w.members[0].load(30, 8*time.Second)() }},
			"last": {0.9, func(w *world) { w.members[len(w.members)-1].load(60, 8*time.Second)() }},
			"all": {0.9, func(w *world) {
				for _, m := range w.members {
					defer m.load(30, 8*time.Second)()
				}
			}},
			"unequal": {0.9, func(w *world) {
				for i, m := range w.members {
					defer m.load(1+20*i, 8*time.Second)()
				}
				defer w.members[0].load(40, 8*time.Second)()
			}},
			"turns": {0.4, func(w *world) { // each hand-over costs up to 3 s
				for i := range 4 {
					w.members[i%len(w.members)].load(30, 4*time.Second)()
				}
			}},
			"bursts": {0, func(w *world) {
				rnd := rand.New(rand.NewPCG(1, uint64(len(w.members))))
				for range 40 {
					defer w.members[rnd.IntN(len(w.members))].load(1+rnd.IntN(30), time.Duration(rnd.IntN(3000))*time.Millisecond)()
					time.Sleep(time.Duration(rnd.IntN(1500)) * time.Millisecond)
				}
			}},
		} {
			if n == 1 && name != "one" {
				continue
			}
			t.Run(fmt.Sprint(n, " members, ", name), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := start(t, n)
					began := time.Now()
					c.run(w)
					w.used(began.Add(2*time.Second), began.Add(8*time.Second), c.atLeast)
					w.bounded()
				})
			})
		}
	}
}

// TestFloor: a member without demand sends its first request at once, while another one has all the
// demand. It asks the store of shares for nothing, and neither does an idle one.
func TestFloor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, 5)
		time.Sleep(time.Minute)
		if n := w.store.Calls(); n != 0 {
			t.Errorf("idle members asked the store %d times", n)
		}
		for range 20 {
			time.Sleep(3 * time.Second)
			began := time.Now()
			if err := w.members[1].get(t.Context()); err != nil || time.Since(began) > 11*time.Millisecond {
				t.Errorf("a single request took %v: %v", time.Since(began), err)
			}
		}
		if n := w.store.Calls(); n != 0 {
			t.Errorf("requests below the floor asked the store %d times", n)
		}
		wait := w.members[0].load(30, 20*time.Second)
		time.Sleep(10 * time.Second)
		before, began := w.store.Calls(), time.Now()
		if err := w.members[1].get(t.Context()); err != nil || time.Since(began) > 11*time.Millisecond {
			t.Errorf("the first request took %v: %v", time.Since(began), err)
		}
		time.Sleep(5 * time.Second)
		if n := w.store.Calls() - before; n < 4 || n > 6 {
			t.Errorf("the member with demand asked %d times in 5 s", n)
		}
		wait()
		time.Sleep(3 * time.Second)
		before = w.store.Calls()
		time.Sleep(time.Minute)
		if n := w.store.Calls() - before; n != 0 {
			t.Errorf("after the demand has ended, the store was asked %d times", n)
		}
	})
}

// TestLateDemand: a member whose demand begins while another one has all gets its part in 4 s.
func TestLateDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, 2)
		defer w.members[0].load(30, 10*time.Second)()
		time.Sleep(5 * time.Second)
		defer w.members[1].load(30, 8*time.Second)()
		time.Sleep(4 * time.Second)
		for _, m := range w.members {
			if got := m.limiter.Reads()[0].PerSecond; got < ceiling/2-0.1 || got > ceiling/2+0.1 {
				t.Errorf("%s may send %v per second", m.ID, got)
			}
		}
		w.bounded()
	})
}

// TestRefusedFirst: a member whose first request is refused uses the ceiling as soon as it has the
// demand.
func TestRefusedFirst(t *testing.T) {
	for _, status := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := start(t, 3)
				w.registry.answer = func() *http.Response { return respond(status, http.Header{}, nil) }
				if err := w.members[0].get(t.Context()); err == nil {
					t.Fatal("the first request was not refused")
				}
				w.registry.mu.Lock()
				w.registry.answer = nil
				w.registry.mu.Unlock()
				began := time.Now()
				w.members[0].load(30, 8*time.Second)()
				w.used(began.Add(2*time.Second), began.Add(8*time.Second), 0.9)
				w.bounded()
			})
		})
	}
}

// TestSlowStore: a member whose patience with the store is long has its share for at least as long
// as a question takes.
func TestSlowStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startPatient(t, 2, time.Minute)
		m := w.members[0]
		defer m.load(30, 20*time.Second)()
		time.Sleep(5 * time.Second)
		m.slow.Store(int64(10 * time.Second))
		time.Sleep(5 * time.Second)
		defer w.members[1].load(30, 10*time.Second)()
		time.Sleep(10 * time.Second)
		w.bounded()
	})
}

// TestReload: upstreams that a reload leaves as they are keep their shares. A new limiter begins at
// the floor, and gets a share of its own.
func TestReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := start(t, 1).members[0]
		rate := func() float64 { return m.limiter.Reads()[0].PerSecond }
		stop := m.load(30, 20*time.Second)
		time.Sleep(5 * time.Second)
		before := rate()
		m.Use([]ceilings.Upstream{{Name: "name 0", Identity: "registry", Limiter: m.limiter}})
		if now := rate(); before < 0.9*ceiling || now != before {
			t.Errorf("%v per second before the reload, and %v after it", before, now)
		}
		time.Sleep(5 * time.Second)
		if now := rate(); now != before {
			t.Errorf("%v per second before the reload, and %v a while after it", before, now)
		}
		stop()
		time.Sleep(5 * time.Second)
		m.connect()
		m.Use([]ceilings.Upstream{{Name: "name 0", Identity: "registry", Limiter: m.limiter}})
		if now := rate(); now != 0.05*ceiling {
			t.Errorf("a new limiter may send %v per second", now)
		}
		stop = m.load(30, 10*time.Second)
		time.Sleep(5 * time.Second)
		if now := rate(); now != before {
			t.Errorf("a new limiter may send %v per second when it has demand, and the former one %v", now, before)
		}
		stop()
	})
}

// TestStoreAway: without the store, each member has an equal part, and all together never more than
// the ceiling, before, meanwhile and after. A member that is cut off alone adds its equal part.
func TestStoreAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, 4)
		for _, m := range w.members[:2] {
			defer m.load(30, 50*time.Second)()
		}
		time.Sleep(10 * time.Second)
		w.store.Fail(errors.New("away"))
		time.Sleep(5 * time.Second)
		defer w.members[2].load(30, 35*time.Second)()
		time.Sleep(5 * time.Second)
		for i, m := range w.members {
			want := ceiling / 4
			if i == 3 {
				want = 0.05 * ceiling / 4 // it has had no reason to ask
			}
			if got := m.limiter.Reads()[0].PerSecond; got != want {
				t.Errorf("%s may send %v per second, want %v", m.ID, got, want)
			}
		}
		time.Sleep(10 * time.Second)
		w.store.Fail(nil)
		began := time.Now().Add(5 * time.Second)
		time.Sleep(15 * time.Second)
		w.used(began, time.Now(), 0.9)
		w.bounded()
	})
	synctest.Test(t, func(t *testing.T) {
		w := start(t, 4)
		for _, m := range w.members[:2] {
			defer m.load(30, 25*time.Second)()
		}
		time.Sleep(10 * time.Second)
		w.members[0].cutOff.Store(true)
		time.Sleep(15 * time.Second)
		seconds := 15 * ceiling * (1 + 1./4)
		if n := float64(w.registry.within(time.Now().Add(-15*time.Second), time.Now())); n > seconds+ceiling/2+4 {
			t.Errorf("%v requests in 15 s, more than %v", n, seconds)
		}
	})
}

// TestPause: a 429 to one member pauses all of them, those with demand and those that are idle,
// and nobody sends a request before Retry-After is over.
func TestPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, 3)
		for _, m := range w.members[:2] {
			defer m.load(10, 35*time.Second)()
		}
		time.Sleep(5 * time.Second)
		once := sync.OnceValue(func() *http.Response {
			return respond(http.StatusTooManyRequests, http.Header{"Retry-After": {"20"}}, nil)
		})
		w.registry.mu.Lock()
		refused := false
		w.registry.answer = func() *http.Response {
			w.registry.mu.Lock()
			defer w.registry.mu.Unlock()
			if refused {
				return nil
			}
			refused = true
			return once()
		}
		w.registry.mu.Unlock()
		time.Sleep(time.Second)
		paused := time.Now()
		defer w.members[2].load(10, 8*time.Second)() // it was idle
		time.Sleep(18 * time.Second)
		if n := w.registry.within(paused, time.Now()); n != 0 {
			t.Errorf("%d requests in the pause", n)
		}
		own, heard := 0., 0.
		for _, m := range w.members {
			own += testutil.ToFloat64(m.Pauses().WithLabelValues("own"))
			heard += testutil.ToFloat64(m.Pauses().WithLabelValues("member"))
		}
		if own != 1 || heard != 2 {
			t.Errorf("%v members were refused, and %v were told", own, heard)
		}
		time.Sleep(10 * time.Second)
		if n := w.registry.within(paused.Add(18*time.Second), time.Now()); n == 0 {
			t.Error("no request after the pause")
		}
		w.bounded()
	})
}

// TestPausesOfOthers: what members send each other is checked.
func TestPausesOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := start(t, 1).members[0]
		for _, c := range []struct {
			method, body string
			status       int
			pauses       bool
		}{
			{"GET", "", 400, false}, {"POST", "", 400, false}, {"POST", "{}", 400, false}, {"POST", "[" + strings.Repeat(" ", 70<<10) + "]", 400, false},
			{"POST", "[]", 204, false}, {"POST", `[{"identity":"other","operation":"manifests","for_ms":1000}]`, 204, false},
			{"POST", `[{"identity":"registry","operation":"unknown","for_ms":1000}]`, 204, false},
			{"POST", `[{"identity":"registry","operation":"manifests","for_ms":-1}]`, 204, false},
			{"POST", `[{"identity":"registry","operation":"manifests","for_ms":1000,"of another version":{"a":1}}]`, 204, true},
			{"POST", `[{"identity":"registry","operation":"manifests","for_ms":1000}]`, 204, true},
			{"POST", `[{"identity":"registry","operation":"manifests","for_ms":9223372036854775807}]`, 204, true},
		} {
			w := httptest.NewRecorder()
			m.ServeHTTP(w, httptest.NewRequest(c.method, ceilings.Path, strings.NewReader(c.body)))
			until := m.limiter.Reads()[0].PausedUntil
			if paused := until.After(time.Now()); w.Code != c.status || paused != c.pauses || time.Until(until) > time.Minute {
				t.Errorf("%s %.80s: %d, paused for %v", c.method, c.body, w.Code, time.Until(until))
			}
			time.Sleep(2 * time.Minute)
		}
	})
}

// TestQuota: what the registry states to one member of its quota of pulls holds for background work
// of the others, unless the registry counts their pulls apart.
func TestQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, 3)
		states := func(m *member, remaining, source string) {
			t.Helper()
			w.registry.mu.Lock()
			w.registry.answer = func() *http.Response {
				return respond(200, http.Header{"Content-Type": {oci.MediaTypeOCIIndex}, "Ratelimit-Limit": {"100;w=60"}, "Ratelimit-Remaining": {remaining + ";w=60"}, "Docker-Ratelimit-Source": {source}}, nil)
			}
			w.registry.mu.Unlock()
			if err := m.get(t.Context()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Second)
		}
		reserved := func(want ...bool) {
			t.Helper()
			for i, m := range w.members {
				if q, ok := m.limiter.Quota(); q.Reserved != want[i] {
					t.Errorf("%s: %+v, %v", m.ID, q, ok)
				}
			}
		}
		reserved(false, false, false)
		states(w.members[2], "90", "account-2")
		states(w.members[0], "5", "account-1")
		reserved(true, true, false) // the second one has never asked, and the third one has another address
		states(w.members[1], "60", "account-1")
		reserved(false, false, false)
		if q, ok := w.members[0].limiter.Quota(); !ok || q.Remaining != 60 || q.Source != "account-1" {
			t.Errorf("the first member knows %+v", q)
		}
		states(w.members[1], "5", "account-1")
		reserved(true, true, false)
		time.Sleep(2 * time.Minute)
		reserved(false, false, false)
	})
}
