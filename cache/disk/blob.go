package disk

import (
	"os"
	"sync"

	"github.com/opencontainers/go-digest"
)

// Blob is an open blob. It is not evicted before it is closed.
type Blob struct {
	home  *resources
	entry *entry
	file  *os.File
	again bool // Close keeps the file open for the next reader
	once  sync.Once
	extra int64 // reserved bytes that Close releases; 0 unless Ingest.duplicate made the Blob
}

// Digest returns the digest of the blob.
func (b *Blob) Digest() digest.Digest { return b.entry.digest() }

// Size returns the length of the blob in bytes.
func (b *Blob) Size() int64 { return b.entry.size }

// File returns the file, for sendfile and splice. The file belongs to the Blob: do not close it or
// write to it, and do not use it after Close.
func (b *Blob) File() *os.File { return b.file }

// ReadAt implements io.ReaderAt. It may be called concurrently.
func (b *Blob) ReadAt(p []byte, off int64) (int, error) {
	if err := b.home.fault(OpRead, b.file.Name()); err != nil {
		return 0, err
	}
	return b.file.ReadAt(p, off)
}

// Close ends the use of the blob. Further calls do nothing.
func (b *Blob) Close() error {
	var err error
	b.once.Do(func() {
		if b.again {
			err = b.home.files.put(b.entry, b.file)
		} else {
			err = b.file.Close()
		}
		b.home.unref(b.entry)
		if b.extra > 0 {
			b.home.release(b.extra, 0)
		}
	})
	return err
}
