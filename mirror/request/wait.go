package request

import (
	"context"
	"net/http"
	"sync"
	"time"

	"dray/upstream/oci"
)

var errTimeout = oci.ErrUnavailable.With("the upstream registry did not answer in time").WithStatus(http.StatusGatewayTimeout)

// wait is the context of [Request.WithTimeout]. Its inner context ctx ends when the time is over.
// Most answers come from the cache, without a wait. So ctx and its timer are made only when they
// are first needed.
type wait struct {
	context.Context // of the http.Request
	until           time.Time

	mu     sync.Mutex // guards the fields below
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	lifted bool // there is no time bound any more
	ended  bool // the request has ended
}

// Done implements context.Context.
func (w *wait) Done() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.make()
	return w.ctx.Done()
}

// Err implements context.Context.
func (w *wait) Err() error { return w.current().Err() }

// Value implements context.Context.
func (w *wait) Value(key any) any { return w.current().Value(key) }

// current returns ctx, or the context of the http.Request while there is no ctx. If there is no
// ctx, but the request has ended or its time is over, current makes a ctx that has ended.
func (w *wait) current() context.Context {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended || !w.lifted && time.Until(w.until) <= 0 {
		w.make()
	}
	if w.ctx == nil {
		return w.Context
	}
	return w.ctx
}

// make makes ctx if there is none. The caller holds mu.
func (w *wait) make() {
	if w.ctx != nil {
		return
	}
	ctx, cancel := context.WithCancelCause(w.Context)
	w.ctx, w.cancel = ctx, cancel
	left := time.Until(w.until)
	switch {
	case w.ended:
		cancel(nil)
	case w.lifted:
	case left <= 0:
		cancel(errTimeout)
	default:
		w.timer = time.AfterFunc(left, func() { cancel(errTimeout) })
	}
}

// lift removes the time bound.
func (w *wait) lift() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lifted = true
	if w.timer != nil {
		w.timer.Stop()
	}
}

func (w *wait) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lifted, w.ended = true, true
	if w.timer != nil {
		w.timer.Stop()
	}
	if w.cancel != nil {
		w.cancel(nil)
	}
}
