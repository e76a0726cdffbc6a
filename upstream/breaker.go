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
	// Threshold is the number of failures in a row after which callers without an older answer are
	// refused. 0 means 5.
	Threshold int
	// Lasting is the time over which the failures must have lasted as well, so that retries absorb
	// a short burst of failures, however many callers meet it. 0 means that the number is enough.
	Lasting time.Duration
	// Probe is the time from a failure to the next attempt. 0 means 5 s.
	Probe time.Duration
}

// Breaker refuses requests to an upstream that does not answer, so that callers need not wait
// for it. Failures are ErrUnreachable and answers of 500 and above; any other answer of the
// upstream closes the breaker. The storage that a registry redirects to has a state of its own:
// while it is down, only blobs are refused.
//
// Two kinds of callers share the state. Callers that need the answer (Source, Sink) are refused
// after Threshold failures in a row. Callers that hold an older answer (Held) are refused after
// one failure, because asking costs them time and gains little. For both, one attempt at a time
// is let through, a Probe after the last failure.
type Breaker struct {
	o        BreakerOptions
	refusals prometheus.Counter
	open     prometheus.GaugeFunc

	mu                sync.Mutex // guards the fields below
	registry, storage circuit
}

// circuit is the state of one host.
type circuit struct {
	failures int
	first    time.Time // of the first failure in the row
	last     error
	next     time.Time // of the next attempt, after a failure
	probing  bool
}

// BreakerState is the state of an upstream, or of its storage if that has failed more often.
type BreakerState struct {
	// Open says that callers are refused until Next.
	Open bool
	// Failures is the number of failures in a row. Last is the newest of them, nil if there are
	// none.
	Failures int
	Last     error
	Next     time.Time
}

// OpenError is the refusal of a Breaker. It matches ErrUnreachable, and is answered with 503.
type OpenError struct {
	// Next is when an attempt will be let through.
	Next time.Time
	err  error
}

// Error names the failure that opened the breaker.
func (e *OpenError) Error() string { return e.err.Error() }

// Unwrap returns the error for the wire, an *oci.Error.
func (e *OpenError) Unwrap() error { return e.err }

// NewBreaker returns a closed Breaker.
func NewBreaker(o BreakerOptions) *Breaker {
	o.Threshold, o.Probe = cmp.Or(o.Threshold, 5), cmp.Or(o.Probe, 5*time.Second)
	b := &Breaker{o: o}
	labels := prometheus.Labels{"upstream": o.Name}
	b.refusals = prometheus.NewCounter(prometheus.CounterOpts{
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

// Collectors returns the breaker's metrics.
func (b *Breaker) Collectors() []prometheus.Collector {
	return []prometheus.Collector{b.refusals, b.open}
}

// State returns the state of the upstream, for health checks and metrics.
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

// Do calls f for a request other than that of a blob. If the breaker is open, it returns an
// *OpenError and does not call f.
func (b *Breaker) Do(f func() error) error { return b.do(b.o.Threshold, ofRegistry, f) }

// origin is the host that an answer comes from.
type origin int

const (
	ofRegistry origin = iota
	// ofStorage is for blobs: the storage that the registry redirects to, or the registry itself.
	ofStorage
)

// do calls f, unless the breaker is open, and records the result.
func (b *Breaker) do(threshold int, from origin, f func() error) error {
	circuits := []*circuit{&b.registry, &b.storage}
	if from == ofRegistry {
		circuits = circuits[:1]
	}
	probes, err := b.admit(threshold, circuits)
	if err != nil {
		b.refusals.Inc()
		return err
	}
	done := false
	defer func() {
		if !done { // f panicked: that is no failure of the upstream
			b.record(from, probes, context.Canceled)
		}
	}()
	err = f()
	done = true
	b.record(from, probes, err)
	return err
}

// refuses reports whether a circuit has failed often enough to refuse a caller; b.mu is held.
// With a threshold of 1, Lasting does not count.
func (b *Breaker) refuses(c *circuit, threshold int) bool {
	return c.failures >= threshold && (threshold == 1 || time.Since(c.first) >= b.o.Lasting)
}

// admit returns the circuits for which the attempt is the probe, or an *OpenError.
func (b *Breaker) admit(threshold int, circuits []*circuit) (probes []*circuit, err error) {
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

func (b *Breaker) record(from origin, probes []*circuit, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range probes {
		c.probing = false
	}
	_, isLocal := errors.AsType[localError](err)
	_, storage := errors.AsType[storageError](err)
	storage = storage || errors.Is(err, ErrStorage)
	switch {
	case isLocal, errors.Is(err, context.Canceled), errors.Is(err, ErrBusy), errors.Is(err, ErrCredentials), errors.Is(err, ErrRepositoryMissing): // says nothing about the registry's health
	case failing(err) && storage:
		b.registry = circuit{probing: b.registry.probing} // the registry answered with a redirect
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

// failed records a failure; b.mu is held.
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
		return false // the registry answered, with the length of the blob
	}
	if errors.Is(err, ErrUnreachable) || errors.Is(err, ErrStorage) {
		return true
	}
	e, ok := errors.AsType[*oci.Error](err)
	return ok && e.Status >= http.StatusInternalServerError && !errors.Is(err, ErrCorrupt)
}
