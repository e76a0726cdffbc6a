package disk

import (
	"errors"
	"os"
	"slices"
	"sync"
)

// maxIdleFiles bounds the files that are open without a reader.
const maxIdleFiles = 32

// idleFiles keep files of blobs open for the next reader. Clients that fetch ranges open a blob
// again and again, and opening takes a tenth of the time of an answer. A file has one reader at a
// time, because readers move its offset. If there are too many files, the file that has been idle
// longest is closed. The files of an unlinked blob are closed at once, because they would keep its
// space in use.
type idleFiles struct {
	mu     sync.Mutex // guards the fields below; leaf lock
	files  []idleFile // sorted by the time when they became idle
	closed bool
}

type idleFile struct {
	entry *entry
	file  *os.File
}

// take returns an idle file of a blob, or nil.
func (s *idleFiles) take(e *entry) *os.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.files) - 1; i >= 0; i-- {
		if f := s.files[i]; f.entry == e {
			s.files = append(s.files[:i], s.files[i+1:]...)
			return f.file
		}
	}
	return nil
}

// put makes a file idle. It closes the file instead if the blob is unlinked, or after closeAll.
func (s *idleFiles) put(e *entry, f *os.File) error {
	s.mu.Lock()
	if !s.closed && !e.unlinked.Load() {
		s.files = append(s.files, idleFile{e, f})
		f = nil
		if len(s.files) > maxIdleFiles {
			f = s.files[0].file
			s.files = s.files[1:]
		}
	}
	s.mu.Unlock()
	if f == nil {
		return nil
	}
	return f.Close()
}

// closeOf closes the idle files of a blob that was just unlinked.
func (s *idleFiles) closeOf(e *entry) error {
	return s.closeIf(func(f idleFile) bool { return f.entry == e })
}

// closeAll closes all idle files. From then on, put closes each file.
func (s *idleFiles) closeAll() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	return s.closeIf(func(idleFile) bool { return true })
}

func (s *idleFiles) closeIf(unused func(idleFile) bool) error {
	var closing []*os.File
	s.mu.Lock()
	s.files = slices.DeleteFunc(s.files, func(f idleFile) bool {
		if !unused(f) {
			return false
		}
		closing = append(closing, f.file)
		return true
	})
	s.mu.Unlock()
	var err error
	for _, f := range closing {
		err = errors.Join(err, f.Close())
	}
	return err
}
