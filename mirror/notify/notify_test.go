package notify

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"dray/mirror/pipeline/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// service is an endpoint in memory.
type service struct {
	mu sync.Mutex
	// answers are given one after the other, and then 200; 0 is none.
	answers []int
	got     []string // repositories
	last    *http.Request
	body    string
	tries   []time.Time
}

func (s *service) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	s.tries, s.last, s.body = append(s.tries, time.Now()), r, string(body)
	status := http.StatusOK
	if len(s.answers) > 0 {
		status, s.answers = s.answers[0], s.answers[1:]
	}
	if status == 0 {
		return nil, errors.New("no route to host")
	}
	if status < 300 {
		var envelope struct{ Events []Event }
		if err := json.Unmarshal(body, &envelope); err != nil || len(envelope.Events) != 1 {
			return nil, errors.New("not an envelope")
		}
		s.got = append(s.got, envelope.Events[0].Target.Repository)
	}
	return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader("")), Header: http.Header{}, Request: r}, nil
}

func start(t *testing.T, s *service, e Endpoint) (*Notifier, func()) {
	t.Helper()
	e.URL = func() string { return "https://events.example.com/dray" }
	n, err := New([]Endpoint{e}, s, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = n.Run(ctx) }()
	return n, sync.OnceFunc(func() { cancel(); <-done })
}

func about(repo string) Event {
	return Event{Action: Push, Target: Target{Repository: repo, Size: 7}, Upstream: "ecr"}
}

func (n *Notifier) counted(result string) int {
	return int(testutil.ToFloat64(n.events.WithLabelValues("events.example.com", result)))
}

// Events arrive in order, each until it is accepted, with pauses that grow; what is refused for
// good holds up nobody.
func TestDelivers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &service{answers: []int{0, 503, 429, 200, 400}}
		n, stop := start(t, s, Endpoint{Service: webhook.Service{
			Header: func() http.Header { return http.Header{"X-Team": {"core"}} }, Secret: func() []byte { return []byte("key") },
		}})
		defer stop()
		began := time.Now()
		for _, repo := range []string{"a", "b", "c"} {
			n.Emit(about(repo))
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if want := []string{"a", "c"}; !slices.Equal(s.got, want) {
			t.Errorf("told of %v, want %v", s.got, want)
		}
		var after []time.Duration
		for _, at := range s.tries {
			after = append(after, at.Sub(began))
		}
		if want := []time.Duration{0, time.Second, 3 * time.Second, 7 * time.Second, 7 * time.Second, 7 * time.Second}; !slices.Equal(after, want) {
			t.Errorf("tried after %v, want %v", after, want)
		}
		if n.counted("sent") != 2 || n.counted("failed") != 3 || n.counted("refused") != 1 {
			t.Error("not counted")
		}
		h := s.last.Header
		if h.Get("Content-Type") != MediaType || h.Get("X-Team") != "core" || !strings.HasPrefix(h.Get(webhook.HeaderSignature), "sha256=") || h.Get(webhook.HeaderTime) == "" {
			t.Errorf("headers %v", h)
		}
		for _, want := range []string{`"id":"`, `"action":"push"`, `"length":7`, `"instanceID":"`, `"upstream":"ecr"`} {
			if !strings.Contains(s.body, want) {
				t.Errorf("%s is not in %s", want, s.body)
			}
		}
	})
}

// The backlog is bounded, and what waits when dray stops is tried once.
func TestBacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &service{answers: slices.Repeat([]int{503}, 5)}
		n, stop := start(t, s, Endpoint{Backlog: 2})
		n.Emit(about("a"))
		synctest.Wait() // it is being sent
		for _, repo := range []string{"b", "c", "d"} {
			n.Emit(about(repo))
		}
		if n.counted("dropped") != 1 {
			t.Errorf("%d dropped, want 1", n.counted("dropped"))
		}
		time.Sleep(10 * time.Second) // tried after 0, 1, 3 and 7 seconds
		synctest.Wait()
		stop() // the fifth refusal is of a
		if want := []string{"b", "c"}; !slices.Equal(s.got, want) || n.counted("dropped") != 2 {
			t.Errorf("told of %v, want %v; %d dropped", s.got, want, n.counted("dropped"))
		}
	})
}

func TestRefusesConfigurations(t *testing.T) {
	for _, e := range []Endpoint{{Timeout: -1}, {Backlog: -1}} {
		e.URL = func() string { return "http://e" }
		if _, err := New([]Endpoint{e}, nil, nil); err == nil {
			t.Errorf("%+v: accepted", e)
		}
	}
}

// silent is an endpoint that never answers.
type silent struct{}

func (silent) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// TestStop: a stop lasts for at most flushWithin, whatever dray does at that moment, and says
// nothing about the endpoint.
func TestStop(t *testing.T) {
	for range 20 { // the order in which Run sees the end and the events is random
		synctest.Test(t, func(t *testing.T) {
			n, err := New([]Endpoint{{Timeout: time.Minute, Service: webhook.Service{URL: func() string { return "https://events.example.com/dray" }}}}, silent{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			n.Emit(about("a"))
			time.AfterFunc(time.Second, func() {
				n.Emit(about("b"))
				n.Emit(about("c"))
				cancel()
			})
			began := time.Now()
			if err := n.Run(ctx); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took != time.Second+flushWithin || n.counted("dropped") != 3 || n.counted("failed") != 0 {
				t.Errorf("the stop took %v; %d events dropped, %d failed", took-time.Second, n.counted("dropped"), n.counted("failed"))
			}
		})
	}
}
