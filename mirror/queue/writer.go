package queue

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

// repairEvery is the least time between two tries of [writer.repair] to rewrite the journal.
const repairEvery = 5 * time.Second

// writer lets one goroutine at a time write to the journal. It also records whether the journal is
// behind the queue's index. A journal that is behind must be rewritten from the index before the
// next record. Callers of the methods lock and repair must not hold the lock, because both take it.
// The methods failure and close need no lock. Callers of all other methods must hold it.
type writer struct {
	journal  *journal
	log      *slog.Logger
	snapshot func() contents // contents for a new journal
	writing  chan struct{}   // the lock: a channel of capacity 1 that is full while the lock is held

	mu       sync.Mutex // guards staleErr; no other lock is acquired while mu is held
	staleErr error      // why the journal is behind; nil if it is not behind

	tried time.Time // when repair last tried; unguarded, because only Run calls repair
	wake  func()    // wakes Run, so that it calls repair
}

// lock acquires the lock, and waits while another goroutine holds it. If ctx ends first, lock
// returns the cause of ctx.
func (w *writer) lock(ctx context.Context) error {
	select {
	case w.writing <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (w *writer) unlock() { <-w.writing }

func (w *writer) write(r record) error {
	err := w.journal.append(r, w.snapshot)
	w.note(err)
	return err
}

// rewrite rewrites the journal from the index. After an error, the journal is behind.
func (w *writer) rewrite() error {
	err := w.journal.rewrite(w.snapshot())
	w.note(err)
	return err
}

// catchUp rewrites the journal if a write to it has failed.
func (w *writer) catchUp() error {
	if !w.journal.broken {
		return nil
	}
	return w.rewrite()
}

// setBehind marks the journal as behind if err is not nil.
func (w *writer) setBehind(err error) {
	w.journal.broken = w.journal.broken || err != nil
	w.note(err)
}

// note records err as the reason why the journal is behind. If the journal is not behind, note
// clears the reason.
func (w *writer) note(err error) {
	if !w.journal.broken {
		err = nil // the journal is in order: if a write failed, append has rewritten the journal without the failed record
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil && w.staleErr == nil {
		w.wake()
	}
	w.staleErr = err
}

// failure returns why the journal is behind, or nil if it is not behind.
func (w *writer) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.staleErr
}

// repair rewrites the journal if it is behind, at most once in repairEvery. It returns how long to
// wait before the next call.
func (w *writer) repair(ctx context.Context) time.Duration {
	switch since := time.Since(w.tried); {
	case w.failure() == nil:
		return lastPause
	case since < repairEvery:
		return repairEvery - since
	}
	w.tried = time.Now()
	if w.lock(ctx) != nil {
		return lastPause
	}
	defer w.unlock()
	if err := w.catchUp(); err != nil { // does nothing if the journal has been rewritten meanwhile
		w.log.Error("cannot rewrite the journal of pushes", "error", err)
		return repairEvery
	}
	return lastPause
}

// close rewrites the journal if it is behind, and closes the file.
func (w *writer) close() error { return errors.Join(w.catchUp(), w.journal.close()) }
