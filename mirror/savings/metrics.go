package savings

import (
	"github.com/prometheus/client_golang/prometheus"

	"dray/mirror/admin/api"
)

// Collector returns the metrics of savings. It calls the function bill each time Prometheus reads
// the metrics.
func Collector(bill func() api.Savings) prometheus.Collector {
	return &collector{
		bill: bill,
		avoided: prometheus.NewDesc("dray_savings_avoided_dollars",
			"Price of the bytes that an upstream did not have to send in the last 30 days, in US dollars.", []string{"upstream"}, nil),
		cost: prometheus.NewDesc("dray_savings_cost_dollars",
			"Costs of dray in the last 30 days, in US dollars, by kind of cost.", []string{"cost"}, nil),
		net: prometheus.NewDesc("dray_savings_net_dollars",
			"Savings of the last 30 days less the costs of dray, in US dollars. It is negative if dray cost more than it saved.", nil, nil),
		seconds: prometheus.NewDesc("dray_savings_transfer_seconds",
			"Time that clients saved in the last 30 days: the time in which the upstream would have sent the cached layers at its rate, less the time in which dray sent them. It is missing below 20 samples.", []string{"upstream"}, nil),
	}
}

type collector struct {
	bill                        func() api.Savings
	avoided, cost, net, seconds *prometheus.Desc
}

// Describe implements [prometheus.Collector].
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	to <- c.avoided
	to <- c.cost
	to <- c.net
	to <- c.seconds
}

// Collect implements [prometheus.Collector].
func (c *collector) Collect(to chan<- prometheus.Metric) {
	s := c.bill()
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	for _, up := range s.Upstreams {
		gauge(c.avoided, up.AvoidedUSD, up.Upstream)
		if up.SavedSeconds != nil {
			gauge(c.seconds, *up.SavedSeconds, up.Upstream)
		}
	}
	for _, cost := range s.Costs {
		gauge(c.cost, cost.USD, cost.Name)
	}
	gauge(c.net, s.NetUSD)
}
