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
	// Threshold is how many failures in a row it takes to refuse callers who have nothing else. 0 means 5.
	Threshold int
	// Probe is the time from a failure to the next attempt that is let through. 0 means 5 s.
	Probe time.Duration
}

// Breaker spares an upstream that does not answer, and its callers the waiting. Failures are ErrUnreachable and answers
// of 500 and above; anything else that the upstream says closes it.
//
// Two kinds of callers share what it learns. Those who need the answer (Source, Sink) are refused from the Threshold on.
// Those who hold an older answer (Held) are refused after one failure, because asking costs them time and gains little.
// Either way one attempt at a time is let through once in a Probe.
type Breaker struct {
	name      string
	threshold int
	probe     time.Duration
	opened    prometheus.Counter
	open      prometheus.GaugeFunc

	mu       sync.Mutex // guards what follows
	failures int
	last     error
	next     time.Time // of the next attempt, after a failure
	probing  bool
}

// BreakerState is what a Breaker knows about its upstream.
type BreakerState struct {
	// Open says that callers are refused until Next.
	Open bool
	// Failures is the number of failures in a row, and Last the newest of them (nil when there are none).
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
	b := &Breaker{name: o.Name, threshold: cmp.Or(o.Threshold, 5), probe: cmp.Or(o.Probe, 5*time.Second)}
	labels := prometheus.Labels{"upstream": o.Name}
	b.opened = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "dray_upstream_breaker_refusals_total", ConstLabels: labels,
		Help: "Requests that were not sent because the upstream had just failed.",
	})
	b.open = prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "dray_upstream_breaker_open", ConstLabels: labels,
		Help: "1 while the upstream is taken to be down, else 0.",
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
	return BreakerState{Open: b.failures >= b.threshold, Failures: b.failures, Last: b.last, Next: b.next}
}

// Do makes one attempt, unless the breaker is open: then the error is an *OpenError and f is not called.
func (b *Breaker) Do(f func() error) error { return b.do(b.threshold, f) }

func (b *Breaker) do(threshold int, f func() error) error {
	probe, err := b.enter(threshold)
	if err != nil {
		b.opened.Inc()
		return err
	}
	done := false
	defer func() {
		if !done { // f panicked: the attempt says nothing
			b.leave(probe, context.Canceled)
		}
	}()
	err = f()
	done = true
	b.leave(probe, err)
	return err
}

func (b *Breaker) enter(threshold int) (probe bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failures < threshold {
		return false, nil
	}
	if !b.probing && !time.Now().Before(b.next) {
		b.probing = true
		return true, nil
	}
	e := oci.ErrUnavailable.With("the upstream registry %s does not answer", b.name)
	e.RetryAfter = max(time.Second, time.Until(b.next).Round(time.Second))
	return false, &OpenError{Next: b.next, err: e.Because(fmt.Errorf("%w: refused by breaker: %w", ErrUnreachable, b.last))}
}

func (b *Breaker) leave(probe bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if probe {
		b.probing = false
	}
	_, own := errors.AsType[local](err)
	switch {
	case own, errors.Is(err, context.Canceled), errors.Is(err, ErrBusy), errors.Is(err, ErrCredentials), errors.Is(err, ErrRepositoryMissing): // nothing about the registry's health
	case failing(err):
		b.failures++
		b.last, b.next = err, time.Now().Add(b.probe)
	default:
		b.failures, b.last, b.next = 0, nil, time.Time{}
	}
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
