package writer

import "github.com/prometheus/client_golang/prometheus"

// The results of passing a request on, as they appear in metrics.
const (
	passedAnswered = "answered"
	passedRepeated = "repeated"
	passedFailed   = "failed"
)

type metrics struct {
	passed   *prometheus.CounterVec
	received prometheus.Counter
	taken    prometheus.Counter
	fenced   prometheus.Counter
	held     prometheus.Collector
}

func newMetrics(w *Writers) *metrics {
	m := &metrics{
		passed: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dray_fleet_passed_requests_total",
			Help: "Requests that this member passed to the member that works on their repository, by result: answered, repeated (sent again to the same or another member, before a byte of the body was read), failed (the client got a 503)."}, []string{"result"}),
		received: prometheus.NewCounter(prometheus.CounterOpts{Name: "dray_fleet_worked_requests_total", Help: "Requests that other members passed to this one, and that it worked on."}),
		taken:    prometheus.NewCounter(prometheus.CounterOpts{Name: "dray_fleet_writer_takeovers_total", Help: "Repositories whose pushes this member took over from a member that did not answer."}),
		fenced:   prometheus.NewCounter(prometheus.CounterOpts{Name: "dray_fleet_fenced_pushes_total", Help: "Manifests that this member did not publish, because another member had changed their tag or taken over their repository."}),
		held: prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "dray_fleet_repositories", Help: "Repositories whose pushes this member works on."}, func() float64 {
			w.mu.Lock()
			defer w.mu.Unlock()
			return float64(len(w.held))
		}),
	}
	for _, result := range []string{passedAnswered, passedRepeated, passedFailed} { // so that alerts see the first event as an increase
		m.passed.WithLabelValues(result)
	}
	return m
}

func (m *metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.passed, m.received, m.taken, m.fenced, m.held}
}
