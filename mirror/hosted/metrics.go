package hosted

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	dropped *prometheus.CounterVec
	gauges  []prometheus.Collector
}

func newMetrics(name string, c *contents) *metrics {
	labels := prometheus.Labels{"upstream": name}
	gauge := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, f)
	}
	return &metrics{
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dray_hosted_dropped_total", ConstLabels: labels,
			Help: "Tags and manifests that dray removed from a hosted registry, by reason: unused, surplus (more than the rule retains), untagged, quota.",
		}, []string{"reason"}),
		gauges: []prometheus.Collector{
			gauge("dray_hosted_bytes", "Bytes that a hosted registry uses; each blob counts once.", func() float64 { return float64(c.bytes()) }),
			gauge("dray_hosted_quota_bytes", "Quota of a hosted registry in bytes; 0 if there is none.", func() float64 { return float64(c.maxBytes) }),
			gauge("dray_hosted_tags", "Tags in a hosted registry.", func() float64 {
				n := 0
				for _, r := range c.all() {
					n += len(c.stateOf(r).tags)
				}
				return float64(n)
			}),
		},
	}
}
