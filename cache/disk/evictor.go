package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
)

// growStep is how many bytes an ingest of unknown length reserves at a time.
const growStep = 4 << 20

// evictor makes room for new blobs: it reserves bytes, and evicts other blobs if it must.
type evictor struct {
	*resources
	scan      *scanner
	unlinking chan struct{} // closed when the running unlinkDropped ends; nil if none runs; guarded by account.mu
}

// reserve promises n bytes, a multiple of blockSize, to an ingest. The blob of the ingest has at
// least minLength bytes. reserve evicts other blobs if it must. It returns ErrTooLarge or ErrFull
// if there is no room.
func (v *evictor) reserve(ctx context.Context, n, minLength int64) error {
	if err := v.scan.wait(ctx); err != nil {
		return err
	}
	// Other programs take free space, too, so the free space is measured again after an eviction.
	for range 4 {
		free, total, err := v.statfs()
		if err != nil {
			return fmt.Errorf("reserve %d bytes: %w", n, err)
		}
		evicted, err := v.tryReserve(n, minLength, free, total)
		v.unlinkDropped()
		if err != nil {
			return fmt.Errorf("reserve %d bytes: %w", n, err)
		}
		if evicted && !v.withinBounds() {
			v.release(n, n)
			continue
		}
		return nil
	}
	v.m.refused.WithLabelValues("full").Inc()
	return fmt.Errorf("reserve %d bytes: %w", n, ErrFull)
}

// Free returns how many more bytes the file system has for blobs: its free bytes less
// Options.MinFreeBytes.
func (v *evictor) Free() (int64, error) {
	free, _, err := v.statfs()
	return max(free-v.minFree, 0), err
}

// tryReserve counts n bytes as reserved and drops blobs to make room for them. freeSpace and
// totalSpace are bytes of the file system. evicted says whether tryReserve dropped blobs.
func (v *evictor) tryReserve(n, minLength, freeSpace, totalSpace int64) (evicted bool, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	whole, most := blocks(minLength), totalSpace-v.minFree
	if v.maxBytes > 0 && whole > v.maxBytes || most > 0 && whole > most {
		v.m.refused.WithLabelValues("too large").Inc()
		return false, ErrTooLarge
	}
	short := v.shortfall(n, freeSpace)
	if !v.evict(short, minLength) {
		v.m.refused.WithLabelValues("full").Inc()
		return false, v.noRoom(n, freeSpace)
	}
	v.reserved += n
	v.pending += n
	return short > 0, nil
}

// noRoom returns why n more bytes do not fit. It needs mu.
func (v *evictor) noRoom(n, free int64) error {
	if v.shortfall(n, math.MaxInt64/2) > 0 {
		return &RoomError{Quota: v.maxBytes}
	}
	return &RoomError{Free: free, MinFree: v.minFree}
}

// evict drops blobs that together have at least as many bytes as the parameter shortage says. If
// the blobs that may be evicted have fewer bytes in total, evict changes nothing and returns false.
// newLength is the length of the blob that needs the space. evict needs mu.
func (v *evictor) evict(shortage, newLength int64) bool {
	return v.evictBy(v.policy.smallMax, shortage, newLength)
}

// evictBy is evict with another value for clock.smallMax. It needs mu.
func (v *evictor) evictBy(smallMax, shortage, newLength int64) bool {
	plan, clock := v.policy.plan(), v.policy.clock()
	plan.smallMax, clock.smallMax = smallMax, smallMax
	if !v.enough(plan, shortage, newLength) {
		return false
	}
	for shortage > 0 {
		e, _ := clock.victim(newLength, v.inUse)
		if e == nil {
			return false
		}
		v.evictOne(e)
		shortage -= e.blocks()
	}
	return true
}

// [evictor.enough] reports whether the victims that a plan chooses have at least shortage bytes. It
// needs mu.
func (v *evictor) enough(plan *clock, shortage, newLength int64) bool {
	for shortage > 0 {
		e, _ := plan.victim(newLength, v.inUse)
		if e == nil {
			return false
		}
		shortage -= e.blocks()
	}
	return true
}

// evictOne drops a victim. Like takeName, it keeps others from the victim's file until
// unlinkDropped frees the name. It needs mu.
func (v *evictor) evictOne(e *entry) {
	v.busy[e.digest()] = make(chan struct{})
	v.drop(e, GoneEvicted)
	v.m.evicted.Inc()
	v.m.evictedBytes.Add(float64(e.size))
}

// errUnlink says that a file could not be removed. The log has the reason.
var errUnlink = errors.New("cannot remove file")

// remove drops and unlinks an entry that the caller references.
func (v *evictor) remove(ctx context.Context, e *entry) error {
	return v.removeIf(ctx, e, func() bool { return true })
}

// removeIf removes an entry, as remove does, if the function condition returns true. It calls
// condition while it holds mu. If condition returns false, the entry stays and removeIf returns
// ErrInUse.
func (v *evictor) removeIf(ctx context.Context, e *entry, condition func() bool) error {
	if err := v.takeName(ctx, e.digest()); err != nil {
		return err
	}
	v.mu.Lock()
	switch {
	case e.gone:
		v.freeNameLocked(e.digest())
	case !condition():
		v.freeNameLocked(e.digest())
		v.mu.Unlock()
		return ErrInUse
	default:
		v.drop(e, GoneRemoved)
	}
	v.mu.Unlock()
	v.unlinkDropped()
	if !v.isGone(e) {
		return errUnlink
	}
	return nil
}

// unlinkDropped tries to unlink the files of all entries that were dropped before the call. One
// caller at a time unlinks for all callers, and the other callers wait for it.
func (v *evictor) unlinkDropped() {
	v.mu.Lock()
	for v.unlinking != nil {
		over := v.unlinking
		v.mu.Unlock()
		<-over
		v.mu.Lock()
	}
	if len(v.dropped) == 0 {
		v.mu.Unlock()
		return
	}
	over := make(chan struct{})
	v.unlinking = over
	for len(v.dropped) > 0 {
		e := v.dropped[0]
		v.mu.Unlock()
		err := v.unlink(e)
		v.mu.Lock()
		v.dropped = v.dropped[1:]
		v.finishUnlink(e, err)
		v.mu.Unlock()
		v.closeIdle(e)
		v.mu.Lock()
	}
	v.dropped, v.unlinking = nil, nil
	v.mu.Unlock()
	close(over)
}

// closeIdle closes the idle files ([idleFiles]) of an entry, after an attempt to unlink it.
func (v *evictor) closeIdle(e *entry) {
	if err := v.files.closeOf(e); err != nil {
		v.log.Warn("cannot close blob that was removed", "digest", e.digest(), "error", err)
	}
}

func (v *evictor) unlink(e *entry) error {
	name := e.path()
	if err := v.fault(OpUnlink, name); err != nil {
		return err
	}
	if err := v.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		v.log.Error("cannot remove blob from cache", "digest", e.digest(), "error", err)
		return err
	}
	return nil
}

// finishUnlink uncounts a dropped entry whose file was removed. If err says that the file was not
// removed, finishUnlink puts the entry back into the index, unless the entry is suspect. In all
// cases it frees the name. It needs mu.
func (v *evictor) finishUnlink(e *entry, err error) {
	defer v.freeNameLocked(e.digest())
	if err == nil {
		e.unlinked.Store(true)
		v.uncount(e)
		return
	}
	if e.suspect { // a suspect blob must not be served: it stays out of the index, and its blocks stay counted
		return
	}
	e.gone = false
	v.index.put(e)
	v.policy.add(e)
	if !e.clean {
		v.dirty[e] = struct{}{}
	}
}

// makeRoom evicts n bytes, after a write or an allocation has failed because the file system is
// full. The blob that needs the bytes has at least minLength bytes. makeRoom returns false if it
// could not evict n bytes.
func (v *evictor) makeRoom(n, minLength int64) bool {
	v.mu.Lock()
	ok := v.evict(n, minLength)
	v.mu.Unlock()
	v.unlinkDropped()
	return ok
}

// withRoom calls createFile. If the file system has no inode or no block for the file, withRoom
// evicts a blob and calls createFile once more.
func (v *evictor) withRoom(createFile func() error) error {
	err := createFile()
	if isFull(err) && v.evictFile() {
		err = createFile()
	}
	return err
}

// evictFile evicts one blob to free its inode: a small blob if one can be evicted. It returns false
// if no blob can be evicted.
func (v *evictor) evictFile() bool {
	v.mu.Lock()
	ok := v.evictBy(-1, blockSize, 0) // -1 makes the clock choose a small blob first
	v.mu.Unlock()
	v.unlinkDropped()
	return ok
}

// enforceLimits evicts blobs if the directory takes more than its quota or leaves less free space
// than Options.MinFreeBytes. This can happen even if nobody reserves room. The quota may be lower
// than in the last run, and other programs fill the file system.
func (v *evictor) enforceLimits() {
	free, _, err := v.statfs()
	if err != nil {
		v.log.Warn("cannot read the free space of the cache directory", "error", err)
		return
	}
	v.mu.Lock()
	short := v.shortfall(0, free)
	enough := v.evict(short, 0)
	v.mu.Unlock()
	if !enough {
		v.log.Warn("cache directory is low on space, and no blob can be evicted", "bytes", short)
	}
	v.unlinkDropped()
}

// withinBounds reports whether the directory is within its quota and leaves enough free space.
// After an eviction it may be false, because unlinking can fail and other programs fill the file
// system, too.
func (v *evictor) withinBounds() bool {
	free, _, err := v.statfs()
	if err != nil {
		return false
	}
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.shortfall(0, free) == 0
}

// CheckRoom returns an error if no new blob would fit, even after the eviction of all blobs that
// can be evicted now. Blobs that are open, pinned, or needed by a push cannot be evicted.
func (v *evictor) CheckRoom() error {
	free, _, err := v.statfs()
	if err != nil {
		return fmt.Errorf("free space of the cache directory: %w", err)
	}
	v.mu.RLock()
	defer v.mu.RUnlock()
	if !v.enough(v.policy.plan(), v.shortfall(blockSize, free), blockSize) {
		return v.noRoom(blockSize, free)
	}
	return nil
}
