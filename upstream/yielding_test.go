package upstream_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dray/upstream"
	"dray/upstream/oci"
)

// slow is a registry that answers after a time, or when the context ends.
type slow struct {
	upstream.Source
	after time.Duration
	calls int
}

func (s *slow) Manifest(ctx context.Context, _ upstream.Repo, _ oci.Reference, _ []string) (*oci.Manifest, error) {
	s.calls++
	select {
	case <-time.After(s.after):
		return &oci.Manifest{}, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (s *slow) Blob(ctx context.Context, _ upstream.BlobRequest) (upstream.BlobStream, error) {
	return upstream.BlobStream{Body: io.NopCloser(until{ctx, strings.NewReader("blob")})}, nil
}

// until fails when ctx has ended.
type until struct {
	ctx context.Context
	io.Reader
}

func (u until) Read(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.Reader.Read(p)
}

// A caller that can ask another registry waits for 8 s. After that nobody waits until the next
// probe. The bound is not for background work, nor for the body of a blob.
func TestYielding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := &slow{after: 7 * time.Second}
		source := upstream.NewBreaker(upstream.BreakerOptions{Name: "x"}).Yielding(registry)
		ask := func(how upstream.Call, took time.Duration, calls int) error {
			t.Helper()
			began := time.Now()
			_, err := source.Manifest(t.Context(), upstream.Repo{Name: "r"}.With(how), oci.Reference{Tag: "v1"}, nil)
			if time.Since(began) != took || registry.calls != calls {
				t.Errorf("%v, %d questions, %v; want %v, %d", time.Since(began), registry.calls, err, took, calls)
			}
			return err
		}
		if err := ask(upstream.Call{}, 7*time.Second, 1); err != nil {
			t.Error(err)
		}
		registry.after = time.Hour
		if err := ask(upstream.Call{}, 8*time.Second, 2); !errors.Is(err, upstream.ErrUnreachable) || !upstream.Transient(err) || !strings.Contains(err.Error(), "the upstream registry x did not answer within 8s") {
			t.Error(err)
		}
		if err := ask(upstream.Call{}, 0, 2); !errors.Is(err, upstream.ErrUnreachable) {
			t.Error(err)
		}
		time.Sleep(5 * time.Second)
		registry.after = 20 * time.Second
		if err := ask(upstream.InBackground(), 20*time.Second, 3); err != nil {
			t.Error(err)
		}
		if err := ask(upstream.Call{}, 8*time.Second, 4); !errors.Is(err, upstream.ErrUnreachable) {
			t.Error(err)
		}

		time.Sleep(5 * time.Second)
		blob, err := source.Blob(t.Context(), upstream.BlobRequest{Repo: upstream.Repo{Name: "r"}})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if body, err := io.ReadAll(blob.Body); err != nil || string(body) != "blob" {
			t.Errorf("%q, %v", body, err)
		}

		urgent := upstream.InBackground()
		urgent.Background.Raise()
		if err := ask(urgent, 8*time.Second, 5); !errors.Is(err, upstream.ErrUnreachable) {
			t.Error(err)
		}
		time.Sleep(5 * time.Second)

		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := source.Manifest(ctx, upstream.Repo{Name: "r"}, oci.Reference{Tag: "v1"}, nil); !errors.Is(err, context.Canceled) || upstream.Transient(err) {
			t.Errorf("the client left: %v", err)
		}
	})
}

// late is a registry whose blobs come only after the caller has given up.
type late struct {
	upstream.Source
	closed bool
}

func (l *late) Blob(ctx context.Context, _ upstream.BlobRequest) (upstream.BlobStream, error) {
	<-ctx.Done()
	return upstream.BlobStream{Body: l}, nil
}

func (l *late) Read([]byte) (int, error) { return 0, context.Canceled }

func (l *late) Close() error {
	l.closed = true
	return nil
}

// TestYieldingTooLate has an answer arrive just as the time for it ends. Nobody gets its body,
// which could no longer be read.
func TestYieldingTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var registry late
		source := upstream.NewBreaker(upstream.BreakerOptions{Name: "x"}).Yielding(&registry)
		s, err := source.Blob(t.Context(), upstream.BlobRequest{Repo: upstream.Repo{Name: "r"}})
		if !errors.Is(err, upstream.ErrUnreachable) || s.Body != nil || !registry.closed {
			t.Errorf("%v, a body: %v, closed: %v", err, s.Body != nil, registry.closed)
		}
	})
}
