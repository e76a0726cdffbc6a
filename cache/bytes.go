package cache

import (
	"bytes"
	"context"
	"io"
)

// Source says where the bytes of a reader come from.
type Source string

// The sources of bytes.
const (
	SourceMemory Source = "memory"
	SourceDisk   Source = "disk"
	SourceFlight Source = "flight" // a fetch that another reader has started
	SourceOrigin Source = "origin" // a fetch that this reader has started, or a prefetch of which it is the first reader
	SourceDirect Source = "direct" // passed through, because the cache could not store or read the blob
)

// bytesAt is where a reader gets its bytes. If readAt returns a localError, the reader goes on
// with another bytesAt (see failOver).
type bytesAt interface {
	readAt(ctx context.Context, p []byte, off int64) (int, error)
	total() int64                           // length of the blob in bytes, or -1 if unknown
	raw() io.ReaderAt                       // reads bytes that have arrived, without waiting
	waitVerified(ctx context.Context) error // waits until the bytes are known to be right or wrong
	close() error                           // may be called during readAt
}

// memoryBytes are the bytes of an object held in memory.
type memoryBytes []byte

func (m memoryBytes) readAt(_ context.Context, p []byte, off int64) (int, error) {
	if off >= int64(len(m)) {
		return 0, io.EOF
	}
	return copy(p, m[off:]), nil
}

func (m memoryBytes) total() int64     { return int64(len(m)) }
func (m memoryBytes) raw() io.ReaderAt { return bytes.NewReader(m) }
func (m memoryBytes) close() error     { return nil }

func (m memoryBytes) waitVerified(context.Context) error { return nil }
