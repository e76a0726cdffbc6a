package cache_test

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"

	"dray/cache"
	"dray/cache/cachetest"
	"dray/cache/disk"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestReads(t *testing.T) {
	cachetest.TestReads(t, func(t *testing.T) *cache.Cache {
		c, _ := cachetest.Start(t, cache.Options{}, disk.Options{})
		return c
	})
}

// TestClose checks that a cache that is never run leaves nothing behind after Close.
func TestClose(t *testing.T) {
	p := []byte("the origin of this takes its time")
	b := cache.Blob{Digest: digest.FromBytes(p), Size: int64(len(p))}
	c := cache.New(cache.Options{Disk: cachetest.Open(t, disk.Options{})})
	ended := make(chan struct{})
	r, err := c.Open(t.Context(), b, func(ctx context.Context, _ int64) (cache.Stream, error) {
		body, feed := io.Pipe()
		context.AfterFunc(ctx, func() {
			feed.CloseWithError(context.Cause(ctx))
			close(ended)
		})
		return cache.Stream{Body: body, Size: b.Size}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c.Close()
	c.Close()
	<-ended
	if _, err := io.ReadAll(r); !errors.Is(err, cache.ErrClosed) {
		t.Errorf("read: %v, want %v", err, cache.ErrClosed)
	}
	r, err = c.Open(t.Context(), b, (&cachetest.Origin{Data: p}).Fetch)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || string(got) != string(p) || r.Source() != cache.SourceDirect {
		t.Errorf("%q, %v, from %s", got, err, r.Source())
	}
}
