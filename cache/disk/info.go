package disk

import (
	"time"

	"github.com/opencontainers/go-digest"
)

// Info describes a blob as the directory knows it at one moment.
type Info struct {
	Digest digest.Digest
	Size   int64 // in bytes
	// LastUse is when the blob was last used. It may be up to one hour too early.
	LastUse time.Time
	// Hits counts requests for the blob, up to 3. Eviction spares a blob that has hits, but lowers the
	// count each time. A blob in the main queue (see Proven) loses one hit. A blob in the short queue,
	// where all other blobs are, loses all hits and moves to the main queue.
	Hits int
	// Small says that the blob is in the pool of small blobs, which has its own order of eviction.
	Small bool
	// Proven says that the blob is in the main queue of its pool. A blob moves there when eviction
	// reaches it while it has hits, is in use or is pinned. A blob that is stored again soon after it
	// was evicted goes there at once.
	Proven bool
	// Open says that the blob is being read, or that a push needs it. It is not evicted now.
	Open bool
	// Pinned says that the blob is not evicted. Either an operator keeps it (see [Dir.SetPin]), or it
	// is the blob of a committed upload (see [Dir.Keep]). An upload keeps its blob until [Dir.Forget]
	// is called.
	Pinned bool
	// Suspect says that an unclean stop may have damaged the blob, and that it is not yet verified.
	Suspect bool
}

// info returns the Info of an entry. It needs mu.
func (a *account) info(e *entry) Info {
	return Info{
		Digest: e.digest(), Size: e.size, LastUse: time.Unix(0, e.touch.Load()), Hits: int(e.hits.Load()),
		Small: e.size < smallBlob, Proven: e.queue == a.policy.pool(e.size).main,
		Open: a.users(e) > 0, Pinned: a.claimed[e.digest()] != claims{}, Suspect: e.suspect,
	}
}

// Victim is a blob that is or would be evicted, with the reason.
type Victim struct {
	Info
	Reason Reason
}

// victim returns the Victim for an entry that [clock.victim] has chosen. It needs mu.
func (a *account) victim(e *entry, why Reason) Victim {
	v := Victim{a.info(e), why}
	// For a victim, info may return wrong values of these fields: the clock has taken the entry out of
	// its queue, or has worked on a plan and left the entry as it was. A victim has no hits left, and
	// comes from the main queue only if the reason is ReasonCold.
	v.Hits, v.Proven = 0, why == ReasonCold
	return v
}

// Stats describes the contents of a directory at one moment.
type Stats struct {
	Bytes, Reserved, MaxBytes int64 // in bytes, rounded up to blocks
	Pinned                    int64 // the part of Bytes that is pinned, as in Info
	Blobs, Unsynced           int
	Unverified                int
}

func (a *account) stats() Stats {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return Stats{
		Bytes: a.used, Reserved: a.reserved, MaxBytes: a.maxBytes, Pinned: a.pinnedBytes(),
		Blobs: a.index.len(), Unsynced: len(a.dirty), Unverified: len(a.suspects),
	}
}
