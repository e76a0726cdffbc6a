package upstream

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// quota is the number of remaining pulls, as the registry states it. Docker Hub sends
// ratelimit-limit and ratelimit-remaining as "100;w=21600" (a number, and the window in seconds),
// and docker-ratelimit-source, the address or account whose pulls it counts (docs.docker.com,
// "Docker Hub pull usage and limits"). quota is a prometheus.Collector, without metrics until the
// registry has sent these headers.
type quota struct {
	reserve int // per cent

	limits, remains, windows, sources *prometheus.Desc

	mu         sync.Mutex
	limit      int
	remaining  int
	window     time.Duration
	source     string
	observedAt time.Time
}

func newQuota(name string, reserve int) *quota {
	desc := func(metric, help string, also ...string) *prometheus.Desc {
		return prometheus.NewDesc("dray_upstream_quota_"+metric, help, also, prometheus.Labels{"upstream": name})
	}
	return &quota{
		reserve: reserve,
		limits:  desc("limit", "Pulls that the upstream allows in its window."),
		remains: desc("remaining", "Pulls that remained when the upstream last answered."),
		windows: desc("window_seconds", "Length of the window in which the upstream counts pulls."),
		sources: desc("source", "Always 1. The label source is the address or the account whose pulls the upstream counts.", "source"),
	}
}

func (q *quota) observe(h http.Header, now time.Time) {
	limit, window, ok := quotaValue(h.Get("Ratelimit-Limit"))
	remaining, other, ok2 := quotaValue(h.Get("Ratelimit-Remaining"))
	if !ok || !ok2 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.limit, q.remaining, q.window, q.observedAt = limit, remaining, max(window, other), now
	if s := h.Get("Docker-Ratelimit-Source"); len(s) <= 100 {
		q.source = strings.ToValidUTF8(s, "")
	}
}

// quotaValue parses a value such as "100;w=21600". window is 0 if it is missing. ok is false if the
// number is missing or malformed.
func quotaValue(v string) (n int, window time.Duration, ok bool) {
	first, rest, _ := strings.Cut(v, ";")
	n, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil || n < 0 {
		return 0, 0, false
	}
	for p := range strings.SplitSeq(rest, ";") {
		if s, ok := strings.CutPrefix(strings.TrimSpace(p), "w="); ok {
			if seconds, err := strconv.ParseInt(s, 10, 32); err == nil && seconds > 0 {
				window = time.Duration(seconds) * time.Second
			}
		}
	}
	return n, window, true
}

// low reports whether the remaining pulls are reserved for clients. Headers older than their window
// do not count.
func (q *quota) low(now time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.observedAt.IsZero() || q.window > 0 && now.Sub(q.observedAt) >= q.window {
		return false
	}
	return q.remaining*100 < q.limit*q.reserve
}

// Describe implements prometheus.Collector.
func (q *quota) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{q.limits, q.remains, q.windows, q.sources} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (q *quota) Collect(to chan<- prometheus.Metric) {
	q.mu.Lock()
	limit, remaining, window, source, observedAt := q.limit, q.remaining, q.window, q.source, q.observedAt
	q.mu.Unlock()
	if observedAt.IsZero() {
		return
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(q.limits, float64(limit))
	gauge(q.remains, float64(remaining))
	gauge(q.windows, window.Seconds())
	if source != "" {
		gauge(q.sources, 1, source)
	}
}
