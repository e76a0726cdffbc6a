package cache

import "github.com/prometheus/client_golang/prometheus"

// metrics of one cache.
type metrics struct {
	opens, degraded, corrupt *prometheus.CounterVec
	abandoned                *prometheus.CounterVec
	requests, resumes        prometheus.Counter
	refusedParts             prometheus.Counter
	fetched, received        prometheus.Counter
	uploads                  prometheus.Gauge
	gauges                   []prometheus.Collector
}

// newMetrics returns counters of zero, and gauges of the fetches under way and of the bytes in
// memory.
func newMetrics(fetches func() int, inMemory func() int64) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	vector := func(name, label, help string, from0 ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
		for _, value := range from0 { // so that the first one is an increase, which alerts look for
			v.WithLabelValues(value)
		}
		return v
	}
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	return &metrics{
		opens: vector("dray_cache_opens_total", "source", "Readers opened, by where their bytes come from: memory, disk, origin (their fetch), flight (a fetch that was under way for another), direct (uncached)."),
		degraded: vector("dray_cache_degraded_total", "reason", "Failures of the cache that pulls survived by passing through, by what failed.",
			"full", "too large", "create", "write", "commit", "hash", reasonRead),
		corrupt:      vector("dray_cache_corrupt_total", "from", "Bytes refused because digest or length were wrong, by who gave them.", "origin", "direct", "upload"),
		abandoned:    vector("dray_cache_abandoned_total", "outcome", "Fetches whose readers had all left when they ended, by what became of them: finished or stopped.", "finished", "stopped"),
		requests:     counter("dray_cache_origin_requests_total", "Requests made to origins, resumed ones included."),
		resumes:      counter("dray_cache_resumes_total", "Fetches continued after their origin broke."),
		refusedParts: counter("dray_cache_refused_parts_total", "Parts of large blobs that origins refused, or broke off for good; fewer streams were used from then on."),
		fetched:      counter("dray_cache_fetched_bytes_total", "Bytes that flights got from origins."),
		received:     counter("dray_cache_received_bytes_total", "Bytes that clients uploaded."),
		uploads:      prometheus.NewGauge(prometheus.GaugeOpts{Name: "dray_cache_uploads", Help: "Uploads open."}),
		gauges: []prometheus.Collector{
			gauge("dray_cache_flights", "Fetches under way.", func() float64 { return float64(fetches()) }),
			gauge("dray_cache_memory_bytes", "Bytes of objects held in memory.", func() float64 { return float64(inMemory()) }),
		},
	}
}

// collectors returns all of them.
func (m *metrics) collectors() []prometheus.Collector {
	return append([]prometheus.Collector{
		m.opens, m.degraded, m.corrupt, m.abandoned, m.requests, m.resumes, m.refusedParts, m.fetched, m.received, m.uploads,
	}, m.gauges...)
}
