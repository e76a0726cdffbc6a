package disk

import (
	"errors"
	"os"
	"sync"
)

// maxIdleFiles bounds the files that are open without a reader.
const maxIdleFiles = 32

// idleFiles keep open the files of blobs that one reader has closed while another still reads.
// Clients that fetch ranges open a blob again and again, and opening it takes a tenth of the time
// of an answer. A file has one reader at a time, because readers move its offset. When the last
// reader of a blob leaves, the idle files of the blob are closed: an open file would keep the space
// of an evicted blob in use.
type idleFiles struct {
	mu    sync.Mutex // guards the fields below; leaf lock
	blobs map[*entry]*openFiles
	idle  int // files of all blobs
}

// openFiles are the files of one blob.
type openFiles struct {
	readers int
	idle    []*os.File
}

// join adds a reader. It returns an idle file for it, or nil.
func (s *idleFiles) join(e *entry) *os.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.blobs[e]
	if o == nil {
		o = &openFiles{}
		s.blobs[e] = o
	}
	o.readers++
	n := len(o.idle)
	if n == 0 {
		return nil
	}
	f := o.idle[n-1]
	o.idle = o.idle[:n-1]
	s.idle--
	return f
}

// leave removes a reader, and closes its file or keeps it for the next one. The file is nil if it
// could not be opened.
func (s *idleFiles) leave(e *entry, f *os.File) error {
	var unused []*os.File
	s.mu.Lock()
	o := s.blobs[e]
	o.readers--
	if f != nil && s.idle < maxIdleFiles {
		o.idle = append(o.idle, f)
		s.idle++
	} else if f != nil {
		unused = append(unused, f)
	}
	if o.readers == 0 {
		unused = append(unused, o.idle...)
		s.idle -= len(o.idle)
		delete(s.blobs, e)
	}
	s.mu.Unlock()
	var err error
	for _, f := range unused {
		err = errors.Join(err, f.Close())
	}
	return err
}
