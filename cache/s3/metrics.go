package s3

import "github.com/prometheus/client_golang/prometheus"

// The values of the labels: operations and results of requests, and reasons why a blob is not
// written.
const (
	opGet      = "get"
	opHead     = "head"
	opPut      = "put"
	opCreate   = "create"
	opPart     = "part"
	opComplete = "complete"
	opAbort    = "abort"

	resultOK     = "ok"
	resultAbsent = "absent"
	resultExists = "exists"
	resultFailed = "failed"

	droppedFull    = "full"
	droppedFailed  = "failed"
	droppedEvicted = "evicted"
	droppedRotten  = "corrupt"
)

type metrics struct {
	requests, dropped    *prometheus.CounterVec
	read, written, wrong prometheus.Counter
	gauges               []prometheus.Collector
}

func newMetrics(b *Bucket) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	open := func(k *breaker) func() float64 {
		return func() float64 {
			if k.open() {
				return 1
			}
			return 0
		}
	}
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dray_bucket_requests_total",
			Help: "Requests to the bucket, by operation (get, head, put, create, part, complete, abort) and result: ok, absent (no such object), exists (another mirror has written the object), failed."}, []string{"operation", "result"}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dray_bucket_dropped_total",
			Help: "Blobs that dray did not write to the bucket, by reason: full (the queue was full), failed (three attempts failed), evicted (the disk cache evicted the blob first), corrupt (the bytes on disk were wrong)."}, []string{"reason"}),
		read:    counter("dray_bucket_read_bytes_total", "Bytes read from the bucket."),
		written: counter("dray_bucket_written_bytes_total", "Bytes written to the bucket."),
		wrong:   counter("dray_bucket_wrong_total", "Blobs that had a wrong digest or size in the bucket. dray fetches them from their upstreams, and replaces the objects."),
		gauges: []prometheus.Collector{
			gauge("dray_bucket_queue", "Blobs that wait to be written to the bucket, or are being written.", func() float64 { return float64(b.queue.length()) }),
			gauge("dray_bucket_read_breaker_open", "1 while dray does not read from the bucket because the bucket failed; otherwise 0.", open(b.reads)),
			gauge("dray_bucket_write_breaker_open", "1 while dray does not write to the bucket because the bucket failed; otherwise 0.", open(b.writes)),
		},
	}
	for _, reason := range []string{droppedFull, droppedFailed, droppedEvicted, droppedRotten} {
		m.dropped.WithLabelValues(reason) // so that alerts see the first event as an increase
	}
	for _, op := range []string{opGet, opHead, opPut, opCreate, opPart, opComplete, opAbort} {
		m.requests.WithLabelValues(op, resultFailed)
	}
	return m
}

func (m *metrics) collectors() []prometheus.Collector {
	return append([]prometheus.Collector{m.requests, m.dropped, m.read, m.written, m.wrong}, m.gauges...)
}
