package disk

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"sync"
)

const (
	scanWorkers = 8    // directories read at a time
	scanBatch   = 1024 // entries put into the index per turn of the lock
)

// found is a blob met by the scan.
type found struct {
	entry *entry
	mtime int64
}

// scanned returns when the directory has been read; the first caller reads it.
func (d *Dir) scanned(ctx context.Context) error {
	if d.scanning.CompareAndSwap(false, true) {
		d.scan()
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
	slices.SortFunc(all, func(a, b found) int { return cmp.Compare(b.mtime, a.mtime) })
	for batch := range slices.Chunk(all, scanBatch) {
		d.mu.Lock()
		for _, f := range batch {
			_, removed := d.removed[f.entry.digest]
			if d.index[f.entry.digest] == nil && !removed {
				d.insert(f.entry)
				d.policy.addOld(f.entry)
			}
		}
		d.mu.Unlock()
	}
	d.mu.Lock()
	d.removed = nil
	d.mu.Unlock()
}

// list reads the shards with a few workers. What cannot be read is logged and left out.
func (d *Dir) list() []found {
	shards := make(chan string)
	var mu sync.Mutex
	var all []found
	var wg sync.WaitGroup
	for range scanWorkers {
		wg.Go(func() {
			for shard := range shards {
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

func (d *Dir) listShard(shard string) []found {
	dir, err := d.root.OpenRoot(shard)
	if err != nil {
		d.log.Warn("cannot read cache directory", "dir", shard, "error", err)
		return nil
	}
	defer dir.Close()
	var part []found
	for _, name := range d.names(shard) {
		dg, ok := parsePath(shard + "/" + name)
		if !ok {
			d.log.Warn("stranger in cache directory left alone", "file", shard+"/"+name)
			continue
		}
		info, err := dir.Lstat(name)
		if err != nil || !info.Mode().IsRegular() {
			if !errors.Is(err, fs.ErrNotExist) {
				d.log.Warn("blob left out of cache", "digest", dg, "error", err)
			}
			continue
		}
		part = append(part, found{newEntry(dg, info), info.ModTime().UnixNano()})
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
