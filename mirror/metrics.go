package mirror

import (
	"net/http"
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"dray/upstream/oci"
)

// metrics are the metrics about requests of clients. No label value is a text that a client chose,
// so the number of values is bounded. The names of listeners and upstreams come from the
// configuration, and the kinds from the protocol.
type metrics struct {
	requests *prometheus.CounterVec
	bytes    *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	layers   *prometheus.SummaryVec

	mu    sync.RWMutex // guards ready
	ready map[labels]*series
}

// labels are the label values of a request.
type labels struct {
	listener, upstream, kind, method, source string
	status                                   int
}

// series are the metrics that count the requests with certain labels.
type series struct {
	requests prometheus.Counter
	seconds  prometheus.Observer
	bytes    prometheus.Counter  // nil for answers without content
	layer    prometheus.Observer // nil for answers without a blob
}

// [metrics.of] returns the series of a request, and stores it in ready for the next request with
// the same labels.
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
		s.bytes = x.bytes.WithLabelValues(l.upstream, l.kind, l.source)
	}
	if l.source != "" && l.kind == string(oci.KindBlob) && l.method == http.MethodGet {
		s.layer = x.layers.WithLabelValues(l.upstream, l.source)
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
			Help: "Requests from clients, by listener, upstream, kind, method and status."}, []string{"listener", "upstream", "kind", "method", "status"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dray_response_bytes_total",
			Help: "Bytes of manifests, blobs and lists that dray sent to clients, by upstream, kind of request and source."}, []string{"upstream", "kind", "source"}),
		layers: prometheus.NewSummaryVec(prometheus.SummaryOpts{Name: "dray_layer_response_seconds",
			Help: "Time from a client's request for a blob to the end of the answer, by upstream and source. Answers without a byte are not counted."}, []string{"upstream", "source"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "dray_request_seconds",
			Help: "Time from a client's request to the end of the answer, by kind of request.", Buckets: []float64{.001, .005, .025, .1, .5, 2, 10, 30, 120, 600}}, []string{"kind"}),
	}
}

func (x *metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{x.requests, x.bytes, x.seconds, x.layers}
}
