package upstream_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"dray/upstream"
	"dray/upstream/ecr"
	"dray/upstream/oci"
	"dray/upstream/upstreamtest"
)

// paced is a registry without a network that keeps the time of each request that reaches it.
type paced struct {
	latency time.Duration
	answer  func(r *http.Request, n int) *http.Response // nil: 200 with a manifest

	mu         sync.Mutex
	began      time.Time
	seen       []string // "repo at"
	at         []time.Duration
	under, top map[string]int // requests under way by host, now and at most
}

func newPaced() *paced {
	return &paced{began: time.Now(), under: map[string]int{}, top: map[string]int{}}
}

func (p *paced) RoundTrip(r *http.Request) (*http.Response, error) {
	p.mu.Lock()
	n := len(p.seen)
	p.seen = append(p.seen, strings.Split(r.URL.Path, "/")[2])
	p.at = append(p.at, time.Since(p.began))
	p.under[r.URL.Host]++
	p.top[r.URL.Host] = max(p.top[r.URL.Host], p.under[r.URL.Host])
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		p.under[r.URL.Host]--
		p.mu.Unlock()
	}()
	if p.latency > 0 {
		select {
		case <-time.After(p.latency):
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
	if r.Body != nil {
		_, _ = io.Copy(io.Discard, r.Body)
	}
	if p.answer != nil {
		if resp := p.answer(r, n); resp != nil {
			return resp, nil
		}
	}
	if r.Method == http.MethodPut {
		return respond(r, 201, "", nil), nil
	}
	return respond(r, 200, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`, http.Header{"Content-Type": {oci.MediaTypeOCIIndex}}), nil
}

func respond(r *http.Request, status int, body string, h http.Header) *http.Response {
	if h == nil {
		h = http.Header{}
	}
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)), Request: r, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
}

func (p *paced) times() []time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	rounded := make([]time.Duration, len(p.at))
	for i, d := range p.at {
		rounded[i] = d.Round(time.Millisecond)
	}
	return rounded
}

func limited(t *testing.T, p *paced, o upstream.LimiterOptions) (*upstream.Client, *upstream.Limiter) {
	t.Helper()
	o.Name = "x"
	l := upstream.NewLimiter(o)
	return upstreamtest.NewClient(t, upstream.Options{Name: "x", Base: parse(t, "http://registry.example"), Transport: p, Limiter: l}), l
}

func get(ctx context.Context, c upstream.Source, repo upstream.Repo) error {
	_, err := c.Manifest(ctx, repo, oci.Reference{Tag: "v1"}, nil)
	return err
}

// idle checks that no request waits and no slot is taken.
func idle(t *testing.T, l *upstream.Limiter) {
	t.Helper()
	if n := testutil.ToFloat64(l.Collectors()[3]); n != 0 {
		t.Errorf("%v requests still wait", n)
	}
	if n := upstream.Taken(l); n != 0 {
		t.Errorf("%d slots are still taken", n)
	}
}

// ECR takes 10 PutImage a second: half of them at once, then one each tenth of a second.
func TestLimiterRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPaced()
		c, l := limited(t, p, upstream.LimiterOptions{Rates: ecr.Private().Rates})
		m, err := oci.ParseManifest(oci.MediaTypeOCIIndex, []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`))
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 25 {
			wg.Go(func() {
				if _, err := c.PutManifest(t.Context(), upstream.Repo{Name: "app"}, oci.Reference{Tag: "v1"}, m); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		var want []time.Duration
		for i := range 25 {
			want = append(want, time.Duration(max(0, i-4))*100*time.Millisecond)
		}
		if diff := cmp.Diff(want, p.times()); diff != "" {
			t.Error(diff)
		}
		// Other operations have rates of their own.
		began := time.Now()
		if err := get(t.Context(), c, upstream.Repo{Name: "app"}); err != nil || time.Since(began) != 0 {
			t.Errorf("a pull waited %v: %v", time.Since(began), err)
		}
		idle(t, l)
	})
}

// A repository that asks for much does not make another one wait, and what nobody waits for goes
// last.
func TestLimiterFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPaced()
		c, l := limited(t, p, upstream.LimiterOptions{Rates: []upstream.Rate{{Name: "pull", Classes: []upstream.Class{upstream.ManifestGet}, PerSecond: 2}}, Wait: time.Minute})
		var wg sync.WaitGroup
		ask := func(how upstream.Call, repo string, n int) {
			for range n {
				wg.Go(func() {
					if err := get(t.Context(), c, upstream.Repo{Name: repo, Call: how}); err != nil {
						t.Errorf("%s: %v", repo, err)
					}
				})
			}
			synctest.Wait()
		}
		background := upstream.Call{Background: upstream.NewUrgency()}
		ask(upstream.Call{}, "first", 1) // takes what may go at once
		ask(background, "ahead", 2)
		ask(upstream.Call{}, "busy", 20)
		ask(upstream.Call{}, "small", 2)
		joined := upstream.NewUrgency()
		ask(upstream.Call{Background: joined}, "joined", 1)
		joined.Raise()
		wg.Wait()
		if got := p.seen[:8]; !slices.Equal(got, []string{"first", "busy", "small", "joined", "busy", "small", "busy", "busy"}) {
			t.Errorf("the order is %v", got)
		}
		if got := p.seen[len(p.seen)-2:]; !slices.Equal(got, []string{"ahead", "ahead"}) {
			t.Errorf("the last are %v", got)
		}
		idle(t, l)
	})
}

// No host has more requests in flight than slots, blobs are counted apart, and a request keeps its
// slot until its body is read.
func TestLimiterPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPaced()
		p.latency = time.Second
		p.answer = func(r *http.Request, _ int) *http.Response {
			if strings.Contains(r.URL.Path, "/blobs/") && r.URL.Host == "registry.example" {
				return respond(r, 307, "", http.Header{"Location": {"http://storage.example/v2/bytes"}})
			}
			return nil
		}
		c, l := limited(t, p, upstream.LimiterOptions{Slots: 4})
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				if err := get(t.Context(), c, upstream.Repo{Name: fmt.Sprint(i)}); err != nil {
					t.Error(err)
				}
			})
			wg.Go(func() {
				s, err := c.Blob(t.Context(), upstream.BlobRequest{Repo: upstream.Repo{Name: fmt.Sprint(i)}, Digest: digest.FromString("x")})
				if err != nil {
					t.Error(err)
					return
				}
				time.Sleep(time.Second) // a reader that takes its time
				_ = s.Body.Close()
			})
		}
		wg.Wait()
		if p.top["registry.example"] != 8 || p.top["storage.example"] > 4 { // manifests and blobs
			t.Errorf("at most %v under way", p.top)
		}
		idle(t, l)
	})
}

// A registry that throttles is asked by all at its own rate in the end, and everybody is answered
// in time.
func TestLimiterThrottled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPaced()
		p.latency = 50 * time.Millisecond
		level, last, refused := 4.0, time.Now(), 0
		p.answer = func(r *http.Request, _ int) *http.Response {
			p.mu.Lock()
			defer p.mu.Unlock()
			now := time.Now()
			level, last = min(4, level+4*now.Sub(last).Seconds()), now
			if level < 1 {
				refused++
				return respond(r, 429, `{"errors":[{"code":"TOOMANYREQUESTS","message":"Rate exceeded"}]}`, nil)
			}
			level--
			return nil
		}
		c, l := limited(t, p, upstream.LimiterOptions{})
		r := upstream.NewRetry(c, upstream.RetryOptions{Name: "x"})
		var wg sync.WaitGroup
		for i := range 40 {
			wg.Go(func() {
				if err := get(t.Context(), r, upstream.Repo{Name: fmt.Sprint(i % 5)}); err != nil {
					t.Errorf("after %v: %v", time.Since(p.began), err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(p.began); took > 20*time.Second {
			t.Errorf("it took %v", took)
		}
		if refused > 70 { // those who back off each by themselves are refused 130 times
			t.Errorf("%d requests were refused", refused)
		}
		t.Logf("%d refusals, %v", refused, time.Since(p.began))
		idle(t, l)
	})
}

// One pause is for all: after Retry-After, and not before, they go on.
func TestLimiterPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPaced()
		p.answer = func(r *http.Request, n int) *http.Response {
			if n == 0 {
				return respond(r, 429, "", http.Header{"Retry-After": {"3"}})
			}
			return nil
		}
		c, l := limited(t, p, upstream.LimiterOptions{Rates: []upstream.Rate{{Name: "pull", Classes: []upstream.Class{upstream.ManifestGet}, PerSecond: 1000}}})
		r := upstream.NewRetry(c, upstream.RetryOptions{Name: "x"})
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				if err := get(t.Context(), r, upstream.Repo{Name: "app"}); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		// A caller with an older answer gets the error at once.
		b := upstream.NewBreaker(upstream.BreakerOptions{Name: "x"})
		began := time.Now()
		if err := get(t.Context(), b.Held(c), upstream.Repo{Name: "app"}); !errors.Is(err, upstream.ErrBusy) || !upstream.Transient(err) || time.Since(began) != 0 {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		if s := b.State(); s.Failures != 0 {
			t.Errorf("it counts as a failure: %+v", s)
		}
		wg.Wait()
		for i, d := range p.times()[1:] {
			if d < 3*time.Second || d > 4*time.Second {
				t.Errorf("request %d went after %v", i+1, d)
			}
		}
		idle(t, l)
	})
}

// A request that could not be sent in time is refused before it waits, with the text of the
// registry if it has sent one.
func TestLimiterTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPaced()
		c, l := limited(t, p, upstream.LimiterOptions{Rates: []upstream.Rate{{Name: "pull", Classes: []upstream.Class{upstream.ManifestGet}, PerSecond: 1}}, Wait: 10 * time.Second})
		var wg sync.WaitGroup
		var mu sync.Mutex
		var refused []error
		for range 20 {
			wg.Go(func() {
				if err := get(t.Context(), c, upstream.Repo{Name: "app"}); err != nil {
					if time.Since(p.began) != 0 {
						t.Errorf("refused after %v", time.Since(p.began))
					}
					mu.Lock()
					refused = append(refused, err)
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if len(p.seen) != 10 || len(refused) != 10 {
			t.Errorf("%d sent, %d refused", len(p.seen), len(refused))
		}
		for _, err := range refused {
			e, ok := errors.AsType[*oci.Error](err)
			if !ok || e.Status != 429 || e.RetryAfter < 10*time.Second || !errors.Is(err, upstream.ErrBusy) {
				t.Errorf("%v", err)
			}
		}
		// The time that a caller has left counts, too.
		began := time.Now()
		get := func(within time.Duration) error {
			ctx, cancel := context.WithTimeout(t.Context(), within)
			defer cancel()
			return get(ctx, c, upstream.Repo{Name: "app"})
		}
		if err := errors.Join(get(1500*time.Millisecond), get(1500*time.Millisecond)); err != nil {
			t.Error(err)
		}
		if err := get(500 * time.Millisecond); !errors.Is(err, upstream.ErrBusy) {
			t.Error(err)
		}
		if d := time.Since(began); d > 2100*time.Millisecond {
			t.Errorf("it took %v", d)
		}
		idle(t, l)
	})
}

// A full queue makes room for who has little in it, at the cost of who has most.
func TestLimiterFullQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPaced()
		p.latency = time.Second
		c, l := limited(t, p, upstream.LimiterOptions{Slots: 1, Queue: 5})
		var wg sync.WaitGroup
		refused := map[string]int{}
		var mu sync.Mutex
		ask := func(how upstream.Call, repo string, n int) {
			for range n {
				wg.Go(func() {
					if err := get(t.Context(), c, upstream.Repo{Name: repo, Call: how}); err != nil {
						mu.Lock()
						refused[repo]++
						mu.Unlock()
					}
				})
				synctest.Wait()
			}
		}
		background := upstream.Call{Background: upstream.NewUrgency()}
		ask(upstream.Call{}, "busy", 1)
		ask(background, "ahead", 1)
		ask(upstream.Call{}, "busy", 6) // drives out the background, and is refused itself
		ask(upstream.Call{}, "small", 3)
		wg.Wait()
		if diff := cmp.Diff(map[string]int{"ahead": 1, "busy": 3, "small": 1}, refused); diff != "" {
			t.Error(diff)
		}
		idle(t, l)
	})
}

// A request that is abandoned leaves the queue, or returns the slot that it was just granted.
func TestLimiterCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPaced()
		p.latency = time.Second
		c, l := limited(t, p, upstream.LimiterOptions{Slots: 1})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for i := range 30 {
			wg.Go(func() {
				if err := get(ctx, c, upstream.Repo{Name: fmt.Sprint(i)}); i > 3 && err != nil && !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			})
		}
		time.Sleep(3*time.Second + time.Second/2)
		cancel()
		wg.Wait()
		if d := time.Since(p.began); d != 3500*time.Millisecond || len(p.seen) != 4 {
			t.Errorf("%d requests, the last left after %v", len(p.seen), d)
		}
		idle(t, l)
		if err := get(t.Context(), c, upstream.Repo{Name: "next"}); err != nil {
			t.Error(err)
		}
	})
}

// The quota of Docker Hub is shown, and its end is left to clients.
func TestQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPaced()
		left := 100
		p.answer = func(r *http.Request, _ int) *http.Response {
			left -= 30
			return respond(r, 200, `{"schemaVersion":2,"manifests":[]}`, http.Header{"Content-Type": {oci.MediaTypeOCIIndex},
				"Ratelimit-Limit": {"100;w=21600"}, "Ratelimit-Remaining": {fmt.Sprintf("%d;w=21600", left)}, "Docker-Ratelimit-Source": {"192.0.2.1"}})
		}
		c, l := limited(t, p, upstream.LimiterOptions{Reserve: 20})
		shown := func(want string) {
			t.Helper()
			reg := prometheus.NewPedanticRegistry()
			reg.MustRegister(l.Collectors()[4])
			if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "dray_upstream_quota_remaining", "dray_upstream_quota_source", "dray_upstream_quota_limit"); err != nil {
				t.Error(err)
			}
		}
		shown("")
		client, background := upstream.Repo{Name: "app"}, upstream.Repo{Name: "app", Call: upstream.Call{Background: upstream.NewUrgency()}}
		for _, repo := range []upstream.Repo{background, client, background} { // 70, 40, 10 are left
			if err := get(t.Context(), c, repo); err != nil {
				t.Error(err)
			}
		}
		if err := get(t.Context(), c, background); !errors.Is(err, upstream.ErrBusy) || len(p.seen) != 3 {
			t.Errorf("%v, %d requests", err, len(p.seen))
		}
		shown(`
# HELP dray_upstream_quota_limit Pulls that the upstream allows in its window.
# TYPE dray_upstream_quota_limit gauge
dray_upstream_quota_limit{upstream="x"} 100
# HELP dray_upstream_quota_remaining Pulls that remained when the upstream last answered. The metric is missing after the window has passed.
# TYPE dray_upstream_quota_remaining gauge
dray_upstream_quota_remaining{upstream="x"} 10
# HELP dray_upstream_quota_source Always 1. The label source is the address or the account whose pulls the upstream counts.
# TYPE dray_upstream_quota_source gauge
dray_upstream_quota_source{source="192.0.2.1",upstream="x"} 1
`)
		left = 100
		time.Sleep(6 * time.Hour) // the window has passed
		shown("")
		if err := get(t.Context(), c, background); err != nil {
			t.Error(err)
		}
	})
}

func TestRatesWith(t *testing.T) {
	rates, err := ecr.Private().RatesWith(map[string]float64{"PutImage": 5, "BatchGetImage": 0, "list": 3})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, r := range rates {
		got[r.Name] = r.PerSecond
	}
	if got["PutImage"] != 5 || got["list"] != 3 || got["InitiateLayerUpload"] != 100 || len(got) != 7 {
		t.Errorf("%v", got)
	}
	for _, name := range []string{"manifest_put", "putimage", ""} {
		if _, err := ecr.Private().RatesWith(map[string]float64{name: 1}); err == nil || !strings.Contains(err.Error(), "PutImage") {
			t.Errorf("%q: %v", name, err)
		}
	}
	if _, err := (upstream.Quirks{}).RatesWith(map[string]float64{"manifest_put": 1}); err != nil {
		t.Error(err)
	}
}
