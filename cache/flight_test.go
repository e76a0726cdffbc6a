package cache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"dray/cache/disk"
)

// running is a cache on a directory of its own, until the end of the test.
func running(t *testing.T) *Cache {
	t.Helper()
	d, err := disk.Open(disk.Options{Path: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	c := New(Options{Disk: d})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		d.Close()
	})
	return c
}

// TestLookAgain has a caller ask for a flight after it has missed, on disk, a blob that was
// published a moment later.
func TestLookAgain(t *testing.T) {
	c := running(t)
	p := []byte("published a moment later")
	b := Blob{Digest: digest.FromBytes(p), Size: int64(len(p))}
	asked := 0
	origin := func(context.Context, int64) (Stream, error) {
		asked++
		return Stream{Body: io.NopCloser(bytes.NewReader(p)), Size: b.Size}, nil
	}
	if why := c.store(t.Context(), b.Digest, p); why != nil {
		t.Fatal(why)
	}
	if _, err := c.flights.open(t.Context(), b, origin); !errors.Is(err, errLookAgain) {
		t.Errorf("got %v", err)
	}
	if asked != 0 {
		t.Error("the origin was asked for what is on disk")
	}
}

// TestAhead checks that a prefetch does not count as an open, that the first reader that joins it
// has SourceOrigin, and that the next one has SourceFlight.
func TestAhead(t *testing.T) {
	c := running(t)
	p := []byte("fetched before anybody asks")
	b := Blob{Digest: digest.FromBytes(p), Size: int64(len(p))}
	body, feed := io.Pipe()
	origin := func(context.Context, int64) (Stream, error) { return Stream{Body: body, Size: b.Size}, nil }
	ahead := b
	ahead.Ahead = true
	readers := make([]*Reader, 4)
	for i, asked := range []Blob{ahead, ahead, b, b} {
		r, err := c.Open(t.Context(), asked, origin)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		readers[i] = r
	}
	if first, next := readers[2].Source(), readers[3].Source(); first != SourceOrigin || next != SourceFlight {
		t.Errorf("the first reader has it from %s, the next one from %s", first, next)
	}
	for source, want := range map[Source]float64{SourceOrigin: 1, SourceFlight: 1} {
		if n := testutil.ToFloat64(c.m.opens.WithLabelValues(string(source))); n != want {
			t.Errorf("%v readers from %s", n, source)
		}
	}
	if _, err := feed.Write(p); err != nil {
		t.Fatal(err)
	}
	feed.Close()
	for _, r := range readers[2:] {
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, p) {
			t.Errorf("%q, %v", got, err)
		}
	}
}
