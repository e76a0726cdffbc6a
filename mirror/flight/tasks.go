package flight

import (
	"context"
	"errors"
	"sync"
)

// ErrStopped is the reason why [Tasks.Stop] cancels a task, and why no task starts after Stop.
var ErrStopped = errors.New("dray is shutting down")

// Tasks owns the goroutines that outlive the requests that start them.
type Tasks struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	mu     sync.Mutex
	closed bool
	wg     sync.WaitGroup
}

// NewTasks returns Tasks without any task.
func NewTasks() *Tasks {
	t := &Tasks{}
	t.ctx, t.cancel = context.WithCancelCause(context.Background())
	return t
}

// Start runs fn in a goroutine, with a context that Stop ends, and returns true. After Stop, it
// returns false and does not run fn.
func (t *Tasks) Start(fn func(ctx context.Context)) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.wg.Go(func() { fn(t.ctx) })
	return true
}

// StartCancellable is Start for a task whose context also ends when cancel is called. If the task
// was not started, cancel does nothing.
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

// Stop cancels the contexts of all tasks with ErrStopped and waits for the tasks.
func (t *Tasks) Stop() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.cancel(ErrStopped)
	t.wg.Wait()
}
