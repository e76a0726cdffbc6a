package cache

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	opens, degraded, corrupt *prometheus.CounterVec
	abandoned                *prometheus.CounterVec
	requests, resumes        prometheus.Counter
	refusedParts             prometheus.Counter
	received                 prometheus.Counter
	uploads                  prometheus.Gauge
	gauges                   []prometheus.Collector
}

// newMetrics returns counters at zero, and gauges of the fetches under way and of the bytes in
// memory.
func newMetrics(fetches func() int, inMemory func() int64) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	vector := func(name, label, help string, from0 ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
		for _, value := range from0 { // so that alerts see the first event as an increase
			v.WithLabelValues(value)
		}
		return v
	}
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	return &metrics{
		opens: vector("dray_cache_opens_total", "source", "Readers opened, by the source of their bytes: memory, disk, origin (a fetch that the reader started), flight (a fetch that another reader had started), direct (a fetch that is not cached)."),
		degraded: vector("dray_cache_degraded_total", "reason", "Failures of the cache after which dray passed the content through from the upstream, by reason.",
			"full", "too large", "create", "write", "commit", "hash", "open", "evicted", "closed", reasonRead),
		corrupt:      vector("dray_cache_corrupt_total", "from", "Contents refused because their digest or length was wrong, by source: origin (a fetch), direct (a fetch that was not cached), upload (a client).", "origin", "direct", "upload"),
		abandoned:    vector("dray_cache_abandoned_total", "outcome", "Fetches that all readers left before the end, by outcome: finished or stopped.", "finished", "stopped"),
		requests:     counter("dray_cache_origin_requests_total", "Requests to origins, including those that resume a fetch."),
		resumes:      counter("dray_cache_resumes_total", "Attempts to resume a fetch after its origin had failed or stopped early."),
		refusedParts: counter("dray_cache_refused_parts_total", "Parts of large blobs that origins refused to send, or stopped sending and could not resume. dray uses fewer streams for the rest of such a blob."),
		received:     counter("dray_cache_received_bytes_total", "Bytes that clients uploaded."),
		uploads:      prometheus.NewGauge(prometheus.GaugeOpts{Name: "dray_cache_uploads", Help: "Uploads in progress."}),
		gauges: []prometheus.Collector{
			gauge("dray_cache_flights", "Fetches in progress.", func() float64 { return float64(fetches()) }),
			gauge("dray_cache_memory_bytes", "Bytes of objects in the in-memory cache.", func() float64 { return float64(inMemory()) }),
		},
	}
}

func (m *metrics) collectors() []prometheus.Collector {
	return append([]prometheus.Collector{
		m.opens, m.degraded, m.corrupt, m.abandoned, m.requests, m.resumes, m.refusedParts, m.received, m.uploads,
	}, m.gauges...)
}
