package disk

import (
	"sync"

	"github.com/opencontainers/go-digest"
)

// account records the held blobs, the order in which they are evicted, and the bytes that they use.
type account struct {
	maxBytes, minFree int64 // Options.MaxBytes and Options.MinFreeBytes

	// mu guards the fields below. No other lock is taken while it is held. The caller of a method that
	// "needs mu" holds mu.
	mu          sync.RWMutex
	index       index
	policy      policy
	busy        map[digest.Digest]chan struct{} // digests whose file is being published, verified or unlinked
	claimed     map[digest.Digest]claims
	dirty       map[*entry]struct{}        // entries that are not yet synced
	suspects    map[*entry]struct{}        // entries that are not yet verified
	removed     map[digest.Digest]struct{} // blobs that left the index before the scan of the directory ended; nil afterwards
	dropped     []*entry                   // entries that have left the index and whose files are not yet unlinked
	used        int64                      // bytes of blobs and of quarantine/, in whole blocks; a blob counts until it is unlinked and closed
	reserved    int64                      // bytes promised to ingests, in whole blocks
	pending     int64                      // the part of the reserved bytes that the file system has not yet allocated
	quarantined int64                      // the part of the used bytes that is in quarantine/
	departed    departed
}

func newAccount(maxBytes, minFree int64) *account {
	return &account{
		maxBytes: maxBytes, minFree: minFree, index: newIndex(), policy: newPolicy(maxBytes),
		busy: map[digest.Digest]chan struct{}{}, claimed: map[digest.Digest]claims{},
		dirty: map[*entry]struct{}{}, suspects: map[*entry]struct{}{}, removed: map[digest.Digest]struct{}{},
	}
}

// [account.held] adds a reference to the entry of a digest and returns the entry, or returns nil if
// the index has no such entry. A suspect entry must be verified before it is used.
func (a *account) held(dg digest.Digest) (e *entry, suspect bool) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if e = a.index.get(dg); e == nil {
		return nil, false
	}
	e.refs.Add(1)
	return e, e.suspect
}

// insert puts an entry into the index and counts its blocks, but does not add it to the policy. It
// needs mu.
func (a *account) insert(e *entry) {
	a.index.put(e)
	a.used += e.blocks()
	if e.suspect {
		a.suspects[e] = struct{}{}
	}
}

// addEntry inserts a new entry. The entry takes the place of a reservation of reservedBytes, of
// which the file system has allocated allocatedBytes.
func (a *account) addEntry(e *entry, reservedBytes, allocatedBytes int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.reserved -= reservedBytes
	a.pending -= reservedBytes - allocatedBytes
	if a.removed != nil {
		delete(a.removed, e.digest())
	}
	a.insert(e)
	a.policy.add(e)
	a.dirty[e] = struct{}{}
}

// unindex takes an entry out of the index. The blocks of the entry stay counted. It needs mu.
func (a *account) unindex(e *entry) {
	if e.gone {
		return
	}
	e.gone = true
	if a.removed != nil {
		a.removed[e.digest()] = struct{}{}
	}
	a.policy.remove(e)
	a.index.remove(e)
	delete(a.dirty, e)
	delete(a.suspects, e)
}

// wasRemoved tells the scan whether a blob has left the index since the directory was opened. It
// needs mu.
func (a *account) wasRemoved(e *entry) bool {
	if len(a.removed) == 0 {
		return false
	}
	_, removed := a.removed[e.digest()]
	return removed
}

func (a *account) isGone(e *entry) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return e.gone
}

// [account.suspect] marks an entry so that it is never served again without verification. It needs
// mu.
func (a *account) suspect(e *entry) {
	e.suspect = true
	a.suspects[e] = struct{}{}
}

// drop takes an entry out of the index and leaves its file to [evictor.unlinkDropped]. The caller
// has taken the entry's name (takeName), and unlinkDropped frees the name. drop needs mu.
func (a *account) drop(e *entry, why GoneBy) {
	a.unindex(e)
	a.departed.add(e.prefix(), why)
	a.dropped = append(a.dropped, e)
}

// retainWeight is the number that a push adds to entry.refs of each blob that it needs. A reader
// adds one. So entry.refs shows whether a push needs the blob. An operator cannot purge a blob that
// a push needs.
const retainWeight = 1 << 16

// retain turns the caller's reference to an entry into the reference of a push that needs the blob.
// Calling release drops that reference. Further calls do nothing.
func (a *account) retain(e *entry) (release func()) {
	e.refs.Add(retainWeight - 1)
	return sync.OnceFunc(func() {
		e.refs.Add(1 - retainWeight)
		a.unref(e)
	})
}

// unref drops one reference to an entry. The blocks of an unlinked file count until its last
// reference is dropped.
func (a *account) unref(e *entry) {
	if e.refs.Add(-1) > 0 || !e.unlinked.Load() {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.uncount(e)
}

// refInternal references an entry for the directory's own work, such as syncing it. The entry is
// not evicted before unrefInternal is called. The reference does not count as a use, so operators
// may purge the entry. refInternal needs mu.
func (a *account) refInternal(e *entry) {
	e.refs.Add(1)
	e.internalRefs++
}

func (a *account) unrefInternal(e *entry) {
	a.mu.Lock()
	defer a.mu.Unlock()
	// mu covers the changes of both counters, so account.users never counts this reference.
	e.internalRefs--
	if e.refs.Add(-1) == 0 && e.unlinked.Load() {
		a.uncount(e)
	}
}

// users returns entry.refs without the internal references. It needs mu.
func (a *account) users(e *entry) int32 { return e.refs.Load() - int32(e.internalRefs) }

// uncount stops counting the blocks of an unlinked entry that has no references. Further calls do
// nothing. It needs mu.
func (a *account) uncount(e *entry) {
	if e.refs.CompareAndSwap(0, -1) {
		a.used -= e.blocks()
	}
}

// inUse reports whether an entry must not be evicted now. It needs mu.
func (a *account) inUse(e *entry) bool {
	if e.refs.Load() > 0 {
		return true
	}
	dg := e.digest()
	return a.busy[dg] != nil || a.claimed[dg] != claims{}
}

// claims counts the reasons to keep a blob, whether or not the blob is held.
type claims struct {
	pinned   int // pins of operators that name the blob
	received int // uploads committed as this blob; each counts from ingests.Keep until ingests.Forget
}

// claim adds the numbers in delta, which may be negative, to the claims of each blob. It needs mu.
func (a *account) claim(blobs []digest.Digest, delta claims) {
	for _, dg := range blobs {
		n := claims{a.claimed[dg].pinned + delta.pinned, a.claimed[dg].received + delta.received}
		if a.claimed[dg] = n; n == (claims{}) {
			delete(a.claimed, dg)
		}
	}
}

// pinnedBytes returns the bytes, in whole blocks, of held blobs that have claims of either kind. It
// needs mu.
func (a *account) pinnedBytes() int64 {
	var sum int64
	for dg := range a.claimed {
		if e := a.index.get(dg); e != nil {
			sum += e.blocks()
		}
	}
	return sum
}

// shortfall returns how many bytes must be evicted before n more bytes fit. freeSpace is the free
// space of the file system in bytes. It needs mu.
func (a *account) shortfall(n, freeSpace int64) int64 {
	short := a.minFree + a.pending + n - freeSpace - a.droppedBytes()
	if a.maxBytes > 0 {
		short = max(short, a.used-a.droppedBytes()+a.reserved+n-a.maxBytes)
	}
	return max(0, short)
}

// droppedBytes returns the bytes, in whole blocks, that become free when the dropped blobs are
// unlinked. Blobs that are still referenced do not count. It needs mu.
func (a *account) droppedBytes() int64 {
	var n int64
	for _, e := range a.dropped {
		if e.refs.Load() == 0 {
			n += e.blocks()
		}
	}
	return n
}

// release gives back n reserved bytes. pendingBytes is how many of these bytes the file system has
// not allocated.
func (a *account) release(n, pendingBytes int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.reserved -= n
	a.pending -= pendingBytes
}

// [account.occupied] records that the file system has allocated n more of the reserved bytes.
func (a *account) occupied(n int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pending -= n
}

// takeDirty returns the entries that wait to be synced, each with an internal reference. An
// operator may purge an entry before its file is synced. If a new file gets the same name, the new
// file is synced instead. Both files have the same bytes, so this does no harm.
func (a *account) takeDirty() []*entry {
	a.mu.Lock()
	defer a.mu.Unlock()
	batch := make([]*entry, 0, len(a.dirty))
	for e := range a.dirty {
		a.refInternal(e)
		batch = append(batch, e)
	}
	clear(a.dirty)
	return batch
}

// setClean records that the files of entries are on stable storage and marked as synced.
func (a *account) setClean(entries []*entry) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range entries {
		e.clean = true
	}
}
