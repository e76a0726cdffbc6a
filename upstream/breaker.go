package upstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"dray/upstream/oci"
)

// BreakerOptions configure a Breaker.
type BreakerOptions struct {
	// Name is the upstream in messages and metrics.
	Name string
	// Threshold is how many failures in a row it takes to refuse callers who have nothing else. 0
	// means 5.
	Threshold int
	// Lasting is for how long they must have failed, so that a short burst of failures is absorbed
	// by repeating, however many callers meet it. 0 means that the number is enough.
	Lasting time.Duration
	// Probe is the time from a failure to the next attempt that is let through. 0 means 5 s.
	Probe time.Duration
}

// Breaker spares an upstream that does not answer, and its callers the waiting. Failures are
// ErrUnreachable and answers of 500 and above; anything else that the upstream says closes it. The
// storage that a registry redirects to is judged by itself: while it is down, blobs are refused and
// nothing else.
//
// Two kinds of callers share what it learns. Those who need the answer (Source, Sink) are refused
// from the Threshold on. Those who hold an older answer (Held) are refused after one failure,
// because asking costs them time and gains little. Either way one attempt at a time is let through
// once in a Probe.
type Breaker struct {
	o      BreakerOptions
	opened prometheus.Counter
	open   prometheus.GaugeFunc

	mu                sync.Mutex // guards what follows
	registry, storage circuit
}

// circuit is what is known about one host.
type circuit struct {
	failures int
	first    time.Time // of the failures in a row
	last     error
	next     time.Time // of the next attempt, after a failure
	probing  bool
}

// BreakerState is what a Breaker knows about its upstream, or about the storage of it where that is
// worse.
type BreakerState struct {
	// Open says that callers are refused until Next.
	Open bool
	// Failures is the number of failures in a row, and Last the newest of them (nil when there are
	// none).
	Failures int
	Last     error
	Next     time.Time
}

// OpenError is the refusal of a Breaker. It satisfies ErrUnreachable and is a 503 on the wire.
type OpenError struct {
	// Next is when an attempt will be let through.
	Next time.Time
	err  error
}

// Error names the failure that opened the breaker.
func (e *OpenError) Error() string { return e.err.Error() }

// Unwrap gives the wire form.
func (e *OpenError) Unwrap() error { return e.err }

// NewBreaker returns a closed Breaker.
func NewBreaker(o BreakerOptions) *Breaker {
	o.Threshold, o.Probe = cmp.Or(o.Threshold, 5), cmp.Or(o.Probe, 5*time.Second)
	b := &Breaker{o: o}
	labels := prometheus.Labels{"upstream": o.Name}
	b.opened = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "dray_upstream_breaker_refusals_total", ConstLabels: labels,
		Help: "Requests that dray did not send because the upstream had just failed.",
	})
	b.open = prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "dray_upstream_breaker_open", ConstLabels: labels,
		Help: "1 while dray considers the upstream, or the storage that it redirects to, to be down; otherwise 0.",
	}, func() float64 {
		if b.State().Open {
			return 1
		}
		return 0
	})
	return b
}

// Collectors are the breaker's metrics.
func (b *Breaker) Collectors() []prometheus.Collector {
	return []prometheus.Collector{b.opened, b.open}
}

// State reports what the breaker knows, for health and dashboards.
func (b *Breaker) State() BreakerState {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := &b.registry
	if b.storage.failures > c.failures {
		c = &b.storage
	}
	open := b.refuses(&b.registry, b.o.Threshold) || b.refuses(&b.storage, b.o.Threshold)
	return BreakerState{Open: open, Failures: c.failures, Last: c.last, Next: c.next}
}

// Do makes one attempt at something else than a blob, unless the breaker is open: then the error is
// an *OpenError and f is not called.
func (b *Breaker) Do(f func() error) error { return b.do(b.o.Threshold, ofRegistry, f) }

// origin is where the answer to a question comes from.
type origin int

const (
	ofRegistry origin = iota
	// ofStorage is where a blob comes from: the storage that the registry redirects to, or the
	// registry itself.
	ofStorage
)

// do makes one attempt.
func (b *Breaker) do(threshold int, from origin, f func() error) error {
	circuits := []*circuit{&b.registry, &b.storage}
	if from == ofRegistry {
		circuits = circuits[:1]
	}
	probes, err := b.enter(threshold, circuits)
	if err != nil {
		b.opened.Inc()
		return err
	}
	done := false
	defer func() {
		if !done { // f panicked: the attempt says nothing
			b.leave(from, probes, context.Canceled)
		}
	}()
	err = f()
	done = true
	b.leave(from, probes, err)
	return err
}

// refuses reports whether a circuit has failed often enough; b.mu is held. Those who hold an older
// answer need no more than one failure.
func (b *Breaker) refuses(c *circuit, threshold int) bool {
	return c.failures >= threshold && (threshold == 1 || time.Since(c.first) >= b.o.Lasting)
}

// enter gives the circuits that the attempt is a probe of.
func (b *Breaker) enter(threshold int, circuits []*circuit) (probes []*circuit, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range circuits {
		if !b.refuses(c, threshold) {
			continue
		}
		if c.probing || time.Now().Before(c.next) {
			return nil, b.refusal(c)
		}
		probes = append(probes, c)
	}
	for _, c := range probes {
		c.probing = true
	}
	return probes, nil
}

func (b *Breaker) refusal(c *circuit) error {
	what := "the upstream registry"
	if c == &b.storage {
		what = "the storage of the upstream registry"
	}
	e := oci.ErrUnavailable.With("%s %s does not answer", what, b.o.Name)
	e.RetryAfter = max(time.Second, time.Until(c.next).Round(time.Second))
	return &OpenError{Next: c.next, err: e.Because(fmt.Errorf("%w: refused by breaker: %w", ErrUnreachable, c.last))}
}

func (b *Breaker) leave(from origin, probes []*circuit, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range probes {
		c.probing = false
	}
	_, own := errors.AsType[local](err)
	_, storage := errors.AsType[elsewhere](err)
	storage = storage || errors.Is(err, ErrStorage)
	switch {
	case own, errors.Is(err, context.Canceled), errors.Is(err, ErrBusy), errors.Is(err, ErrCredentials), errors.Is(err, ErrRepositoryMissing): // nothing about the registry's health
	case failing(err) && storage:
		b.registry = circuit{probing: b.registry.probing} // it has redirected
		b.failed(&b.storage, err)
	case failing(err):
		b.failed(&b.registry, err)
	default:
		b.registry = circuit{probing: b.registry.probing}
		if err == nil && from == ofStorage {
			b.storage = circuit{probing: b.storage.probing}
		}
	}
}

// failed counts a failure; b.mu is held.
func (b *Breaker) failed(c *circuit, err error) {
	now := time.Now()
	if c.failures == 0 {
		c.first = now
	}
	c.failures++
	c.last, c.next = err, now.Add(b.o.Probe)
}

func failing(err error) bool {
	if errors.Is(err, oci.ErrRangeInvalid) {
		return false // it answers, and says how long the blob is
	}
	if errors.Is(err, ErrUnreachable) || errors.Is(err, ErrStorage) {
		return true
	}
	e, ok := errors.AsType[*oci.Error](err)
	return ok && e.Status >= http.StatusInternalServerError && !errors.Is(err, ErrCorrupt)
}
