package cache

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"

	"dray/cache/disk"
	"dray/cache/memory"
)

// objects holds small objects, such as manifests, in memory and on disk.
type objects struct {
	*resources
	memory *memory.LRU
}

// Put stores a small object in memory and on disk. It returns ErrCorrupt, ErrSize or ErrDigest if p
// is not the content of b. If the disk fails, Put counts the failure and returns nil. p must not be
// changed afterwards.
func (o *objects) Put(ctx context.Context, b Blob, p []byte) error {
	if err := verify(b, p); err != nil {
		return fmt.Errorf("put %s: %w", b.Digest, err)
	}
	o.memory.Add(b.Digest, p)
	if _, held := o.disk.Stat(b.Digest); held {
		return nil
	}
	if why := o.store(ctx, b.Digest, p); why != nil {
		o.degraded(why, b.Digest)
	}
	return nil
}

func (o *objects) store(ctx context.Context, d digest.Digest, p []byte) *localError {
	in, err := o.disk.Create(ctx, int64(len(p)))
	if err != nil {
		return local("create", err)
	}
	defer in.Abort()
	if _, err := in.Write(p); err != nil {
		return local("write", err)
	}
	blob, err := in.Commit(ctx, d)
	if err != nil {
		return local("commit", err)
	}
	if err := blob.Close(); err != nil {
		return local("commit", err)
	}
	return nil
}

// Bytes returns a small object, whose digest was verified, from memory or disk. Bytes returns
// ErrNotFound if neither of them holds the object. It returns ErrTooLarge if the object is longer
// than maxBytes, and the error of the disk if the disk fails. The caller must not change the bytes.
func (o *objects) Bytes(ctx context.Context, d digest.Digest, maxBytes int64) ([]byte, error) {
	if p, ok := o.memory.Get(d); ok {
		if int64(len(p)) > maxBytes {
			return nil, fmt.Errorf("read %s: more than %d bytes: %w", d, maxBytes, ErrTooLarge)
		}
		return p, nil
	}
	p, err := o.load(ctx, d, maxBytes)
	if err == nil {
		o.memory.Add(d, p)
		return p, nil
	}
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrDigest) || errors.Is(err, ErrTooLarge) || ctx.Err() != nil {
		return nil, err
	}
	o.degraded(local(reasonRead, err), d)
	o.unreadable(ctx, d, err)
	return nil, err
}

// Peek is Bytes for maintenance and inspection. Peek does not count as a use for eviction, and does
// not put the object into memory. If the disk fails, Peek neither counts the failure nor drops the
// object.
func (o *objects) Peek(ctx context.Context, d digest.Digest, maxBytes int64) ([]byte, error) {
	if p, ok := o.memory.Peek(d); ok && int64(len(p)) <= maxBytes {
		return p, nil
	}
	blob, err := o.disk.Peek(d)
	if err != nil {
		return nil, err
	}
	return o.read(ctx, blob, maxBytes)
}

// load reads an object from disk. It moves a corrupt object to quarantine and returns ErrNotFound.
func (o *objects) load(ctx context.Context, d digest.Digest, maxBytes int64) ([]byte, error) {
	blob, err := o.disk.Open(ctx, d)
	if err != nil {
		return nil, err
	}
	return o.read(ctx, blob, maxBytes)
}

// read does the same as [objects.load], for a blob that is open already. It closes the blob.
func (o *objects) read(ctx context.Context, blob *disk.Blob, maxBytes int64) ([]byte, error) {
	defer blob.Close()
	d := blob.Digest()
	if blob.Size() > maxBytes {
		return nil, fmt.Errorf("read %s: %d bytes, more than %d: %w", d, blob.Size(), maxBytes, ErrTooLarge)
	}
	p := make([]byte, blob.Size())
	if _, err := blob.ReadAt(p, 0); err != nil && err != io.EOF {
		return nil, fmt.Errorf("read %s: %w", d, err)
	}
	if verify(Blob{Digest: d, Size: blob.Size()}, p) == nil {
		return p, nil
	}
	if err := o.disk.Discard(ctx, d); err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("read %s: %w", d, ErrNotFound)
}

// verify returns an error if p is not the blob.
func verify(b Blob, p []byte) error {
	if err := b.Digest.Validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrDigest, err)
	}
	if b.Size >= 0 && int64(len(p)) != b.Size {
		return fmt.Errorf("%d bytes instead of %d: %w", len(p), b.Size, ErrSize)
	}
	if got := b.Digest.Algorithm().FromBytes(p); got != b.Digest {
		return fmt.Errorf("the bytes have the digest %s: %w", got, ErrCorrupt)
	}
	return nil
}
