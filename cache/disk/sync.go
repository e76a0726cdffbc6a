package disk

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"sync"
	"time"
)

// boundsEvery is how often the free-space floor is looked after when nothing is reserved: others fill the file system too.
const boundsEvery = 10 * time.Second

// syncWorkers is the number of files synced at a time: file systems gather syncs that come together.
const syncWorkers = 16

// Run reads the directory, verifies what an unclean stop left, scrubs, and makes new blobs
// durable in groups until ctx ends. Before it returns nil it syncs what is left, so
// that a stop in order leaves nothing to verify.
func (d *Dir) Run(ctx context.Context) error {
	if err := d.scanned(ctx); err != nil {
		return nil // asked to stop
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { d.verifySuspects(ctx) })
	wg.Go(func() { d.scrub(ctx) })
	tick := time.NewTicker(boundsEvery)
	defer tick.Stop()
	d.keepBounds()
	for {
		d.syncDirty()
		select {
		case <-d.wake:
		case <-tick.C:
			d.keepBounds()
		case <-ctx.Done():
			wg.Wait()
			d.syncDirty()
			return nil
		}
	}
}

// nudge tells Run that there is something to sync.
func (d *Dir) nudge() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// verifySuspects clears or drops every blob of an unclean stop, one after the other.
func (d *Dir) verifySuspects(ctx context.Context) {
	d.mu.RLock()
	var all []*entry
	for e := range d.suspects {
		all = append(all, e)
	}
	d.mu.RUnlock()
	for _, e := range all {
		name, err := blobPath(e.digest())
		if err != nil {
			continue
		}
		e.pins.Add(1)
		err = d.verify(ctx, e, name)
		d.unpin(e)
		if ctx.Err() != nil {
			return
		}
		if err != nil && !errors.Is(err, ErrNotFound) {
			d.log.Error("cannot verify blob", "digest", e.digest(), "error", err)
		}
	}
}

// syncDirty makes the blobs published so far durable and marks them.
func (d *Dir) syncDirty() {
	batch := d.takeDirty()
	if len(batch) == 0 {
		return
	}
	work := make(chan *entry)
	marked := make(chan *entry)
	var wg sync.WaitGroup
	for range min(syncWorkers, len(batch)) {
		wg.Go(func() {
			for e := range work {
				if err := d.mark(e); err == nil {
					marked <- e
				} else if !errors.Is(err, fs.ErrNotExist) {
					d.log.Error("cannot sync blob", "digest", e.digest(), "error", err)
				}
			}
		})
	}
	go func() { // ends with the work, which this function waits for
		for _, e := range batch {
			work <- e
		}
		close(work)
		wg.Wait()
		close(marked)
	}()
	d.finish(marked)
}

// finish syncs the directories of marked blobs and then calls these clean.
func (d *Dir) finish(marked <-chan *entry) {
	dirs := map[string][]*entry{}
	for e := range marked {
		if name, err := blobPath(e.digest()); err == nil {
			dirs[path.Dir(name)] = append(dirs[path.Dir(name)], e)
		}
	}
	for dir, entries := range dirs {
		if err := d.syncDirs(dir); err != nil {
			d.log.Error("cannot sync cache directory", "dir", dir, "error", err)
			continue
		}
		d.setClean(entries)
	}
}

func (d *Dir) setClean(entries []*entry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range entries {
		e.clean = true
	}
}

// takeDirty returns what waits to be synced, pinned: an unlinked name must not be
// taken for another file.
func (d *Dir) takeDirty() []*entry {
	d.mu.Lock()
	defer d.mu.Unlock()
	batch := make([]*entry, 0, len(d.dirty))
	for e := range d.dirty {
		e.pins.Add(1)
		batch = append(batch, e)
	}
	clear(d.dirty)
	return batch
}

// mark syncs the bytes of a pinned entry and says so in its file: only then is the
// write permission taken away, so no order of writes after a power cut can show a
// marked file with other bytes. It ends the pin.
func (d *Dir) mark(e *entry) error {
	defer d.unpin(e)
	return d.markPinned(e)
}

func (d *Dir) markPinned(e *entry) error {
	name, err := blobPath(e.digest())
	if err != nil {
		return err
	}
	if err := d.fault(OpSync, name); err != nil {
		return err
	}
	f, err := d.root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := datasync(f); err != nil {
		return err
	}
	return f.Chmod(0o444)
}

// syncNow makes one pinned entry durable.
func (d *Dir) syncNow(e *entry) error {
	if err := d.markPinned(e); err != nil {
		return err
	}
	name, err := blobPath(e.digest())
	if err != nil {
		return err
	}
	if err := d.syncDirs(path.Dir(name)); err != nil {
		return err
	}
	d.mu.Lock()
	delete(d.dirty, e)
	d.mu.Unlock()
	d.setClean([]*entry{e})
	return nil
}

// syncDirs syncs a shard and, as it may be new, the directories above it.
func (d *Dir) syncDirs(shard string) error {
	for dir := shard; dir != "."; dir = path.Dir(dir) {
		f, err := d.root.Open(dir)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	return nil
}
