package cache

import (
	"errors"
	"testing"

	"github.com/opencontainers/go-digest"

	"dray/cache/disk"
)

// TestPeekAndPurge checks that Peek does not count as a use, and that a purged blob is neither in
// memory nor on disk.
func TestPeekAndPurge(t *testing.T) {
	dir, err := disk.Open(disk.Options{Path: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	c := New(Options{Disk: dir})
	p := []byte("an object")
	d := digest.FromBytes(p)
	if _, err := c.Peek(t.Context(), d, 100); !errors.Is(err, ErrNotFound) {
		t.Errorf("before it came: %v", err)
	}
	if err := c.Put(t.Context(), Blob{Digest: d, Size: -1}, p); err != nil {
		t.Fatal(err)
	}
	c.memory.Remove(d)
	for range 2 {
		got, err := c.Peek(t.Context(), d, 100)
		if err != nil || string(got) != string(p) {
			t.Errorf("%q, %v", got, err)
		}
	}
	if _, err := c.Peek(t.Context(), d, 3); !errors.Is(err, ErrTooLarge) {
		t.Errorf("with a bound: %v", err)
	}
	if info, _ := dir.Lookup(d); info.Hits != 0 || c.memory.Size() != 0 {
		t.Errorf("%d hits, %d bytes in memory", info.Hits, c.memory.Size())
	}
	if got, err := c.Bytes(t.Context(), d, 100); err != nil || string(got) != string(p) {
		t.Errorf("%q, %v", got, err)
	}
	release, err := c.Retain(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Purge(t.Context(), d, disk.UnlessNeeded); !errors.Is(err, ErrInUse) {
		t.Errorf("what a push needs: %v", err)
	}
	release()
	if err := c.Purge(t.Context(), d, disk.UnlessInUse); err != nil {
		t.Error(err)
	}
	if _, held := c.Stat(d); held {
		t.Error("still held")
	}
	if err := c.Purge(t.Context(), d, disk.UnlessInUse); err != nil {
		t.Errorf("what is gone: %v", err)
	}
}
