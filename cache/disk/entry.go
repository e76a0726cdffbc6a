package disk

import (
	"io/fs"
	"sync/atomic"
	"time"
)

// blockSize is the length of a block in bytes. dray counts the space that a file takes in whole
// blocks.
const blockSize = 4096

// maxHits is the greatest count of hits: it fits in two bits.
const maxHits = 3

// entry is one blob of the index. If a function takes or returns a "referenced" entry, its caller
// has a reference to the entry, which refs counts. The caller drops it with account.unref.
type entry struct {
	key
	size  int64
	refs  atomic.Int32  // readers, pushes (retainWeight each) and internal references; the blob is evicted only at zero
	hits  atomic.Uint32 // requests for the blob, up to maxHits; see policy
	touch atomic.Int64  // last use as recorded in the file's modification time, in Unix nanoseconds

	unlinked atomic.Bool // the file is no longer in blobs/; only readers that have it open still use it

	// Guarded by account.mu.
	suspect      bool  // must be verified before it is used: an unclean stop may have damaged it
	clean        bool  // marked on disk as synced
	gone         bool  // not in the index any more
	internalRefs uint8 // how many of refs come from account.refInternal

	queue      *fifo // account.mu guards this field and the next two, unless the entry is in a Simulation
	prev, next *entry
}

// path returns the name of the blob's file.
func (e *entry) path() string { return validPath(e.digest()) }

func (e *entry) blocks() int64 { return blocks(e.size) }

func (e *entry) hit() {
	if n := e.hits.Load(); n < maxHits {
		e.hits.CompareAndSwap(n, n+1) // if another hit comes at the same time, one of the two is lost
	}
}

// blocks returns a length in bytes, rounded up to whole blocks. An empty file counts as one block.
func blocks(n int64) int64 {
	return max(blockSize, (n+blockSize-1)/blockSize*blockSize)
}

// newEntry returns the entry for a file that was found in the directory. The entry is suspect if
// the file has write permission, because seal removes this permission after it has synced the file.
func newEntry(k key, size int64, mode fs.FileMode, mtime time.Time) *entry {
	e := &entry{key: k, size: size, clean: mode&0o222 == 0}
	e.suspect = !e.clean
	e.touch.Store(mtime.UnixNano())
	return e
}
