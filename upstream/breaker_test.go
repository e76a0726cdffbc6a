package upstream_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"dray/upstream"
	"dray/upstream/oci"
	"dray/upstream/upstreamtest"
)

func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := upstream.NewBreaker(upstream.BreakerOptions{Name: "x", Threshold: 3, Probe: 5 * time.Second})
		src := &scripted{forever: unreachable()}
		needy := b.Source(src)
		try := func(calls int, open bool) {
			t.Helper()
			_, err := needy.StatBlob(t.Context(), upstream.Repo{Name: "r"}, "d")
			_, refused := errors.AsType[*upstream.OpenError](err)
			if src.calls != calls || refused != open {
				t.Fatalf("%d calls, refused %v (%v); want %d, %v", src.calls, refused, err, calls, open)
			}
			if refused && (!errors.Is(err, upstream.ErrUnreachable) || !errors.Is(err, oci.ErrUnavailable) || !upstream.Transient(err)) {
				t.Errorf("the refusal is %v", err)
			}
		}
		try(1, false)
		try(2, false)
		if s := b.State(); s.Open || s.Failures != 2 || s.Last == nil {
			t.Errorf("before the threshold: %+v", s)
		}
		try(3, false)
		try(3, true)
		if s := b.State(); !s.Open || time.Until(s.Next) != 5*time.Second {
			t.Errorf("open: %+v", s)
		}
		time.Sleep(5*time.Second - time.Nanosecond)
		try(3, true)
		time.Sleep(time.Nanosecond)
		try(4, false) // the probe, which fails
		try(4, true)
		if got := testutil.ToFloat64(b.Collectors()[1]); got != 1 {
			t.Errorf("gauge %v while open", got)
		}

		time.Sleep(5 * time.Second)
		src.forever, src.latency = nil, time.Second
		var wg sync.WaitGroup
		refused, passed := 0, 0
		var mu sync.Mutex
		for range 10 {
			wg.Go(func() {
				_, err := needy.StatBlob(t.Context(), upstream.Repo{Name: "r"}, "d")
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					passed++
				} else {
					refused++
				}
			})
		}
		wg.Wait()
		if passed != 1 || refused != 9 {
			t.Errorf("%d probes at once, %d refused; want 1 and 9", passed, refused)
		}
		if s := b.State(); s.Open || s.Failures != 0 || s.Last != nil {
			t.Errorf("after a good probe: %+v", s)
		}
		try(6, false)
	})
}

// TestHeldAnswersAreSpared is the budget "tag, held, upstream down: 1 attempt, then 0 until the
// breaker's next probe".
func TestHeldAnswersAreSpared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := upstream.NewBreaker(upstream.BreakerOptions{Probe: 5 * time.Second})
		src := &scripted{forever: unreachable()}
		held, needy := b.Held(src), b.Source(src)
		ref := oci.Reference{Tag: "t"}
		for range 100 {
			if _, err := held.StatManifest(t.Context(), upstream.Repo{Name: "r"}, ref, nil); !upstream.Transient(err) {
				t.Fatal(err)
			}
		}
		if src.calls != 1 {
			t.Fatalf("%d attempts for callers with an older answer, want 1", src.calls)
		}
		if _, err := needy.Manifest(t.Context(), upstream.Repo{Name: "r"}, ref, nil); err == nil || src.calls != 2 {
			t.Errorf("a caller with nothing was refused after one failure")
		}
		time.Sleep(5 * time.Second)
		for range 100 {
			_, _ = held.StatManifest(t.Context(), upstream.Repo{Name: "r"}, ref, nil)
		}
		if src.calls != 3 {
			t.Errorf("%d attempts after the probe, want 3", src.calls)
		}
		time.Sleep(5 * time.Second)
		src.forever = oci.ErrManifestUnknown // an answer, even if it is no
		_, _ = held.StatManifest(t.Context(), upstream.Repo{Name: "r"}, ref, nil)
		_, _ = held.StatManifest(t.Context(), upstream.Repo{Name: "r"}, ref, nil)
		if src.calls != 5 {
			t.Errorf("%d attempts once the upstream answers, want 5", src.calls)
		}
	})
}

// TestBreakerLasting: what many callers meet in a moment is no outage.
func TestBreakerLasting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := upstream.NewBreaker(upstream.BreakerOptions{Threshold: 3, Lasting: 2 * time.Second})
		src := &scripted{forever: unreachable()}
		needy := b.Source(src)
		try := func(calls int) {
			t.Helper()
			if _, err := needy.StatBlob(t.Context(), upstream.Repo{Name: "r"}, "d"); err == nil || src.calls != calls {
				t.Errorf("%d calls, want %d", src.calls, calls)
			}
		}
		for i := range 20 {
			try(i + 1)
		}
		if b.State().Open {
			t.Error("open at once")
		}
		time.Sleep(2 * time.Second)
		if !b.State().Open {
			t.Error("not open")
		}
		try(20)
		time.Sleep(3 * time.Second)
		try(21) // the probe
		try(21)
		src.forever = nil
		time.Sleep(5 * time.Second)
		if _, err := needy.StatBlob(t.Context(), upstream.Repo{Name: "r"}, "d"); err != nil || b.State().Failures != 0 {
			t.Errorf("%v %+v", err, b.State())
		}
	})
}

// TestBreakerStorage: a storage that is down costs blobs and nothing else.
func TestBreakerStorage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, broken := range map[string]func(r *http.Request) (*http.Response, error){
			"unreachable": func(*http.Request) (*http.Response, error) { return nil, errors.New("refused") },
			"failing":     func(r *http.Request) (*http.Response, error) { return respond(r, 500, "", nil), nil },
		} {
			p, down := newPaced(), true
			p.answer = func(r *http.Request, _ int) *http.Response {
				if strings.Contains(r.URL.Path, "/blobs/") {
					return respond(r, 307, "", http.Header{"Location": {"http://storage.example/v2/bytes"}})
				}
				return nil
			}
			asked := 0
			via := roundTrip(func(r *http.Request) (*http.Response, error) {
				if r.URL.Host == "storage.example" {
					asked++
					if down {
						return broken(r)
					}
				}
				return p.RoundTrip(r)
			})
			b := upstream.NewBreaker(upstream.BreakerOptions{Name: "x", Threshold: 3})
			s := b.Source(upstreamtest.NewClient(t, upstream.Options{Name: "x", Base: parse(t, "http://registry.example"), Transport: via}))
			repos := 0
			open := func() error {
				repos++
				bs, err := s.Blob(t.Context(), upstream.BlobRequest{Repo: upstream.Repo{Name: fmt.Sprint("r", repos)}, Digest: digest.FromString("x")})
				if err == nil {
					_ = bs.Body.Close()
				}
				return err
			}
			for range 3 {
				if _, refused := errors.AsType[*upstream.OpenError](open()); refused {
					t.Errorf("%s: refused too early", name)
				}
			}
			before := asked
			if _, refused := errors.AsType[*upstream.OpenError](open()); !refused || asked != before || !b.State().Open {
				t.Errorf("%s: the storage is still asked", name)
			}
			if err := get(t.Context(), s, upstream.Repo{Name: "r"}); err != nil {
				t.Errorf("%s: a manifest: %v", name, err)
			}
			if err := open(); err == nil || asked != before {
				t.Errorf("%s: a manifest says nothing about the storage: %v", name, err)
			}
			down = false
			time.Sleep(5 * time.Second)
			if err := open(); err != nil || b.State().Failures != 0 {
				t.Errorf("%s: the probe: %v, %+v", name, err, b.State())
			}
		}
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestBreakerLearnsNothingFromCancelling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := upstream.NewBreaker(upstream.BreakerOptions{Threshold: 1, Probe: time.Second})
		_ = b.Do(unreachable)
		time.Sleep(time.Second)
		for range 3 { // each is a probe that says nothing, and frees the circuit for the next
			if err := b.Do(func() error { return context.Canceled }); !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
		}
		func() {
			defer func() { _ = recover() }()
			_ = b.Do(func() error { panic("caller") })
		}()
		if s := b.State(); s.Failures != 1 {
			t.Errorf("failures %d, want 1", s.Failures)
		}
		if err := b.Do(func() error { return nil }); err != nil || b.State().Failures != 0 {
			t.Errorf("the next probe: %v, %+v", err, b.State())
		}
	})
}

// TestBreakerTakesARefusedRangeForAnAnswer: a storage that says how long a blob is has no failure.
func TestBreakerTakesARefusedRangeForAnAnswer(t *testing.T) {
	b := upstream.NewBreaker(upstream.BreakerOptions{Threshold: 1})
	_ = b.Do(func() error { return fmt.Errorf("%w: %w", upstream.ErrStorage, oci.ErrRangeInvalid) })
	if s := b.State(); s.Failures != 0 {
		t.Errorf("the registry was blamed: %+v", s)
	}
}

// TestBreakerIgnoresTheClientsFailures has pushes whose bytes fail on dray's side.
func TestBreakerIgnoresTheClientsFailures(t *testing.T) {
	b := upstream.NewBreaker(upstream.BreakerOptions{Threshold: 1})
	sink := b.Sink(upstreamtest.NewRegistry(t).Client(t, upstream.Quirks{}))
	u := upstreamtest.Stream([]byte("x"))
	u.Digest = func() (digest.Digest, error) { return "", unreachable() } // of another registry
	if err := sink.PutBlob(t.Context(), upstream.Repo{Name: "a"}, u); err == nil {
		t.Fatal("unverified bytes were taken")
	}
	if s := b.State(); s.Failures != 0 {
		t.Errorf("the registry was blamed: %+v", s)
	}
}

func TestMetricsOfTwoUpstreams(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	for _, name := range []string{"a", "b"} {
		c, err := upstream.New(upstream.Options{Name: name, Base: parse(t, "http://x"), Transport: upstream.NewTransport(upstream.TransportOptions{})})
		if err != nil {
			t.Fatal(err)
		}
		reg.MustRegister(c.Collectors()...)
		reg.MustRegister(upstream.NewBreaker(upstream.BreakerOptions{Name: name}).Collectors()...)
		reg.MustRegister(upstream.NewRetry(c, upstream.RetryOptions{Name: name}).Collectors()...)
	}
	if _, err := reg.Gather(); err != nil {
		t.Error(err)
	}
}
