package disk

import (
	"time"

	"github.com/opencontainers/go-digest"
)

// Info describes a blob as the directory knows it at one moment.
type Info struct {
	Digest digest.Digest
	Size   int64 // in bytes
	// LastUse is when the blob was last opened, to the hour.
	LastUse time.Time
	// Hits is how often the blob was asked for since eviction last considered it; 3 stands for 3 or
	// more.
	Hits int
	// Small says that it is in the pool of small blobs, which are evicted apart from the large ones.
	Small bool
	// Proven says that it was asked for again after it came. Other blobs are evicted first.
	Proven bool
	// Open says that it is being read or pushed, or that a push needs it. It is not evicted now.
	Open bool
	// Pinned says that an operator keeps it (see [Dir.SetPin]), or that an upload of an earlier
	// process was committed as it (see [Dir.Recover]).
	Pinned bool
	// Suspect says that it comes from an unclean stop and is not yet verified.
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

// Victim is a blob that is evicted, and why.
type Victim struct {
	Info
	Reason Reason
}

// victim returns the Victim for an entry that was chosen. It needs mu.
func (a *account) victim(e *entry, why Reason) Victim {
	v := Victim{a.info(e), why}
	v.Hits, v.Proven = 0, why == ReasonCold // as they are when it is evicted
	return v
}

// Stats describes the contents of a directory at one moment.
type Stats struct {
	Bytes, Reserved, MaxBytes int64 // in bytes, rounded up to blocks
	Pinned                    int64 // the part of Bytes that operators have pinned
	Blobs, Unsynced           int
	Unverified                int
}

// stats returns the Stats of the directory.
func (a *account) stats() Stats {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return Stats{
		Bytes: a.used, Reserved: a.reserved, MaxBytes: a.maxBytes, Pinned: a.pinnedBytes(),
		Blobs: a.index.len(), Unsynced: len(a.dirty), Unverified: len(a.suspects),
	}
}
