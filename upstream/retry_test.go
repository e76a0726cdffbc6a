package upstream_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/upstream"
	"dray/upstream/oci"
)

// scripted is a Source whose every call takes latency and then fails as the script says; past its
// end it succeeds.
type scripted struct {
	mu      sync.Mutex
	script  []error
	forever error
	calls   int
	latency time.Duration
}

var _ upstream.Source = (*scripted)(nil)

func (s *scripted) next(ctx context.Context) error {
	if s.latency > 0 {
		select {
		case <-time.After(s.latency):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if s.calls <= len(s.script) {
		return s.script[s.calls-1]
	}
	return s.forever
}

func (s *scripted) Manifest(ctx context.Context, _ upstream.Repo, _ oci.Reference, _ []string) (*oci.Manifest, error) {
	return &oci.Manifest{}, s.next(ctx)
}

func (s *scripted) StatManifest(ctx context.Context, _ upstream.Repo, _ oci.Reference, _ []string) (oci.Descriptor, error) {
	return oci.Descriptor{}, s.next(ctx)
}

func (s *scripted) Blob(ctx context.Context, _ upstream.BlobRequest) (upstream.BlobStream, error) {
	return upstream.BlobStream{}, s.next(ctx)
}

func (s *scripted) StatBlob(ctx context.Context, _ upstream.Repo, _ digest.Digest) (int64, error) {
	return 7, s.next(ctx)
}

func unreachable() error {
	return oci.ErrUnavailable.With("down").Because(fmt.Errorf("%w: refused", upstream.ErrUnreachable))
}

func after(d time.Duration) error {
	e := *oci.ErrTooManyRequests
	e.RetryAfter = d
	return &e
}

func TestRetry(t *testing.T) {
	for name, c := range map[string]struct {
		script  []error
		forever error
		calls   int
		least   time.Duration // of waiting
		most    time.Duration
		want    error
	}{
		"nothing wrong":       {nil, nil, 1, 0, 0, nil},
		"throttled twice":     {[]error{oci.ErrTooManyRequests, oci.ErrTooManyRequests}, nil, 3, 300 * time.Millisecond, 600 * time.Millisecond, nil},
		"asked to wait":       {[]error{after(3 * time.Second)}, nil, 2, 3 * time.Second, 3 * time.Second, nil},
		"asked for too much":  {[]error{after(time.Minute)}, nil, 1, 0, 0, oci.ErrTooManyRequests},
		"failing, then well":  {[]error{oci.ErrUnknown, oci.ErrUnavailable, unreachable()}, nil, 4, 700 * time.Millisecond, 1400 * time.Millisecond, nil},
		"not found":           {nil, oci.ErrManifestUnknown, 1, 0, 0, oci.ErrManifestUnknown},
		"denied":              {nil, oci.ErrDenied, 1, 0, 0, oci.ErrDenied},
		"credentials":         {nil, oci.ErrUnavailable.Because(upstream.ErrCredentials), 1, 0, 0, upstream.ErrCredentials},
		"corrupt":             {nil, (&oci.Error{Status: http.StatusBadGateway}).Because(upstream.ErrCorrupt), 1, 0, 0, upstream.ErrCorrupt},
		"breaker":             {nil, nil, 1, 0, 0, nil},
		"not implemented":     {nil, &oci.Error{Code: "X", Status: http.StatusNotImplemented}, 1, 0, 0, &oci.Error{Code: "X"}},
		"cancelled by caller": {nil, context.Canceled, 1, 0, 0, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src := &scripted{script: c.script, forever: c.forever}
				if name == "breaker" {
					b := upstream.NewBreaker(upstream.BreakerOptions{Threshold: 1})
					_ = b.Do(unreachable)
					src.forever, c.want = b.Do(unreachable), upstream.ErrUnreachable
				}
				began := time.Now()
				_, err := upstream.NewRetry(src, upstream.RetryOptions{}).Manifest(t.Context(), upstream.Repo{Name: "r"}, oci.Reference{Tag: "t"}, nil)
				if !errors.Is(err, c.want) || c.want == nil && err != nil {
					t.Errorf("got %v, want %v", err, c.want)
				}
				if d := time.Since(began); d < c.least || d > c.most {
					t.Errorf("waited %v, want %v to %v", d, c.least, c.most)
				}
				if src.calls != c.calls {
					t.Errorf("%d calls, want %d", src.calls, c.calls)
				}
			})
		})
	}
}

func TestRetryKeepsItsBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &scripted{forever: unreachable()}
		began := time.Now()
		_, err := upstream.NewRetry(src, upstream.RetryOptions{}).Blob(t.Context(), upstream.BlobRequest{Repo: upstream.Repo{Name: "r"}, Digest: "d"})
		if d := time.Since(began); !errors.Is(err, upstream.ErrUnreachable) || d > 20*time.Second || d < 14*time.Second {
			t.Errorf("gave up after %v with %v; the budget is 20s", d, err)
		}
		if src.calls < 6 || src.calls > 13 {
			t.Errorf("%d calls within 20s", src.calls)
		}
		src = &scripted{forever: unreachable()}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began = time.Now()
		if _, err := upstream.NewRetry(src, upstream.RetryOptions{}).StatBlob(ctx, upstream.Repo{Name: "r"}, "d"); !errors.Is(err, upstream.ErrUnreachable) {
			t.Errorf("got %v, want the last failure", err)
		}
		if d := time.Since(began); d != time.Second {
			t.Errorf("gave up after %v, the caller had a second", d)
		}
	})
}
