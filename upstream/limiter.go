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
	"dray/upstream/turns"
)

// errPaused marks a failure for which a Limiter has already paused the operation. The caller may
// repeat the request without a pause of its own.
var errPaused = errors.New("requests are paused")

// LimiterOptions configure a Limiter.
type LimiterOptions struct {
	// Name names the upstream in messages and metrics.
	Name string
	// Rates are the ceilings of the registry.
	Rates []Rate
	// Slots bounds the requests in flight to one host. It applies separately to blob downloads, to
	// blob uploads and to the rest, so that slow transfers do not delay other requests. 0 means 256.
	Slots int
	// Queue bounds the requests to one host that wait for the same operation. 0 means 1,000.
	Queue int
	// Wait bounds how long a client's request waits, unless Call.maxWait is set. 0 means 20 s,
	// because clients give up after 30 s without headers. Background work waits up to
	// backgroundWait instead.
	Wait time.Duration
	// Reserve is the percentage of the registry's pull quota that background work leaves to clients.
	Reserve int
}

// Sharing has the functions by which a Limiter reports to the code that divides the ceilings of a
// registry among several processes. The Limiter calls both with its mutex held, so they must return
// at once and must not call the Limiter.
type Sharing struct {
	// Short is called when a request has to wait, perhaps because this process has only a part of the
	// ceiling.
	Short func()
	// Throttled is called when the registry itself has answered 429, or 503 with Retry-After. Its
	// arguments are the operation and the length of the operation's pause.
	Throttled func(operation string, pause time.Duration)
}

// Limiter paces the requests of one Client. It bounds the requests in flight to each host and the
// rate of each operation that the registry counts. Repositories take turns, and requests of clients
// go before background work. After a 429, or a 503 with Retry-After, all requests of the same
// operation pause and then continue, mostly at half the rate (see fewRequests). The rate rises
// again with each accepted request. After a 502, a 504 or any other 503, the requests pause but
// keep their rate. A request that cannot be sent in time fails with ErrBusy, if possible at once.
// Clients then get a 429.
//
// A Limiter paces single requests, and not whole calls of a Sink, because one upload consists of
// several operations, each with its own ceiling.
type Limiter struct {
	name        string
	rates       map[Class]Rate
	slots       int
	maxQueued   int
	defaultWait time.Duration
	quota       *quota
	metrics     limiterMetrics

	mu      sync.Mutex // guards the fields below; never held while waiting
	buckets map[bucketKey]*bucket
	pools   map[poolKey]*pool
	parts   map[string]float64 // the part of each operation's ceiling that this process may use; without an entry, all of it
	sharing Sharing
}

type bucketKey struct{ host, name string }

type poolKey struct{ host, kind string }

// maxHosts bounds the redirect targets whose buckets the Limiter keeps while they are idle.
const maxHosts = 64

// NewLimiter returns a Limiter. It starts nothing.
func NewLimiter(o LimiterOptions) *Limiter {
	l := &Limiter{
		name: o.Name, rates: map[Class]Rate{}, slots: cmp.Or(o.Slots, 256), maxQueued: cmp.Or(o.Queue, 1000), defaultWait: cmp.Or(o.Wait, 20*time.Second),
		quota: newQuota(o.Name, o.Reserve), buckets: map[bucketKey]*bucket{}, pools: map[poolKey]*pool{}, parts: map[string]float64{},
	}
	for _, r := range o.Rates {
		for _, c := range r.Classes {
			l.rates[c] = r
		}
	}
	l.metrics = newLimiterMetrics(l)
	for _, c := range Classes() {
		l.metrics.throttled.WithLabelValues(l.operation("", c)) // exports 0, so that the first throttled request shows as an increase
	}
	return l
}

// operation returns the name of an operation in metrics and messages. An empty host means the
// registry itself.
func (l *Limiter) operation(host string, class Class) string {
	if host != "" {
		return "storage"
	}
	if r, ok := l.rates[class]; ok {
		return r.Name
	}
	return string(class)
}

// permit is the permission to send one request. It occupies a slot until release is called.
type permit struct {
	l      *Limiter
	bucket *bucket
	began  time.Time
	once   sync.Once
	// pausing is set when the answer to the request has a status that makes a bucket pause.
	pausing bool
}

// acquire waits until a request may be sent. The error matches ErrBusy if the request would wait
// too long, if the queue is full, or if the request is background work and the quota is low.
// Any other error is the cause of ctx. host is empty for the registry itself. The caller passes the
// status of the answer to permit.answered, and calls release when it has read the body.
func (l *Limiter) acquire(ctx context.Context, repo Repo, host string, class Class) (*permit, error) {
	background := repo.inBackground()
	if background && host == "" && (class == ManifestGet || class == ManifestHead) && l.quota.low(time.Now()) {
		l.metrics.refusals.WithLabelValues(string(class)).Inc()
		return nil, oci.ErrTooManyRequests.With("the remaining pull quota of %s is reserved for client requests", l.name).Because(ErrBusy)
	}
	w := &turns.Waiter{Flow: repo.Name, Ready: make(chan error, 1), Background: background, Urgent: repo.raised()}
	maxWait, began := repo.waitLimit(l.defaultWait), time.Now()
	if deadline, ok := ctx.Deadline(); ok {
		maxWait = min(maxWait, time.Until(deadline))
	}
	bucket, err := l.join(w, host, class, maxWait)
	if err != nil {
		return nil, err
	}
	if err := l.await(ctx, bucket, w, maxWait); err != nil {
		return nil, err
	}
	now := time.Now()
	l.metrics.waits.WithLabelValues(bucket.name).Observe(now.Sub(began).Seconds())
	return &permit{l: l, bucket: bucket, began: now}, nil
}

// join puts a request into the queue of its bucket. If the queue is full, join drops another
// request to make room. A client's request replaces a request of background work, if one is queued.
// In all other cases, join looks only at requests of the same kind as w (of clients, or of
// background work), and finds the repository with the most requests of this kind. If the repository
// of w would still have fewer with w added, join drops the newest request of the repository that it
// found. The error matches ErrBusy if the request would wait too long, or finds no room.
func (l *Limiter) join(w *turns.Waiter, host string, class Class, maxWait time.Duration) (*bucket, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	bucket := l.bucket(host, class)
	if d := bucket.minWait(now, w.Flow, w.Background); d >= maxWait {
		return nil, l.busy(bucket, d)
	}
	if bucket.foreground.Size()+bucket.background.Size() >= l.maxQueued {
		var dropped *turns.Waiter
		if w.Background {
			dropped = bucket.background.RemoveNewest(bucket.background.Length(w.Flow) + 1)
		} else if dropped = bucket.background.RemoveNewest(0); dropped == nil {
			dropped = bucket.foreground.RemoveNewest(bucket.foreground.Length(w.Flow) + 1)
		}
		if dropped == nil {
			return nil, l.busy(bucket, 0)
		}
		dropped.Finish(l.busy(bucket, 0))
	}
	if w.Background {
		bucket.background.Push(w)
	} else {
		bucket.foreground.Push(w)
	}
	bucket.pool.pump(now, l.resume)
	if !w.Finished && bucket.ceiling < bucket.full && l.sharing.Short != nil {
		l.sharing.Short()
	}
	return bucket, nil
}

// resume sends the next requests when the timer of a bucket has fired.
func (l *Limiter) resume(bucket *bucket) {
	l.mu.Lock()
	defer l.mu.Unlock()
	bucket.pool.pump(time.Now(), l.resume)
}

// await returns nil when the request may be sent. Otherwise its error says why the request will not
// be sent.
func (l *Limiter) await(ctx context.Context, bucket *bucket, w *turns.Waiter, maxWait time.Duration) error {
	select {
	case err := <-w.Ready:
		return err
	default:
	}
	late := time.NewTimer(maxWait)
	defer late.Stop()
	urgent := w.Urgent
	for {
		select {
		case err := <-w.Ready:
			return err
		case <-urgent:
			urgent = nil
			l.promote(bucket, w)
		case <-late.C:
			return l.abandon(bucket, w, func() error { return l.busy(bucket, 0) })
		case <-ctx.Done():
			return l.abandon(bucket, w, func() error {
				if errors.Is(ctx.Err(), context.DeadlineExceeded) {
					return l.busy(bucket, 0)
				}
				return context.Cause(ctx)
			})
		}
	}
}

// promote moves a background request to the queue of clients' requests.
func (l *Limiter) promote(bucket *bucket, w *turns.Waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if w.Finished || !w.Background {
		return
	}
	bucket.background.Remove(w)
	w.Background = false
	bucket.foreground.Push(w)
	bucket.pool.pump(time.Now(), l.resume)
}

// abandon takes a request out of its queue. If the request got a slot at the same moment, abandon
// frees the slot.
func (l *Limiter) abandon(bucket *bucket, w *turns.Waiter, why func() error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if w.Finished {
		if err := <-w.Ready; err != nil {
			return err
		}
		bucket.pool.taken--
	} else {
		bucket.foreground.Remove(w)
		bucket.background.Remove(w)
		w.Finished = true
	}
	bucket.pool.pump(now, l.resume)
	return why()
}

// bucket finds or makes the bucket of a request; l.mu is held.
func (l *Limiter) bucket(host string, class Class) *bucket {
	name, full, ceiling := l.operation(host, class), 0.0, 0.0
	if host == "" {
		full, ceiling = l.partOf(class)
	}
	key := bucketKey{host, name}
	if x := l.buckets[key]; x != nil {
		return x
	}
	if len(l.pools) >= 3*maxHosts {
		l.dropIdle()
	}
	x := &bucket{name: name, full: full, ceiling: ceiling, allowed: full, pool: l.pool(host, class)}
	if ceiling > 0 {
		x.tokens = rate.NewLimiter(rate.Limit(ceiling), max(1, int(ceiling/2)))
	}
	l.buckets[key] = x
	x.pool.buckets = append(x.pool.buckets, x)
	return x
}

// partOf returns the ceiling of the registry for a class, and the part of the ceiling that this
// process may use. Both are 0 if no ceiling is known.
func (l *Limiter) partOf(class Class) (full, part float64) {
	r, ok := l.rates[class]
	if !ok {
		return 0, 0
	}
	if part, ok = l.parts[r.Name]; ok {
		return r.PerSecond, min(part, r.PerSecond)
	}
	return r.PerSecond, r.PerSecond
}

func (l *Limiter) pool(host string, class Class) *pool {
	key := poolKey{host: host}
	switch class {
	case BlobGet:
		key.kind = "receive"
	case UploadPart:
		key.kind = "send"
	}
	if l.pools[key] == nil {
		l.pools[key] = &pool{slots: l.slots}
	}
	return l.pools[key]
}

// dropIdle drops the buckets and pools of storage hosts without requests; l.mu is held.
func (l *Limiter) dropIdle() {
	for key, x := range l.buckets {
		if key.host != "" && x.pool.taken == 0 && x.foreground.Size()+x.background.Size() == 0 {
			delete(l.buckets, key)
			for p, of := range l.pools {
				if of == x.pool {
					delete(l.pools, p)
				}
			}
		}
	}
}

// busy returns the error for a request that cannot be sent in time. Its text ends with the text of
// the registry's last refusal, if the bucket has recorded one.
func (l *Limiter) busy(bucket *bucket, wait time.Duration) error {
	l.metrics.refusals.WithLabelValues(bucket.name).Inc()
	e := oci.ErrTooManyRequests.With("the upstream registry %s is rate-limited (%s); try again later", l.name, bucket.name)
	if bucket.lastError != "" {
		e = oci.ErrTooManyRequests.With("the upstream registry %s limits the rate of this mirror: %s", l.name, bucket.lastError)
	}
	e.RetryAfter = max(time.Second, wait.Round(time.Second))
	return e.Because(fmt.Errorf("%w: %s of %s", ErrBusy, bucket.name, l.name))
}

// [permit.answered] reports the status of the answer and its Retry-After (0 if there is none) to
// the bucket. A 429, 502, 503 or 504 makes the bucket pause. A 429, or a 503 with Retry-After, also
// slows the bucket down.
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
		if throttled && p.l.sharing.Throttled != nil && p.l.buckets[bucketKey{"", p.bucket.name}] == p.bucket {
			p.l.sharing.Throttled(p.bucket.name, p.bucket.pausedUntil.Sub(now))
		}
	default:
		p.bucket.accepted(p.began, now)
	}
	p.bucket.pool.pump(now, p.l.resume)
}

// recordError stores the text of a refusal for the errors that busy returns.
func (p *permit) recordError(message string) {
	p.l.mu.Lock()
	defer p.l.mu.Unlock()
	if p.pausing {
		p.bucket.lastError = message
	}
}

// release frees the slot. It may be called more than once.
func (p *permit) release() {
	p.once.Do(func() {
		p.l.mu.Lock()
		defer p.l.mu.Unlock()
		p.bucket.pool.taken--
		p.bucket.pool.pump(time.Now(), p.l.resume)
	})
}

// limiterMetrics are the metrics of a Limiter. The values of the label operation come from a fixed
// list.
type limiterMetrics struct {
	waits     *prometheus.HistogramVec
	refusals  *prometheus.CounterVec
	throttled *prometheus.CounterVec
	waiting   prometheus.GaugeFunc
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
			Help: "Answers with status 429, or 503 and Retry-After, by operation. Requests of this operation then pause, and continue at a lower rate.",
		}, []string{"operation"}),
		waiting: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "dray_upstream_waiting", ConstLabels: labels, Help: "Requests that are waiting to be sent to the upstream.",
		}, func() float64 { return float64(l.waiting()) }),
	}
}

func (l *Limiter) waiting() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, x := range l.buckets {
		n += x.foreground.Size() + x.background.Size()
	}
	return n
}

// Collectors returns the metrics of the queues and of the registry's quota.
func (l *Limiter) Collectors() []prometheus.Collector {
	return []prometheus.Collector{l.metrics.waits, l.metrics.refusals, l.metrics.throttled, l.metrics.waiting, l.quota}
}
