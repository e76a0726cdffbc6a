package cache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"github.com/opencontainers/go-digest"

	"dray/cache/disk"
)

// TestLookAgain has a caller board after it has missed on disk what was published a moment later.
func TestLookAgain(t *testing.T) {
	d, err := disk.Open(disk.Options{Path: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	c := New(Options{Disk: d})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
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
	if _, err := c.ride(t.Context(), b, origin); !errors.Is(err, errLookAgain) {
		t.Errorf("got %v", err)
	}
	if asked != 0 {
		t.Error("the origin was asked for what is on disk")
	}
}
