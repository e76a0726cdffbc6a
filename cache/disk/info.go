package disk

import (
	"time"

	"github.com/opencontainers/go-digest"
)

// Info is what the directory knows of a blob, at one moment.
type Info struct {
	Digest digest.Digest
	Size   int64 // in bytes
	// LastUse is when the blob was last opened, to the hour.
	LastUse time.Time
	// Hits is how often the blob was asked for since its last turn of eviction; 3 stands for more.
	Hits int
	// Small says that it is in the pool of small blobs, which are evicted apart from the large ones.
	Small bool
	// Proven says that it was asked for again since it came. Others are evicted first.
	Proven bool
	// Open says that it is being read or pushed, or is needed by a push: it is not evicted now.
	Open bool
	// Pinned says that an operator keeps it; see [Dir.SetPin].
	Pinned bool
	// Suspect says that it comes from an unclean stop and is yet to be verified.
	Suspect bool
}

// info needs mu.
func (a *account) info(e *entry) Info {
	return Info{
		Digest: e.digest(), Size: e.size, LastUse: time.Unix(0, e.touch.Load()), Hits: int(e.hits.Load()),
		Small: e.size < smallBlob, Proven: e.queue == a.policy.pool(e.size).main,
		Open: a.users(e) > 0, Pinned: a.claimed[e.digest()] != claims{}, Suspect: e.suspect,
	}
}

// Victim is a blob that is evicted, and why.
type Victim struct {
	Info
	Reason Reason
}

// victim needs mu.
func (a *account) victim(e *entry, why Reason) Victim {
	v := Victim{a.info(e), why}
	v.Hits, v.Proven = 0, why == ReasonCold // as they are when its turn comes
	return v
}

// Stats is what a directory holds, at one moment.
type Stats struct {
	Bytes, Reserved, MaxBytes int64 // in bytes, rounded to blocks
	Pinned                    int64 // the part of Bytes that operators have pinned
	Blobs, Unsynced           int
	Unverified                int
}

// stats returns what the directory holds.
func (a *account) stats() Stats {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return Stats{
		Bytes: a.used, Reserved: a.reserved, MaxBytes: a.maxBytes, Pinned: a.pinnedBytes(),
		Blobs: a.index.len(), Unsynced: len(a.dirty), Unverified: len(a.suspects),
	}
}
