package queue

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

// mendEvery is how often a journal that cannot be written is tried anew.
const mendEvery = 5 * time.Second

// writer lets one at a time write to the journal, and knows whether the journal says what is here.
// Every method but take, trouble, mend and close needs the turn.
type writer struct {
	journal *journal
	log     *slog.Logger
	now     func() past   // what a new journal has to hold
	writing chan struct{} // full while one writes; capacity 1

	mu   sync.Mutex // guards torn; leaf lock
	torn error      // why the journal does not say what is here; nil: it does

	tried time.Time // when mend last tried; Run's own
}

// lock waits until nobody else writes to the journal.
func (w *writer) lock(ctx context.Context) error {
	select {
	case w.writing <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (w *writer) unlock() { <-w.writing }

// write puts a record into the journal.
func (w *writer) write(r record) error {
	err := w.journal.append(r, w.now)
	w.note(err)
	return err
}

// rewrite writes the journal anew. After an error what is here holds, and the journal is behind.
func (w *writer) rewrite() error {
	err := w.journal.rewrite(w.now())
	w.note(err)
	return err
}

// catchUp writes the journal anew where a write to it has failed.
func (w *writer) catchUp() error {
	if !w.journal.broken {
		return nil
	}
	return w.rewrite()
}

// behind says that what is here holds, although the journal may not have it: err.
func (w *writer) behind(err error) {
	w.journal.broken = w.journal.broken || err != nil
	w.note(err)
}

// note keeps the reason why the journal has to be written anew, if it has.
func (w *writer) note(err error) {
	if !w.journal.broken {
		err = nil // nothing of what has failed is left in it
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.torn = err
}

// failure is why the journal does not say what is here; nil: it does.
func (w *writer) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.torn
}

// mend writes the journal anew where the last try to write to it has failed. It returns when to
// look again.
func (w *writer) mend(ctx context.Context) time.Duration {
	switch since := time.Since(w.tried); {
	case w.failure() == nil:
		return lastPause
	case since < mendEvery:
		return mendEvery - since
	}
	w.tried = time.Now()
	if w.lock(ctx) != nil {
		return lastPause
	}
	defer w.unlock()
	if err := w.catchUp(); err != nil { // unless somebody else has done it
		w.log.Error("the journal of pushes cannot be written anew", "error", err)
		return mendEvery
	}
	return lastPause
}

// close writes the journal anew where it is behind, and gives it up.
func (w *writer) close() error { return errors.Join(w.catchUp(), w.journal.close()) }
