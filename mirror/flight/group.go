package flight

import (
	"context"
	"maps"
	"sync"
	"time"
)

// Group makes one call of many equal ones. The call belongs to the tasks and not to the caller that
// came first: that one may leave.
type Group[K comparable, T any] struct {
	options Options
	mu      sync.Mutex // guards calls and their waiting
	calls   map[K]*call[T]
}

// Options say how the calls of a Group are made.
type Options struct {
	// Tasks run the calls.
	Tasks *Tasks
	// Timeout bounds each call.
	Timeout time.Duration
	// Detached calls go on when every caller has left. The others are cancelled, so that a client
	// cannot leave more work behind than it has connections.
	Detached bool
}

type call[T any] struct {
	waiting int
	cancel  context.CancelCauseFunc
	done    chan struct{}
	value   T
	err     error
}

// NewGroup returns a Group with no call under way.
func NewGroup[K comparable, T any](o Options) *Group[K, T] {
	return &Group[K, T]{options: o, calls: map[K]*call[T]{}}
}

// Do returns the result of the call under key, and starts fn where there is none. A caller stops
// waiting when ctx ends and gets the cause of that; after the tasks have stopped it gets
// [ErrStopped].
func (g *Group[K, T]) Do(ctx context.Context, key K, fn func(context.Context) (T, error)) (T, error) {
	c, err := g.join(key, fn)
	if err != nil {
		var zero T
		return zero, err
	}
	defer g.leave(key, c)
	select {
	case <-c.done:
		return c.value, c.err
	case <-ctx.Done():
		var zero T
		return zero, context.Cause(ctx)
	}
}

func (g *Group[K, T]) join(key K, fn func(context.Context) (T, error)) (*call[T], error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c := g.calls[key]; c != nil {
		c.waiting++
		return c, nil
	}
	c := &call[T]{waiting: 1, done: make(chan struct{})}
	var started bool
	c.cancel, started = g.options.Tasks.StartCancellable(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, g.options.Timeout)
		defer cancel()
		c.value, c.err = fn(ctx)
		g.mu.Lock()
		g.remove(key, c)
		g.mu.Unlock()
		close(c.done)
	})
	if !started {
		return nil, ErrStopped
	}
	g.calls[key] = c
	return c, nil
}

// leave ends the wait of one caller. A caller that comes after the last one has left starts a new
// call: the one that is being cancelled would only give it the error of that.
func (g *Group[K, T]) leave(key K, c *call[T]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.waiting--; c.waiting == 0 && !g.options.Detached {
		g.remove(key, c)
		c.cancel(nil)
	}
}

// Wait returns when no call is under way under a key that which picks, or the cause of ctx's end.
func (g *Group[K, T]) Wait(ctx context.Context, which func(K) bool) error {
	for {
		g.mu.Lock()
		calls := maps.Clone(g.calls)
		g.mu.Unlock()
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
func (g *Group[K, T]) remove(key K, c *call[T]) {
	if g.calls[key] == c {
		delete(g.calls, key)
	}
}
