package disk

import (
	"sync"

	"github.com/opencontainers/go-digest"
)

// account is what the directory holds, in which order that is evicted, how many bytes it takes,
// and against which quota.
type account struct {
	maxBytes, minFree int64 // as in Options

	mu          sync.RWMutex // guards below; leaf lock
	index       index
	policy      policy
	busy        map[digest.Digest]chan struct{} // names being published, verified or unlinked
	claimed     map[digest.Digest]claims
	dirty       map[*entry]struct{} // yet to be synced
	suspects    map[*entry]struct{}
	removed     map[digest.Digest]struct{} // what left the index while it is being read; nil afterwards
	dropped     []*entry                   // out of the index, not yet unlinked
	used        int64                      // blocks of blobs, in bytes, until they are unlinked and closed
	reserved    int64                      // blocks promised to ingests
	pending     int64                      // the part of reserved that the file system has not yet given
	quarantined int64                      // the part of used that is of files in quarantine/
}

func newAccount(maxBytes, minFree int64) *account {
	return &account{
		maxBytes: maxBytes, minFree: minFree, index: newIndex(), policy: newPolicy(maxBytes),
		busy: map[digest.Digest]chan struct{}{}, claimed: map[digest.Digest]claims{},
		dirty: map[*entry]struct{}{}, suspects: map[*entry]struct{}{}, removed: map[digest.Digest]struct{}{},
	}
}

// held returns the entry of the index with one reference more, or nil. A suspect is yet to be
// verified.
func (a *account) held(dg digest.Digest) (e *entry, suspect bool) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if e = a.index.get(dg); e == nil {
		return nil, false
	}
	e.refs.Add(1)
	return e, e.suspect
}

// insert puts an entry into index and account, not into the policy. Needs mu.
func (a *account) insert(e *entry) {
	a.index.put(e)
	a.used += e.blocks()
	if e.suspect {
		a.suspects[e] = struct{}{}
	}
}

// enter turns a reservation, of which the file system has given occupied bytes, into a new entry.
func (a *account) enter(e *entry, reserved, occupied int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.reserved -= reserved
	a.pending -= reserved - occupied
	if a.removed != nil {
		delete(a.removed, e.digest())
	}
	a.insert(e)
	a.policy.add(e)
	a.dirty[e] = struct{}{}
}

// forget takes an entry out of the index, but not out of the account. Needs mu.
func (a *account) forget(e *entry) {
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

// wasRemoved says whether a blob has left since the scan began. Needs mu.
func (a *account) wasRemoved(e *entry) bool {
	if len(a.removed) == 0 {
		return false
	}
	_, removed := a.removed[e.digest()]
	return removed
}

// left says whether an entry is out of the index.
func (a *account) left(e *entry) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return e.gone
}

// suspect makes an entry one that is never served again unverified. Needs mu.
func (a *account) suspect(e *entry) {
	e.suspect = true
	a.suspects[e] = struct{}{}
}

// drop takes an entry out of the index and leaves its file to sweep. The caller
// holds the name and hands it over. Needs mu.
func (a *account) drop(e *entry) {
	a.forget(e)
	a.dropped = append(a.dropped, e)
}

// needed is what one who needs a blob adds to entry.refs, as readers add one. They are
// counted apart because nobody, not even an operator, takes away what a push needs.
const needed = 1 << 16

// need turns the caller's reference to an entry into that of somebody who needs the blob. It
// lasts until release.
func (a *account) need(e *entry) (release func()) {
	e.refs.Add(needed - 1)
	return sync.OnceFunc(func() {
		e.refs.Add(1 - needed)
		a.unref(e)
	})
}

// unref ends one use of an entry. The last one of an unlinked file frees its blocks.
func (a *account) unref(e *entry) {
	if e.refs.Add(-1) > 0 || !e.unlinked.Load() {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.uncount(e)
}

// tend references an entry for work of the directory's own, such as syncing it. Until untend the
// entry is not evicted, but that is no use of it, and operators may purge it. Needs mu.
func (a *account) tend(e *entry) {
	e.refs.Add(1)
	e.tended++
}

// untend ends what tend began.
func (a *account) untend(e *entry) {
	a.mu.Lock()
	defer a.mu.Unlock()
	e.tended-- // under the lock with the reference, else a user would seem to come
	if e.refs.Add(-1) == 0 && e.unlinked.Load() {
		a.uncount(e)
	}
}

// users returns the references of those who read an entry or need it. Needs mu.
func (a *account) users(e *entry) int32 { return e.refs.Load() - int32(e.tended) }

// uncount takes the blocks of an unlinked entry that nobody holds off the account, once. Needs mu.
func (a *account) uncount(e *entry) {
	if e.refs.CompareAndSwap(0, -1) {
		a.used -= e.blocks()
	}
}

// inUse says whether an entry must not be evicted now. Needs mu.
func (a *account) inUse(e *entry) bool {
	if e.refs.Load() > 0 {
		return true
	}
	dg := e.digest()
	return a.busy[dg] != nil || a.claimed[dg] != claims{}
}

// claims counts what keeps a blob from being evicted, whether it is held or not.
type claims struct {
	pinned   int // pins of operators that name it
	received int // uploads of former processes that became it
}

// claim counts so many claims more for each blob. Needs mu.
func (a *account) claim(blobs []digest.Digest, more claims) {
	for _, dg := range blobs {
		n := claims{a.claimed[dg].pinned + more.pinned, a.claimed[dg].received + more.received}
		if a.claimed[dg] = n; n == (claims{}) {
			delete(a.claimed, dg)
		}
	}
}

// pinnedBytes returns the blocks of blobs that are held and pinned. Needs mu.
func (a *account) pinnedBytes() int64 {
	var sum int64
	for dg := range a.claimed {
		if e := a.index.get(dg); e != nil {
			sum += e.blocks()
		}
	}
	return sum
}

// shortfall returns by how many bytes n more would be too many. Needs mu.
func (a *account) shortfall(n, free int64) int64 {
	short := a.minFree + a.pending + n - free - a.leaving()
	if a.maxBytes > 0 {
		short = max(short, a.used-a.leaving()+a.reserved+n-a.maxBytes)
	}
	return max(0, short)
}

// leaving returns the blocks of doomed blobs whose unlinking frees them. Needs mu.
func (a *account) leaving() int64 {
	var n int64
	for _, e := range a.dropped {
		if e.refs.Load() == 0 {
			n += e.blocks()
		}
	}
	return n
}

// release gives back reserved bytes, of which pending were never written.
func (a *account) release(n, pending int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.reserved -= n
	a.pending -= pending
}

// occupied says that reserved bytes have got their blocks from the file system.
func (a *account) occupied(n int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pending -= n
}

// takeDirty returns what waits to be synced, tended. An operator may purge one all the same; the
// file that then comes under its name has the same bytes.
func (a *account) takeDirty() []*entry {
	a.mu.Lock()
	defer a.mu.Unlock()
	batch := make([]*entry, 0, len(a.dirty))
	for e := range a.dirty {
		a.tend(e)
		batch = append(batch, e)
	}
	clear(a.dirty)
	return batch
}

// setClean notes that the files of entries are on stable storage and marked.
func (a *account) setClean(entries []*entry) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range entries {
		e.clean = true
	}
}
