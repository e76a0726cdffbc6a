package meta

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// GuardOptions configure [NewGuarded].
type GuardOptions struct {
	// Timeout bounds each call; 0 means 250 ms. PutAll may take four times as long. A Scan is bounded
	// only by its context.
	Timeout time.Duration
	// Failures is the number of consecutive failures after which Guarded stops asking the store; 0
	// means 3.
	Failures int
	// Retry is how long Guarded waits after these failures before it asks the store again; 0 means 5
	// seconds. It then sends one request to the store as a probe, and refuses other requests until the
	// probe has ended.
	Retry time.Duration
	// Logger gets one line when the store is no longer asked, and one when it answers again; nil
	// discards them.
	Logger *slog.Logger
}

// Guarded is a [Store] that keeps callers from waiting for a failing store. A request waits for the
// store only briefly. After a few consecutive failures, requests get [ErrUnavailable] at once until
// a probe finds that the store answers again. While Guarded refuses requests, it ignores the late
// results of requests that it sent earlier.
type Guarded struct {
	store Store
	o     GuardOptions

	mu       sync.Mutex // guards the fields below
	failures int        // consecutive
	open     bool       // the store is not asked
	probing  bool       // a probe is under way
	retryAt  time.Time
	last     error // the latest failure of the store

	operations *prometheus.CounterVec
	seconds    *prometheus.HistogramVec
	up         prometheus.Gauge
}

var (
	_ Store   = (*Guarded)(nil)
	_ Batch   = (*Guarded)(nil)
	_ Swapper = (*Guarded)(nil)
	_ Clocked = (*Guarded)(nil)
)

// NewGuarded returns a Guarded for s. Close also closes s.
func NewGuarded(s Store, o GuardOptions) *Guarded {
	o.Timeout = cmp.Or(o.Timeout, 250*time.Millisecond)
	o.Failures = cmp.Or(o.Failures, 3)
	o.Retry = cmp.Or(o.Retry, 5*time.Second)
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	g := &Guarded{
		store: s,
		o:     o,
		operations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dray_meta_operations_total",
			Help: "Operations on the metadata store, by outcome: ok, absent, error, refused (not sent, because the store had failed), cancelled.",
		}, []string{"operation", "outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "dray_meta_operation_seconds",
			Help:    "Time until the metadata store answered or failed.",
			Buckets: prometheus.ExponentialBuckets(50e-6, 4, 8), // 50 µs … 0.8 s
		}, []string{"operation"}),
		up: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "dray_meta_up",
			Help: "1 while dray uses the metadata store, 0 while it skips the store after a failure.",
		}),
	}
	g.up.Set(1)
	return g
}

// Get implements [Store].
func (g *Guarded) Get(ctx context.Context, key string) (value []byte, err error) {
	err = g.do(ctx, "get", g.o.Timeout, func(ctx context.Context) error {
		value, err = g.store.Get(ctx, key)
		return err
	})
	return value, err
}

// Put implements [Store].
func (g *Guarded) Put(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	return g.do(ctx, "put", g.o.Timeout, func(ctx context.Context) error {
		return g.store.Put(ctx, key, value, ttl)
	})
}

// GetAll implements [Batch].
func (g *Guarded) GetAll(ctx context.Context, keys []string) (all []Seen, err error) {
	err = g.do(ctx, "get", g.o.Timeout, func(ctx context.Context) error {
		all, err = GetAll(ctx, g.store, keys)
		return err
	})
	return all, err
}

// Swap implements [Swapper].
func (g *Guarded) Swap(ctx context.Context, writes []Write, snapshot []Seen) (ok bool, err error) {
	err = g.do(ctx, "swap", g.o.Timeout, func(ctx context.Context) error {
		ok, err = Swap(ctx, g.store, writes, snapshot)
		return err
	})
	return ok, err
}

// Clock implements [Clocked].
func (g *Guarded) Clock(ctx context.Context) (store, local time.Time, err error) {
	if _, ok := g.store.(Clocked); !ok {
		return askClock(ctx, g.store) // sends no request, because the store has no clock
	}
	err = g.do(ctx, "clock", g.o.Timeout, func(ctx context.Context) error {
		store, local, err = askClock(ctx, g.store)
		return err
	})
	return store, local, err
}

// PutAll implements [Batch].
func (g *Guarded) PutAll(ctx context.Context, entries []Entry, ttl time.Duration) error {
	return g.do(ctx, "put", 4*g.o.Timeout, func(ctx context.Context) error {
		return PutAll(ctx, g.store, entries, ttl)
	})
}

// Delete implements [Store].
func (g *Guarded) Delete(ctx context.Context, key string) error {
	return g.do(ctx, "delete", g.o.Timeout, func(ctx context.Context) error {
		return g.store.Delete(ctx, key)
	})
}

// Scan implements [Store].
func (g *Guarded) Scan(ctx context.Context, prefix string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		g.mu.Lock()
		open := g.open
		g.mu.Unlock()
		if open {
			// Check sends the probe, because Check has a timeout and a scan has none. All other
			// requests are refused until the probe ends.
			if err := g.Check(ctx); err != nil {
				yield(Entry{}, err)
				return
			}
		}
		sent, err := g.allow("scan")
		if err != nil {
			yield(Entry{}, err)
			return
		}
		var failed error
		// finish must be called even if the loop body panics or leaves the loop.
		defer func() { g.finish(ctx, "scan", sent, failed) }()
		for e, err := range g.store.Scan(ctx, prefix) {
			failed = err
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// Close implements [Store].
func (g *Guarded) Close() error { return g.store.Close() }

// Check asks the store for an entry. It returns nil if the store answered, even if it has no such
// entry. Readiness checks call Check, so Guarded notices an outage and its end even without other
// traffic.
func (g *Guarded) Check(ctx context.Context) error {
	_, err := g.Get(ctx, probeKey)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// Collectors returns the metrics of the guard.
func (g *Guarded) Collectors() []prometheus.Collector {
	return []prometheus.Collector{g.operations, g.seconds, g.up}
}

func (g *Guarded) do(ctx context.Context, op string, timeout time.Duration, ask func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	sent, err := g.allow(op)
	if err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err = ask(bounded)
	g.seconds.WithLabelValues(op).Observe(time.Since(sent).Seconds())
	g.finish(ctx, op, sent, err)
	return err
}

// allow returns the time at which a request is sent, or ErrUnavailable if the request is refused.
func (g *Guarded) allow(op string) (sent time.Time, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	sent = time.Now()
	if !g.open {
		return sent, nil
	}
	if g.probing || sent.Before(g.retryAt) {
		g.operations.WithLabelValues(op, "refused").Inc()
		return sent, fmt.Errorf("%w: %w", ErrUnavailable, g.last)
	}
	g.probing = true
	return sent, nil
}

// finish records the outcome of a request that the function allow has not refused.
func (g *Guarded) finish(ctx context.Context, op string, sent time.Time, err error) {
	outcome := "ok"
	switch {
	case err == nil:
	case errors.Is(err, ErrNotFound):
		outcome = "absent"
	case ctx.Err() != nil: // the caller gave up; this says nothing about the store
		outcome = "cancelled"
	default:
		outcome = "error"
	}
	g.operations.WithLabelValues(op, outcome).Inc()
	switch change := g.transition(outcome, sent, err); change {
	case "down":
		g.o.Logger.Warn("metadata store is unavailable, continuing without it", "operation", op, "error", err)
	case "up":
		g.o.Logger.Info("metadata store is available again")
	}
}

// transition records an outcome. It returns "down" if requests are refused from now on, and "up" if
// the store is asked again.
func (g *Guarded) transition(outcome string, sent time.Time, err error) (change string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open && sent.Before(g.retryAt) {
		return ""
	}
	g.probing = false
	switch outcome {
	case "cancelled":
	case "error":
		g.failures++
		g.last = err
		if g.failures < g.o.Failures && !g.open {
			return ""
		}
		g.retryAt = time.Now().Add(g.o.Retry)
		if !g.open {
			g.open = true
			g.up.Set(0)
			return "down"
		}
	default:
		g.failures = 0
		if g.open {
			g.open = false
			g.up.Set(1)
			return "up"
		}
	}
	return ""
}
