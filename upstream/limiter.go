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
	"golang.org/x/time/rate"

	"dray/upstream/oci"
)

// errPaced marks an answer that a Limiter has taken note of: whoever repeats the request is made to
// wait there.
var errPaced = errors.New("the requests pause")

// LimiterOptions configure a Limiter.
type LimiterOptions struct {
	// Name is the upstream in messages and metrics.
	Name string
	// Rates are the ceilings of the registry.
	Rates []Rate
	// Slots bounds the requests under way at one host. Blobs being received, and blobs being sent,
	// are counted apart, so that they keep nothing else waiting. 0 means 256.
	Slots int
	// Queue bounds the requests that wait for one rate, or one host. 0 means 1,000.
	Queue int
	// Wait bounds the time that a request waits. 0 means 20 s: clients give up after 30 s without
	// headers.
	Wait time.Duration
	// Reserve is the part of a quota, in per cent, that is left to clients.
	Reserve int
}

// Limiter paces the requests of one Client: so many at a time for each host, so many a second for
// each operation that the registry counts, in turns between repositories, clients before background
// work. Where the registry refuses with 429, all requests of that operation pause together and go
// on at half the rate, which rises again by and by; after 502 to 504 they only pause. What cannot
// have its turn in time is refused at once (ErrBusy, 429 on the wire).
//
// It paces requests and not the calls of a Sink, because one upload is several operations with
// ceilings of their own.
type Limiter struct {
	name    string
	rates   map[Class]Rate
	slots   int
	most    int
	usual   time.Duration
	quota   *quota
	metrics limiterMetrics

	mu      sync.Mutex // guards what follows; nothing is waited for under it
	buckets map[bucketKey]*bucket
	pools   map[poolKey]*pool
}

type bucketKey struct{ host, name string }

type poolKey struct{ host, what string }

// maxHosts bounds the hosts that redirects lead to and that are remembered when idle.
const maxHosts = 64

// NewLimiter returns a Limiter. It starts nothing.
func NewLimiter(o LimiterOptions) *Limiter {
	l := &Limiter{
		name: o.Name, rates: map[Class]Rate{}, slots: cmp.Or(o.Slots, 256), most: cmp.Or(o.Queue, 1000), usual: cmp.Or(o.Wait, 20*time.Second),
		quota: newQuota(o.Name, o.Reserve), buckets: map[bucketKey]*bucket{}, pools: map[poolKey]*pool{},
	}
	for _, r := range o.Rates {
		for _, c := range r.Classes {
			l.rates[c] = r
		}
	}
	l.metrics = newLimiterMetrics(l)
	for _, c := range Classes() {
		l.metrics.throttled.WithLabelValues(l.operation("", c)) // from 0, so that the first one is an increase
	}
	return l
}

// operation is the name under which requests of a class to a host are told of; an empty host is the
// registry's.
func (l *Limiter) operation(host string, class Class) string {
	if host != "" {
		return "storage"
	}
	if r, ok := l.rates[class]; ok {
		return r.Name
	}
	return string(class)
}

// permit is a request on its way.
type permit struct {
	l      *Limiter
	bucket *bucket
	began  time.Time
	once   sync.Once
	// pausing says that its answer made the lane pause.
	pausing bool
}

// enter waits for the turn of a request. host is empty for the registry itself. The caller tells
// the turn of the answer, and ends it when the body has been read.
func (l *Limiter) enter(ctx context.Context, repo Repo, host string, class Class) (*permit, error) {
	background := repo.inBackground()
	if background && host == "" && (class == ManifestGet || class == ManifestHead) && l.quota.low(time.Now()) {
		l.metrics.refusals.WithLabelValues(string(class)).Inc()
		return nil, oci.ErrTooManyRequests.With("what is left of the quota at %s is for clients", l.name).Because(ErrBusy)
	}
	w := &waiter{flow: repo.Name, ready: make(chan error, 1), background: background, urgent: repo.raised()}
	most, began := repo.waits(l.usual), time.Now()
	if end, ok := ctx.Deadline(); ok {
		most = min(most, time.Until(end))
	}
	bucket, err := l.join(w, host, class, most)
	if err != nil {
		return nil, err
	}
	if err := l.await(ctx, bucket, w, most); err != nil {
		return nil, err
	}
	now := time.Now()
	l.metrics.waits.WithLabelValues(bucket.name).Observe(now.Sub(began).Seconds())
	return &permit{l: l, bucket: bucket, began: now}, nil
}

// join puts a request into its queue, unless its turn would come too late.
func (l *Limiter) join(w *waiter, host string, class Class, most time.Duration) (*bucket, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	bucket := l.bucket(host, class)
	if d := bucket.wait(now, w.flow, w.background); d >= most {
		return nil, l.busy(bucket, d)
	}
	if bucket.foreground.size+bucket.background.size >= l.most {
		var out *waiter
		if w.background {
			out = bucket.background.yield(bucket.background.length(w.flow) + 1)
		} else if out = bucket.background.yield(0); out == nil {
			out = bucket.foreground.yield(bucket.foreground.length(w.flow) + 1)
		}
		if out == nil {
			return nil, l.busy(bucket, 0)
		}
		out.finish(l.busy(bucket, 0))
	}
	if w.background {
		bucket.background.push(w)
	} else {
		bucket.foreground.push(w)
	}
	bucket.pool.pump(now, l.again)
	return bucket, nil
}

// again is what a lane's timer does.
func (l *Limiter) again(bucket *bucket) {
	l.mu.Lock()
	defer l.mu.Unlock()
	bucket.pool.pump(time.Now(), l.again)
}

// await returns when a request may be sent, or will not be.
func (l *Limiter) await(ctx context.Context, bucket *bucket, w *waiter, most time.Duration) error {
	select {
	case err := <-w.ready:
		return err
	default:
	}
	late := time.NewTimer(most)
	defer late.Stop()
	urgent := w.urgent
	for {
		select {
		case err := <-w.ready:
			return err
		case <-urgent:
			urgent = nil
			l.hasten(bucket, w)
		case <-late.C:
			return l.leave(bucket, w, func() error { return l.busy(bucket, 0) })
		case <-ctx.Done():
			return l.leave(bucket, w, func() error {
				if errors.Is(ctx.Err(), context.DeadlineExceeded) {
					return l.busy(bucket, 0)
				}
				return context.Cause(ctx)
			})
		}
	}
}

// hasten makes a background request one that somebody waits for.
func (l *Limiter) hasten(bucket *bucket, w *waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if w.finished || !w.background {
		return
	}
	bucket.background.remove(w)
	w.background = false
	bucket.foreground.push(w)
	bucket.pool.pump(time.Now(), l.again)
}

// leave takes a request out of its queue; one that was let go in the same moment gives its place
// back.
func (l *Limiter) leave(bucket *bucket, w *waiter, why func() error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if w.finished {
		if err := <-w.ready; err != nil {
			return err
		}
		bucket.pool.taken--
	} else {
		bucket.foreground.remove(w)
		bucket.background.remove(w)
		w.finished = true
	}
	bucket.pool.pump(now, l.again)
	return why()
}

// bucket finds or makes the lane of a request; l.mu is held.
func (l *Limiter) bucket(host string, class Class) *bucket {
	name, ceiling := l.operation(host, class), 0.0
	if host == "" {
		ceiling = l.rates[class].PerSecond
	}
	key := bucketKey{host, name}
	if x := l.buckets[key]; x != nil {
		return x
	}
	if len(l.pools) >= 3*maxHosts {
		l.forgetIdle()
	}
	x := &bucket{name: name, ceiling: ceiling, pool: l.pool(host, class)}
	if ceiling > 0 {
		x.tokens = rate.NewLimiter(rate.Limit(ceiling), max(1, int(ceiling/2)))
	}
	l.buckets[key] = x
	x.pool.buckets = append(x.pool.buckets, x)
	return x
}

func (l *Limiter) pool(host string, class Class) *pool {
	key := poolKey{host: host}
	switch class {
	case BlobGet:
		key.what = "receive"
	case UploadPart:
		key.what = "send"
	}
	if l.pools[key] == nil {
		l.pools[key] = &pool{slots: l.slots}
	}
	return l.pools[key]
}

// forgetIdle drops what is known of storage hosts that nothing is asked of; l.mu is held.
func (l *Limiter) forgetIdle() {
	for key, x := range l.buckets {
		if key.host != "" && x.pool.taken == 0 && x.foreground.size+x.background.size == 0 {
			delete(l.buckets, key)
			for p, of := range l.pools {
				if of == x.pool {
					delete(l.pools, p)
				}
			}
		}
	}
}

// busy is the refusal of what cannot be sent in time, in the registry's own words where it has said
// some.
func (l *Limiter) busy(bucket *bucket, wait time.Duration) error {
	l.metrics.refusals.WithLabelValues(bucket.name).Inc()
	e := oci.ErrTooManyRequests.With("more is asked of the upstream registry %s than it answers (%s); try again later", l.name, bucket.name)
	if bucket.lastError != "" {
		e = oci.ErrTooManyRequests.With("%s", bucket.lastError)
	}
	e.RetryAfter = max(time.Second, wait.Round(time.Second))
	return e.Because(fmt.Errorf("%w: %s of %s", ErrBusy, bucket.name, l.name))
}

// answered tells the turn of its answer. One that says "later" makes the lane pause; one that says
// "less" slows it down.
func (p *permit) answered(status int, after time.Duration) {
	p.l.mu.Lock()
	defer p.l.mu.Unlock()
	now := time.Now()
	switch status {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		throttled := status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable && after > 0
		if throttled {
			p.l.metrics.throttled.WithLabelValues(p.bucket.name).Inc()
		}
		p.pausing = true
		p.bucket.refused(p.began, now, throttled, after)
	default:
		p.bucket.accepted(p.began, now)
	}
	p.bucket.pool.pump(now, p.l.again)
}

// recordError keeps the words of a refusal, for those that are refused because of it.
func (p *permit) recordError(words string) {
	p.l.mu.Lock()
	defer p.l.mu.Unlock()
	if p.pausing {
		p.bucket.lastError = words
	}
}

// end gives the place back. It may be called again.
func (p *permit) end() {
	p.once.Do(func() {
		p.l.mu.Lock()
		defer p.l.mu.Unlock()
		p.bucket.pool.taken--
		p.bucket.pool.pump(time.Now(), p.l.again)
	})
}

// limiterMetrics are the Limiter's own. Their labels are operations, of which there is a fixed
// list.
type limiterMetrics struct {
	waits     *prometheus.HistogramVec
	refusals  *prometheus.CounterVec
	throttled *prometheus.CounterVec
	standing  prometheus.GaugeFunc
}

func newLimiterMetrics(l *Limiter) limiterMetrics {
	labels := prometheus.Labels{"upstream": l.name}
	return limiterMetrics{
		waits: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "dray_upstream_wait_seconds", ConstLabels: labels, Buckets: []float64{.001, .01, .1, .5, 1, 2.5, 5, 10, 20, 60},
			Help: "Time that requests waited before dray sent them to the upstream, by operation.",
		}, []string{"operation"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dray_upstream_busy_refusals_total", ConstLabels: labels,
			Help: "Requests that dray did not send because they would have waited too long, or because the quota was nearly used up, by operation.",
		}, []string{"operation"}),
		throttled: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dray_upstream_throttled_total", ConstLabels: labels,
			Help: "Answers 429, and 503 with Retry-After, by operation. The requests of that operation then pause and continue at a lower rate.",
		}, []string{"operation"}),
		standing: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "dray_upstream_waiting", ConstLabels: labels, Help: "Requests that wait now to be sent to the upstream.",
		}, func() float64 { return float64(l.waiting()) }),
	}
}

func (l *Limiter) waiting() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, x := range l.buckets {
		n += x.foreground.size + x.background.size
	}
	return n
}

// Collectors are the metrics of the queues and of the registry's quota.
func (l *Limiter) Collectors() []prometheus.Collector {
	return []prometheus.Collector{l.metrics.waits, l.metrics.refusals, l.metrics.throttled, l.metrics.standing, l.quota}
}
