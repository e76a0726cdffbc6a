package disk

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	scanWorkers = 8    // directories read at a time
	scanBatch   = 1024 // entries put into the index per turn of the lock
)

// scanned returns when the directory has been read; the first caller has that begun. Close waits for its end.
func (d *Dir) scanned(ctx context.Context) error {
	if d.scanning.CompareAndSwap(false, true) {
		go d.scan()
	}
	select {
	case <-d.scanDone:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// scan fills the index, the most recently used blobs first.
func (d *Dir) scan() {
	defer close(d.scanDone)
	all := d.list()
	slices.SortFunc(all, func(a, b *entry) int { return cmp.Compare(b.touch.Load(), a.touch.Load()) })
	for batch := range slices.Chunk(all, scanBatch) {
		d.mu.Lock()
		for _, e := range batch {
			if d.index.find(&e.key) == nil && !d.wasRemoved(e) {
				d.insert(e)
				d.policy.addOld(e)
			}
		}
		d.mu.Unlock()
	}
	d.mu.Lock()
	d.removed = nil
	d.mu.Unlock()
}

// wasRemoved says whether a blob has left since the scan began. Needs mu.
func (d *Dir) wasRemoved(e *entry) bool {
	if len(d.removed) == 0 {
		return false
	}
	_, removed := d.removed[e.digest()]
	return removed
}

// list reads the shards with a few workers. What cannot be read is logged and left out.
func (d *Dir) list() []*entry {
	shards := make(chan string)
	var mu sync.Mutex
	var all []*entry
	var wg sync.WaitGroup
	for range scanWorkers {
		wg.Go(func() {
			for shard := range shards {
				if d.closing.Load() {
					continue
				}
				part := d.listShard(shard)
				mu.Lock()
				all = append(all, part...)
				mu.Unlock()
			}
		})
	}
	for _, alg := range d.names("blobs") {
		for _, shard := range d.names("blobs/" + alg) {
			shards <- "blobs/" + alg + "/" + shard
		}
	}
	close(shards)
	wg.Wait()
	return all
}

// listShard asks the system itself about each file: with a million of them, what
// [os.Root] would allocate for that is most of the work, and of the memory.
func (d *Dir) listShard(shard string) []*entry {
	err := d.fault(OpList, shard)
	var dir *os.File
	if err == nil {
		dir, err = d.root.Open(shard)
	}
	if err != nil {
		d.log.Warn("cannot read cache directory", "dir", shard, "error", err)
		return nil
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		d.log.Warn("cannot read cache directory", "dir", shard, "error", err)
	}
	part := make([]*entry, 0, len(names))
	for _, name := range names {
		k, ok := parsePath(shard, name)
		if !ok {
			d.log.Warn("stranger in cache directory left alone", "file", shard+"/"+name)
			continue
		}
		var s unix.Stat_t
		err := unix.Fstatat(int(dir.Fd()), name, &s, unix.AT_SYMLINK_NOFOLLOW)
		if err != nil || s.Mode&unix.S_IFMT != unix.S_IFREG {
			if !errors.Is(err, unix.ENOENT) {
				d.log.Warn("blob left out of cache", "digest", k.digest(), "error", err)
			}
			continue
		}
		part = append(part, newEntry(k, s.Size, fs.FileMode(s.Mode).Perm(), time.Unix(s.Mtim.Unix())))
	}
	return part
}

// names lists a directory.
func (d *Dir) names(dir string) []string {
	f, err := d.root.Open(dir)
	if err != nil {
		d.log.Warn("cannot read cache directory", "dir", dir, "error", err)
		return nil
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		d.log.Warn("cannot read cache directory", "dir", dir, "error", err)
	}
	return names
}
