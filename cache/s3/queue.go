package s3

import (
	"sync"

	"github.com/opencontainers/go-digest"
)

// item is a blob that waits to be written.
type item struct {
	digest digest.Digest
	size   int64
	tries  int // the number of failed attempts
}

// queue has the blobs that wait to be written, each once.
type queue struct {
	waiting chan item

	mu sync.Mutex
	in map[digest.Digest]bool // waiting, or being written
}

func newQueue(n int) *queue {
	return &queue{waiting: make(chan item, n), in: map[digest.Digest]bool{}}
}

// add puts a blob into the queue, unless it waits there or is being written. It returns false if
// the queue is full.
func (q *queue) add(i item) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.in[i.digest] {
		return true
	}
	return q.put(i)
}

// [queue.again] puts back a blob that was taken out of the queue. It returns false if the queue is
// full.
func (q *queue) again(i item) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.put(i)
}

// put adds a blob. If the queue is full, put instead removes the blob from q.in, and returns false.
// It needs mu.
func (q *queue) put(i item) bool {
	select {
	case q.waiting <- i:
		q.in[i.digest] = true
		return true
	default:
		delete(q.in, i.digest)
		return false
	}
}

// [queue.finished] removes a blob that is no longer being written.
func (q *queue) finished(d digest.Digest) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.in, d)
}

// length returns the number of blobs that wait or are being written.
func (q *queue) length() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.in)
}
