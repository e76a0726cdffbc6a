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
// and docker-ratelimit-source, the address or account whose pulls Docker Hub counts
// (docs.docker.com, "Docker Hub pull usage and limits"). quota is also a prometheus.Collector. It
// has no metrics before the registry sends these headers, nor after their window has passed.
type quota struct {
	reserve int // per cent of the limit

	limits, remains, windows, sources *prometheus.Desc

	mu     sync.Mutex
	stated statement // the last statement to this process
	learnt statement // the last statement to another process
}

// statement is the registry's answer about the quota at one time.
type statement struct {
	limit, remaining int
	window           time.Duration
	from             string // the address or account
	at               time.Time
}

// [statement.past] reports whether the window of a statement has passed. For the zero statement, it
// returns true.
func (s statement) past(now time.Time) bool {
	return s.at.IsZero() || s.window > 0 && now.Sub(s.at) >= s.window
}

// newest returns the newest statement about the address or account of this process. Before the
// first statement to this process, the address is unknown, and any statement counts. q.mu is held.
func (q *quota) newest() statement {
	if q.learnt.at.After(q.stated.at) && (q.stated.at.IsZero() || q.stated.from == q.learnt.from) {
		return q.learnt
	}
	return q.stated
}

func newQuota(name string, reserve int) *quota {
	desc := func(metric, help string, also ...string) *prometheus.Desc {
		return prometheus.NewDesc("dray_upstream_quota_"+metric, help, also, prometheus.Labels{"upstream": name})
	}
	return &quota{
		reserve: reserve,
		limits:  desc("limit", "Pulls that the upstream allows in its window."),
		remains: desc("remaining", "Pulls that remained when the upstream last answered. The metric is missing after the window has passed."),
		windows: desc("window_seconds", "Length of the window in which the upstream counts pulls."),
		sources: desc("source", "Always 1. The label source is the address or the account whose pulls the upstream counts.", "source"),
	}
}

func (q *quota) observe(h http.Header, at time.Time) {
	limit, window, ok := quotaValue(h.Get("Ratelimit-Limit"))
	remaining, other, ok2 := quotaValue(h.Get("Ratelimit-Remaining"))
	if !ok || !ok2 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	from := q.stated.from
	if s := h.Get("Docker-Ratelimit-Source"); len(s) <= 100 {
		from = strings.ToValidUTF8(s, "")
	}
	q.stated = statement{limit, remaining, max(window, other), from, at}
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

// low reports whether so few pulls remain that background work must leave them to clients. Headers
// older than their window do not count.
func (q *quota) low(now time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.newest()
	if s.past(now) {
		return false
	}
	return s.remaining*100 < s.limit*q.reserve
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
	s := q.newest()
	q.mu.Unlock()
	if s.past(time.Now()) {
		return
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(q.limits, float64(s.limit))
	gauge(q.remains, float64(s.remaining))
	gauge(q.windows, s.window.Seconds())
	if s.from != "" {
		gauge(q.sources, 1, s.from)
	}
}
