package flight

import (
	"context"
	"maps"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"
)

// Group merges concurrent calls with the same key into one. The call runs in a task of its own,
// because the caller that started the call may leave before the call ends.
type Group[K comparable, T any] struct {
	options Options
	mu      sync.Mutex // guards calls, and the field waiting of each call
	calls   map[K]*call[T]
}

// Options configure a Group.
type Options struct {
	// Tasks run the calls.
	Tasks *Tasks
	// Timeout bounds each call.
	Timeout time.Duration
	// Detached says that a call continues when all its callers have left. If Detached is false, the
	// last caller that leaves cancels the call, so that calls for which nobody waits do not pile up.
	Detached bool
}

type call[T any] struct {
	waiting int
	cancel  context.CancelCauseFunc
	done    chan struct{}
	value   T
	err     error
	// span is the span of the caller that started the call. The spans of the other callers get a link
	// to it.
	span trace.Span
}

// NewGroup returns a Group with no call under way.
func NewGroup[K comparable, T any](o Options) *Group[K, T] {
	return &Group[K, T]{options: o, calls: map[K]*call[T]{}}
}

// Do returns the result of the call under way for key. If there is none, Do starts fn as the call.
// If ctx ends before the call ends, Do returns the cause of ctx. If the Tasks are stopped and no
// call is under way, Do returns [ErrStopped].
func (g *Group[K, T]) Do(ctx context.Context, key K, fn func(context.Context) (T, error)) (T, error) {
	c, err := g.join(trace.SpanFromContext(ctx), key, fn)
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

func (g *Group[K, T]) join(span trace.Span, key K, fn func(context.Context) (T, error)) (*call[T], error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c := g.calls[key]; c != nil {
		c.waiting++
		if span.IsRecording() {
			span.AddLink(trace.Link{SpanContext: c.span.SpanContext()})
		}
		return c, nil
	}
	c := &call[T]{waiting: 1, done: make(chan struct{}), span: span}
	var started bool
	c.cancel, started = g.options.Tasks.StartCancellable(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(trace.ContextWithSpan(ctx, span), g.options.Timeout)
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

// leave ends the wait of one caller. If the caller was the last and calls are not detached, leave
// cancels the call and removes it from calls. A later caller then starts a new call, instead of
// getting the error of the cancelled one.
func (g *Group[K, T]) leave(key K, c *call[T]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.waiting--; c.waiting == 0 && !g.options.Detached {
		g.remove(key, c)
		c.cancel(nil)
	}
}

// Wait waits until no call with a matching key is under way. A key matches if match returns true
// for it. Wait does not wait for a call that its last caller has cancelled. If ctx ends first, Wait
// returns the cause of ctx.
func (g *Group[K, T]) Wait(ctx context.Context, match func(K) bool) error {
	for {
		g.mu.Lock()
		calls := maps.Clone(g.calls)
		g.mu.Unlock()
		maps.DeleteFunc(calls, func(key K, _ *call[T]) bool { return !match(key) })
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

// remove removes a call. The caller holds mu.
func (g *Group[K, T]) remove(key K, c *call[T]) {
	if g.calls[key] == c {
		delete(g.calls, key)
	}
}
