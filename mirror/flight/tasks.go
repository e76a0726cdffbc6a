package flight

import (
	"context"
	"errors"
	"sync"
)

// ErrStopped is why a task ended, or was not started: its Tasks have stopped.
var ErrStopped = errors.New("dray is shutting down")

// Tasks owns the goroutines that outlive the requests that start them.
type Tasks struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	mu     sync.Mutex
	closed bool
	wg     sync.WaitGroup
}

// NewTasks returns an owner of no tasks.
func NewTasks() *Tasks {
	t := &Tasks{}
	t.ctx, t.cancel = context.WithCancelCause(context.Background())
	return t
}

// Start runs fn on a context that ends with Stop. After Stop it reports false and does not run fn.
func (t *Tasks) Start(fn func(ctx context.Context)) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.wg.Go(func() { fn(t.ctx) })
	return true
}

// StartCancellable is Start for a task whose context also ends when cancel is called. The context
// of a task that was not started has ended already, and cancel does nothing.
func (t *Tasks) StartCancellable(fn func(ctx context.Context)) (cancel context.CancelCauseFunc, started bool) {
	ctx, cancel := context.WithCancelCause(t.ctx)
	started = t.Start(func(context.Context) {
		defer cancel(nil)
		fn(ctx)
	})
	if !started {
		cancel(ErrStopped)
	}
	return cancel, started
}

// Stop ends the contexts of all tasks with ErrStopped and waits for the tasks.
func (t *Tasks) Stop() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.cancel(ErrStopped)
	t.wg.Wait()
}
