package disk

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

const (
	scanWorkers = 8    // directories read at a time
	scanBatch   = 1024 // entries put into the index before the lock is released for a moment
)

// scanner lists the directory once, and puts the blobs into the index and the policy. It also looks
// up single blobs, whether or not it has already read the directory.
type scanner struct {
	*resources
	begun    atomic.Bool
	stopping atomic.Bool   // tells the scan to end early
	done     chan struct{} // closed when the scan has ended, or will not begin
}

// wait returns nil when the directory has been read or stop was called. If ctx ends first, it
// returns an error. The first caller starts the scan in the background.
func (s *scanner) wait(ctx context.Context) error {
	if s.begun.CompareAndSwap(false, true) {
		go s.run()
	}
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// stop ends the scan early and returns when it has ended. No scan begins afterwards.
func (s *scanner) stop() {
	s.stopping.Store(true)
	if s.begun.CompareAndSwap(false, true) {
		close(s.done)
	}
	<-s.done
}

// run fills the index, the most recently used blobs first.
func (s *scanner) run() {
	defer close(s.done)
	all := s.list()
	slices.SortFunc(all, func(a, b *entry) int { return cmp.Compare(b.touch.Load(), a.touch.Load()) })
	for batch := range slices.Chunk(all, scanBatch) {
		s.mu.Lock()
		for _, e := range batch {
			if s.index.find(&e.key) == nil && !s.wasRemoved(e) {
				s.insert(e)
				s.policy.addOld(e)
			}
		}
		s.mu.Unlock()
	}
	s.mu.Lock()
	s.removed = nil
	s.mu.Unlock()
}

// list reads the shards, which are the directories blobs/<algorithm>/<2 hex>, with a few workers.
// It logs errors of directories that cannot be read.
func (s *scanner) list() []*entry {
	shards := make(chan string)
	var mu sync.Mutex
	var all []*entry
	var wg sync.WaitGroup
	for range scanWorkers {
		wg.Go(func() {
			for shard := range shards {
				if s.stopping.Load() {
					continue
				}
				part := s.listShard(shard)
				mu.Lock()
				all = append(all, part...)
				mu.Unlock()
			}
		})
	}
	for _, alg := range s.names("blobs") {
		for _, shard := range s.names("blobs/" + alg) {
			shards <- "blobs/" + alg + "/" + shard
		}
	}
	close(shards)
	wg.Wait()
	return all
}

// listShard returns the entries of one shard. It calls the system directly for each file. With a
// million files, the allocations of [os.Root] would take most of the time and memory.
func (s *scanner) listShard(shard string) []*entry {
	err := s.fault(OpList, shard)
	var dir *os.File
	if err == nil {
		dir, err = openIn(s.root, shard)
	}
	if err != nil {
		s.unlisted(shard, err)
		return nil
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		s.unlisted(shard, err)
	}
	part := make([]*entry, 0, len(names))
	for _, name := range names {
		k, ok := parsePath(shard, name)
		if !ok {
			s.log.Warn("unknown file in cache directory ignored", "file", shard+"/"+name)
			continue
		}
		var st unix.Stat_t
		err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
			if !errors.Is(err, unix.ENOENT) {
				s.log.Warn("ignored blob that cannot be read", "digest", k.digest(), "error", err)
			}
			continue
		}
		part = append(part, newEntry(k, st.Size, fs.FileMode(st.Mode).Perm(), time.Unix(st.Mtim.Unix())))
	}
	return part
}

// lookup returns the entry of a digest, and whether the entry is suspect: a suspect blob must be
// verified before it is used. lookup adds a reference to the entry. It returns ErrNotFound if the
// blob is not held. It asks the file system about a blob that is not in the index, unless the scan
// has read the whole directory.
func (s *scanner) lookup(ctx context.Context, dg digest.Digest, name string) (e *entry, suspect bool, err error) {
	complete := false
	// First ask whether the scan has ended, then look in the index. In the reverse order, the scan
	// could add the blob and end between the two steps. lookup would then return ErrNotFound.
	select {
	case <-s.done:
		complete = !s.partial.Load()
	default:
	}
	if e, suspect := s.held(dg); e != nil {
		return e, suspect, nil
	}
	if complete {
		return nil, false, ErrNotFound
	}
	if err := s.takeName(ctx, dg); err != nil {
		return nil, false, err
	}
	defer s.freeName(dg)
	if e, suspect := s.held(dg); e != nil {
		return e, suspect, nil
	}
	info, err := s.root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, false, ErrNotFound
	case err != nil:
		return nil, false, err
	case !info.Mode().IsRegular():
		return nil, false, ErrNotFound
	}
	e = newEntry(keyOf(dg), info.Size(), info.Mode().Perm(), info.ModTime())
	e.refs.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if other := s.index.get(dg); other != nil { // the scan was faster
		other.refs.Add(1)
		return other, other.suspect, nil
	}
	s.insert(e)
	s.policy.add(e)
	return e, e.suspect, nil
}
