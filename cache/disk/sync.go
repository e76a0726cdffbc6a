package disk

import (
	"errors"
	"io/fs"
	"path"
	"sync"
)

// syncWorkers is how many files are synced at a time. File systems combine syncs that arrive
// together.
const syncWorkers = 16

// syncer makes new blobs durable in groups, and marks their files as synced.
type syncer struct {
	*resources
	wake chan struct{} // wakes Dir.Run when blobs wait to be synced; capacity 1
}

// nudge wakes [Dir.Run], which then calls syncDirty.
func (s *syncer) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// syncDirty makes durable all blobs that wait to be synced, and marks their files as synced.
func (s *syncer) syncDirty() {
	batch := s.takeDirty()
	if len(batch) == 0 {
		return
	}
	work := make(chan *entry)
	marked := make(chan *entry)
	var wg sync.WaitGroup
	for range min(syncWorkers, len(batch)) {
		wg.Go(func() {
			for e := range work {
				err := s.seal(e.path())
				s.unrefInternal(e)
				if err == nil {
					marked <- e
				} else if !errors.Is(err, fs.ErrNotExist) {
					s.log.Error("cannot sync blob", "digest", e.digest(), "error", err)
				}
			}
		})
	}
	go func() { // ends before this function, because finish reads until close(marked)
		for _, e := range batch {
			work <- e
		}
		close(work)
		wg.Wait()
		close(marked)
	}()
	s.finish(marked)
}

// finish syncs the directories of the marked files, and then records their entries as clean.
func (s *syncer) finish(marked <-chan *entry) {
	dirs := map[string][]*entry{}
	for e := range marked {
		dir := path.Dir(e.path())
		dirs[dir] = append(dirs[dir], e)
	}
	for dir, entries := range dirs {
		if err := s.syncDirs(dir); err != nil {
			s.log.Error("cannot sync cache directory", "dir", dir, "error", err)
			continue
		}
		s.setClean(entries)
	}
}

// syncNow makes the file of one referenced entry durable, and marks it as synced.
func (s *syncer) syncNow(e *entry) error {
	name := e.path()
	if err := s.seal(name); err != nil {
		return err
	}
	if err := s.syncDirs(path.Dir(name)); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.dirty, e)
	e.clean = true
	return nil
}
