package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
)

// growStep is what an ingest of unknown length reserves at a time, in bytes.
const growStep = 4 << 20

// reserve promises n bytes (a multiple of a block) to an ingest of a blob of at
// least the given length, evicting others. It returns ErrTooLarge or ErrFull.
func (d *Dir) reserve(ctx context.Context, n, length int64) error {
	if err := d.scanned(ctx); err != nil {
		return err
	}
	// Others take free space too, so what was evicted for the floor is measured again.
	for range 4 {
		free, total, err := d.statfs()
		if err != nil {
			return fmt.Errorf("reserve %d bytes: %w", n, err)
		}
		granted, evicted, err := d.claim(n, length, free, total)
		d.sweep()
		if err != nil {
			return fmt.Errorf("reserve %d bytes: %w", n, err)
		}
		if !granted {
			continue
		}
		if evicted && !d.withinBounds() {
			d.release(n, n)
			continue
		}
		return nil
	}
	d.m.refused.WithLabelValues("full").Inc()
	return fmt.Errorf("reserve %d bytes: %w", n, ErrFull)
}

// claim takes n bytes of the account and puts out of the index what has to go for
// them. free and total are the file system's.
func (d *Dir) claim(n, length, free, total int64) (granted, evicted bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if whole := blocks(length); d.opts.MaxBytes > 0 && whole > d.opts.MaxBytes || whole > total-d.opts.MinFreeBytes {
		d.m.refused.WithLabelValues("too large").Inc()
		return false, false, ErrTooLarge
	}
	short := d.shortfall(n, free)
	if !d.evict(short, length) {
		d.m.refused.WithLabelValues("full").Inc()
		return false, false, ErrFull
	}
	d.reserved += n
	d.pending += n
	return true, short > 0, nil
}

// shortfall returns by how many bytes n more would be too many. Needs mu.
func (d *Dir) shortfall(n, free int64) int64 {
	short := d.opts.MinFreeBytes + d.pending + n - free - d.leaving()
	if d.opts.MaxBytes > 0 {
		short = max(short, d.used-d.leaving()+d.reserved+n-d.opts.MaxBytes)
	}
	return max(0, short)
}

// leaving returns the blocks of doomed blobs whose unlinking frees them. Needs mu.
func (d *Dir) leaving() int64 {
	var n int64
	for _, e := range d.doomed {
		if e.pins.Load() == 0 {
			n += e.blocks()
		}
	}
	return n
}

// evict dooms blobs of at least short bytes together, or none and returns false. Needs mu.
func (d *Dir) evict(short, coming int64) bool {
	var victims []*entry
	for hand := d.policy.hand(); short > 0; {
		e, _ := hand.victim(coming, d.inUse)
		if e == nil {
			for i := len(victims) - 1; i >= 0; i-- {
				d.policy.restore(victims[i])
			}
			return false
		}
		victims = append(victims, e)
		short -= e.blocks()
	}
	for _, e := range victims {
		d.expel(e)
	}
	return true
}

// inUse says whether an entry must not be evicted now. Needs mu.
func (d *Dir) inUse(e *entry) bool {
	if e.pins.Load() > 0 {
		return true
	}
	dg := e.digest()
	return d.busy[dg] != nil || d.kept[dg] > 0
}

// expel dooms a victim. Needs mu.
func (d *Dir) expel(e *entry) {
	d.busy[e.digest()] = make(chan struct{})
	d.doom(e)
	d.m.evicted.Inc()
	d.m.evictedBytes.Add(float64(e.size))
}

// doom takes an entry out of the index and leaves its file to sweep. The caller
// holds the name and hands it over. Needs mu.
func (d *Dir) doom(e *entry) {
	d.forget(e)
	d.doomed = append(d.doomed, e)
}

// forget takes an entry out of the index, but not out of the account. Needs mu.
func (d *Dir) forget(e *entry) {
	if e.gone {
		return
	}
	e.gone = true
	if d.removed != nil {
		d.removed[e.digest()] = struct{}{}
	}
	d.policy.remove(e)
	d.index.remove(e)
	delete(d.dirty, e)
	delete(d.suspects, e)
}

// sweep returns when what was doomed before the call is unlinked. One caller at a
// time does the unlinking, for all.
func (d *Dir) sweep() {
	d.mu.Lock()
	for d.sweeping != nil {
		over := d.sweeping
		d.mu.Unlock()
		<-over
		d.mu.Lock()
	}
	if len(d.doomed) == 0 {
		d.mu.Unlock()
		return
	}
	over := make(chan struct{})
	d.sweeping = over
	for len(d.doomed) > 0 {
		e := d.doomed[0]
		d.mu.Unlock()
		err := d.unlink(e)
		d.mu.Lock()
		d.doomed = d.doomed[1:]
		d.unlinked(e, err)
	}
	d.doomed, d.sweeping = nil, nil
	d.mu.Unlock()
	close(over)
}

// unlink removes the file of an entry.
func (d *Dir) unlink(e *entry) error {
	name, err := blobPath(e.digest())
	if err != nil {
		return err
	}
	if err := d.fault(OpUnlink, name); err != nil {
		return err
	}
	if err := d.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.log.Error("cannot remove blob from cache", "digest", e.digest(), "error", err)
		return err
	}
	return nil
}

// unlinked settles the account of a doomed entry and gives its name up. Needs mu.
func (d *Dir) unlinked(e *entry, err error) {
	defer d.yieldName(e.digest())
	if err == nil {
		e.unlinked.Store(true)
		d.settle(e)
		return
	}
	if e.suspect { // never to be served: keep its blocks in the account, not the entry in the index
		return
	}
	e.gone = false
	d.index.put(e)
	d.policy.add(e)
	if !e.clean {
		d.dirty[e] = struct{}{}
	}
}

// unpin ends one use of an entry. The last one of an unlinked file frees its blocks.
func (d *Dir) unpin(e *entry) {
	if e.pins.Add(-1) > 0 || !e.unlinked.Load() {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.settle(e)
}

// settle takes the blocks of an unlinked entry that nobody holds off the account, once. Needs mu.
func (d *Dir) settle(e *entry) {
	if e.pins.CompareAndSwap(0, -1) {
		d.used -= e.blocks()
	}
}

// release gives back reserved bytes, of which pending were never written.
func (d *Dir) release(n, pending int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reserved -= n
	d.pending -= pending
}

// occupied says that reserved bytes have got their blocks from the file system.
func (d *Dir) occupied(n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pending -= n
}

// makeRoom evicts n bytes because the file system itself has none left.
func (d *Dir) makeRoom(n, length int64) bool {
	d.mu.Lock()
	ok := d.evict(n, length)
	d.mu.Unlock()
	d.sweep()
	return ok
}

// keepBounds evicts what is too much for quota and floor, without anybody asking
// for room: the quota may be lower than last time, and others fill the file system.
func (d *Dir) keepBounds() {
	free, _, err := d.statfs()
	if err != nil {
		d.log.Warn("cannot look after free space", "error", err)
		return
	}
	d.mu.Lock()
	short := d.shortfall(0, free)
	enough := d.evict(short, 0)
	d.mu.Unlock()
	if !enough {
		d.log.Warn("cache directory is short of room, and nothing in it can be evicted for that", "bytes", short)
	}
	d.sweep()
}

// withinBounds says whether quota and floor hold after an eviction: unlinking may
// fail, and others fill the file system as well.
func (d *Dir) withinBounds() bool {
	free, _, err := d.statfs()
	if err != nil {
		return false
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.shortfall(0, free) == 0
}

// statfs returns the free and the total bytes of the file system.
func (d *Dir) statfs() (free, total int64, err error) {
	var s unix.Statfs_t
	if err := unix.Fstatfs(int(d.lock.Fd()), &s); err != nil {
		return 0, 0, fmt.Errorf("statfs: %w", err)
	}
	return int64(s.Bavail) * int64(s.Bsize), int64(s.Blocks) * int64(s.Bsize), nil // types differ between systems
}
