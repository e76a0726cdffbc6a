package flight

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"
)

// ErrStopped ends what still runs when the Mirror stops.
var ErrStopped = errors.New("the mirror is stopping")

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

// Start runs fn on a context that lives until stop and reports false, without
// running it, after stop.
func (t *Tasks) Start(fn func(ctx context.Context)) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.wg.Go(func() { fn(t.ctx) })
	return true
}

// StartCancellable is Start for a task that ends before stop when cancel is called. When the
// task is not started, cancel does nothing.
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

// Stop cancels everything and waits for it.
func (t *Tasks) Stop() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.cancel(ErrStopped)
	t.wg.Wait()
}

// Flights makes one call of many equal ones. The call belongs to the tasks and not
// to the client that asked first: that one may leave.
type Flights[K comparable, T any] struct {
	FlightOptions
	mu    sync.Mutex // guards calls and their waiting
	calls map[K]*call[T]
}

// FlightOptions say how the calls are made.
type FlightOptions struct {
	// Tasks run the calls.
	Tasks *Tasks
	// Within bounds each call.
	Within time.Duration
	// Lasting calls go on when everybody has left; the others are cancelled, so that a
	// client cannot leave more work behind than it has connections.
	Lasting bool
}

type call[T any] struct {
	waiting int
	cancel  context.CancelCauseFunc
	done    chan struct{}
	value   T
	err     error
}

// NewFlights returns flights of which none is under way.
func NewFlights[K comparable, T any](o FlightOptions) *Flights[K, T] {
	return &Flights[K, T]{FlightOptions: o, calls: map[K]*call[T]{}}
}

// Do returns the result of the call under key, starting fn where there is none. The
// wait is bounded by ctx.
func (f *Flights[K, T]) Do(ctx context.Context, key K, fn func(context.Context) (T, error)) (T, error) {
	c, err := f.join(key, fn)
	if err != nil {
		var zero T
		return zero, err
	}
	defer f.leave(key, c)
	select {
	case <-c.done:
		return c.value, c.err
	case <-ctx.Done():
		var zero T
		return zero, context.Cause(ctx)
	}
}

func (f *Flights[K, T]) join(key K, fn func(context.Context) (T, error)) (*call[T], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.calls[key]; c != nil {
		c.waiting++
		return c, nil
	}
	c := &call[T]{waiting: 1, done: make(chan struct{})}
	var started bool
	c.cancel, started = f.Tasks.StartCancellable(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, f.Within)
		defer cancel()
		c.value, c.err = fn(ctx)
		f.mu.Lock()
		f.remove(key, c)
		f.mu.Unlock()
		close(c.done)
	})
	if !started {
		return nil, ErrStopped
	}
	f.calls[key] = c
	return c, nil
}

// leave ends the wait of one caller. Who comes after the last one has left starts
// anew: the call that is being cancelled would only give them its end.
func (f *Flights[K, T]) leave(key K, c *call[T]) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.waiting--; c.waiting == 0 && !f.Lasting {
		f.remove(key, c)
		c.cancel(nil)
	}
}

// Settled returns when no call is under way under a key that which picks, or the cause of ctx's end.
func (f *Flights[K, T]) Settled(ctx context.Context, which func(key K) bool) error {
	for {
		f.mu.Lock()
		calls := maps.Clone(f.calls)
		f.mu.Unlock()
		maps.DeleteFunc(calls, func(key K, _ *call[T]) bool { return !which(key) })
		if len(calls) == 0 {
			return nil
		}
		for _, c := range calls {
			select {
			case <-c.done:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
}

// remove needs mu.
func (f *Flights[K, T]) remove(key K, c *call[T]) {
	if f.calls[key] == c {
		delete(f.calls, key)
	}
}
