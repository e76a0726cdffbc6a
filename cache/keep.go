package cache

import (
	"context"

	"github.com/opencontainers/go-digest"
)

// Keep keeps a blob that is on disk from being evicted until release is called, and returns once it is on stable storage.
// It returns ErrNotFound when the disk does not hold it; see [disk.Dir.Keep].
func (c *Cache) Keep(ctx context.Context, d digest.Digest) (release func(), err error) {
	return c.disk.Keep(ctx, d)
}

// OpenHeld is Open for a blob that must come from here: it returns ErrNotFound where neither memory nor disk holds it.
func (c *Cache) OpenHeld(ctx context.Context, d digest.Digest) (*Reader, error) {
	none := func(context.Context, int64) (Stream, error) { return Stream{}, ErrNotFound }
	if p, ok := c.memory.get(d); ok {
		return c.reader(ctx, Blob{Digest: d, Size: int64(len(p))}, none, memoryBytes(p), SourceMemory), nil
	}
	blob, err := c.disk.Open(ctx, d)
	if err != nil {
		return nil, err
	}
	return c.reader(ctx, Blob{Digest: d, Size: blob.Size()}, none, diskBytes{blob}, SourceDisk), nil
}
