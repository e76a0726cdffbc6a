package disk

import (
	"io/fs"
	"sync/atomic"
	"time"
)

// blockSize is what a file is rounded up to in all accounts, in bytes.
const blockSize = 4096

// maxHits is where the counter of hits ends: two bits.
const maxHits = 3

// entry is one blob of the index.
type entry struct {
	key
	size  int64
	refs  atomic.Int32  // readers, pins of a push, tended; while above zero the entry is not evicted
	hits  atomic.Uint32 // saturating; all that a hit writes
	touch atomic.Int64  // last use in Unix nanoseconds, as far as the file knows it

	unlinked atomic.Bool // the file is gone, its blocks are held by readers at most

	// Guarded by account.mu.
	suspect bool  // from an unclean stop, not yet verified
	clean   bool  // marked on disk as synced
	gone    bool  // out of the index
	tended  uint8 // how many of refs are the directory's own; see account.tend

	queue      *fifo // guarded as the policy is
	prev, next *entry
}

// path returns where the file of the blob lives.
func (e *entry) path() string { return validPath(e.digest()) }

func (e *entry) blocks() int64 { return blocks(e.size) }

func (e *entry) hit() {
	if n := e.hits.Load(); n < maxHits {
		e.hits.CompareAndSwap(n, n+1) // a lost race loses one hit of many
	}
}

// blocks rounds a length up to what it is taken to occupy; an empty file counts for one block.
func blocks(n int64) int64 {
	return max(blockSize, (n+blockSize-1)/blockSize*blockSize)
}

// newEntry describes a file found in the directory.
func newEntry(k key, size int64, mode fs.FileMode, mtime time.Time) *entry {
	e := &entry{key: k, size: size, clean: mode&0o222 == 0}
	e.suspect = !e.clean
	e.touch.Store(mtime.UnixNano())
	return e
}
