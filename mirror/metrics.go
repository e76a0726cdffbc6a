package mirror

import (
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the front door's own. Labels are bounded: upstreams and kinds come
// from the configuration and the protocol, never from a client.
type metrics struct {
	requests *prometheus.CounterVec
	bytes    *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	stale    *prometheus.CounterVec
	// touches are requests that keep images from being taken for unused.
	touches *prometheus.CounterVec
	// refreshes are questions about tags that no client waited for.
	refreshes *prometheus.CounterVec
	pushes    *prometheus.CounterVec
	meta      prometheus.Counter
	// mounts are attempts to have the upstream take a blob from another of its repositories.
	mounts *prometheus.CounterVec
	// prefetched are fetches begun for what no client had asked for yet.
	prefetched *prometheus.CounterVec
	// bases are images whose layers were learnt.
	bases *prometheus.CounterVec
	// attached are verdicts put beside their images.
	attached *prometheus.CounterVec

	mu    sync.RWMutex // guards ready
	ready map[labels]*series
}

// labels tell requests apart.
type labels struct {
	listener, upstream, kind, method, source string
	status                                   int
}

// series are the counters of requests that are alike.
type series struct {
	requests prometheus.Counter
	seconds  prometheus.Observer
	bytes    prometheus.Counter // nil for answers without content
}

// of finds the series of a request. There are no more than the metrics have anyway.
func (x *metrics) of(l labels) *series {
	x.mu.RLock()
	s := x.ready[l]
	x.mu.RUnlock()
	if s != nil {
		return s
	}
	s = &series{
		requests: x.requests.WithLabelValues(l.listener, l.upstream, l.kind, l.method, strconv.Itoa(l.status)),
		seconds:  x.seconds.WithLabelValues(l.kind),
	}
	if l.source != "" {
		s.bytes = x.bytes.WithLabelValues(l.upstream, l.source)
	}
	x.mu.Lock()
	x.ready[l] = s
	x.mu.Unlock()
	return s
}

func newMetrics() *metrics {
	return &metrics{
		ready: map[labels]*series{},
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dray_requests_total",
			Help: "Requests of clients, by listener, upstream, kind, method and status."}, []string{"listener", "upstream", "kind", "method", "status"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dray_response_bytes_total",
			Help: "Bytes of manifests and blobs sent to clients, by upstream and by where they came from."}, []string{"upstream", "source"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "dray_request_seconds",
			Help: "Time from the request to the end of the answer.", Buckets: []float64{.001, .005, .025, .1, .5, 2, 10, 30, 120, 600}}, []string{"kind"}),
		stale: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dray_stale_answers_total",
			Help: "Tags answered from an old fact because the upstream failed."}, []string{"upstream"}),
		touches: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dray_keep_alive_touches_total",
			Help: "Manifests asked for only because clients pull them here, by upstream and result (touched, absent, failed)."}, []string{"upstream", "result"}),
		refreshes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dray_tag_refreshes_total",
			Help: "Tags asked for in the background while the old answer was served, by upstream and result."}, []string{"upstream", "result"}),
		pushes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dray_pushes_total",
			Help: "Manifests pushed, by upstream and result."}, []string{"upstream", "result"}),
		prefetched: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dray_prefetched_blobs_total",
			Help: "Blobs whose fetch was begun when a client had asked for their manifest, and not yet for them."}, []string{"upstream"}),
		bases: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dray_base_images_learnt_total",
			Help: "Images whose layers were learnt from a pull or a push, so that others are known to be built on them, by upstream."}, []string{"upstream"}),
		attached: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dray_verdicts_attached_total",
			Help: "Verdicts to be attached to images that landed, by upstream and result (attached, there, failed, dropped)."}, []string{"upstream", "result"}),
		mounts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dray_mounts_total",
			Help: "Attempts to have an upstream take a blob from another of its repositories, by upstream and result (mounted, refused, failed)."}, []string{"upstream", "result"}),
		meta: prometheus.NewCounter(prometheus.CounterOpts{Name: "dray_facts_lost_total",
			Help: "Facts that could not be recorded; each costs a question to an upstream later."}),
	}
}

// from0 has what alerts look at stand at 0 before it happens to an upstream: the first one is then an increase.
func (x *metrics) from0(up *Upstream) {
	x.stale.WithLabelValues(up.Name)
	if up.Sink != nil {
		for _, result := range []string{"landed", "queued", "rejected", "refused", "failed"} {
			x.pushes.WithLabelValues(up.Name, result)
		}
	}
}

func (x *metrics) collectors(m *Mirror) []prometheus.Collector {
	return []prometheus.Collector{x.requests, x.bytes, x.seconds, x.stale, x.refreshes, x.touches, x.pushes, x.mounts, x.meta, x.prefetched, x.bases, x.attached,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "dray_uploads_open", Help: "Upload sessions that clients have open."},
			func() float64 { return float64(m.uploads.count()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "dray_keep_alive_images", Help: "Images that clients have pulled since they were last asked for upstream."},
			func() float64 { return float64(m.toucher.waiting()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "dray_push_blobs_pinned", Help: "Blobs held for pushes whose manifest has not landed yet."},
			func() float64 { return float64(m.pins.count()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "dray_push_manifests_waiting", Help: "Manifests pushed by digest that passed their checks and wait for one that refers to them."},
			func() float64 { return float64(m.backlog.count()) }),
	}
}
