package history

import (
	dto "github.com/prometheus/client_model/go"

	"dray/mirror/admin/api"
)

// Meter has the last seen values of counters. A key of the map identifies a counter.
type Meter[K comparable] map[K]float64

// Grown returns by how much a counter has grown, and stores its new value. A counter whose new
// value is less than the old one has restarted at 0, and has grown by the new value.
func (m Meter[K]) Grown(key K, value float64) float64 {
	n := m.grown(key, value)
	m[key] = value
	return n
}

// grown is like Grown, but does not store the value.
func (m Meter[K]) grown(key K, value float64) float64 {
	if before := m[key]; value >= before {
		return value - before
	}
	return value
}

// counter identifies a counter by its name and some of its labels. A missing label is "".
type counter struct{ name, upstream, listener, kind, method, status, source string }

func counterOf(name string, m *dto.Metric) counter {
	c := counter{name: name}
	for _, l := range m.GetLabel() {
		switch l.GetName() {
		case "upstream":
			c.upstream = l.GetValue()
		case "listener":
			c.listener = l.GetValue()
		case "kind":
			c.kind = l.GetValue()
		case "method":
			c.method = l.GetValue()
		case "status":
			c.status = l.GetValue()
		case "source":
			c.source = l.GetValue()
		}
	}
	return c
}

// The columns of a sample. The columns from requests to lastCounter, and those from firstSource on,
// have the growth of counters. The columns between these two groups have the values of gauges.
const (
	milliseconds = iota // the time that the sample covers
	requests
	hits
	misses
	fetched
	uploaded
	lastCounter = uploaded
)

// Gauges.
const (
	stored = lastCounter + 1 + iota
	fetches
	pulls
	pushes
	firstSource
)

// sources are the words of the header X-Cache, and then "other", for bytes of any other source.
var sources = [...]string{"cache", "memory", "disk", "updating", "stale", "flight", "origin", "member", "bucket", "direct", "other"}

// width is the number of columns.
const width = firstSource + len(sources)

// columns has the names of the columns. A file of the history begins with these names.
var columns = func() (names [width]string) {
	copy(names[:], []string{"milliseconds", "requests", "hits", "misses", "fetched", "uploaded", "stored", "fetches", "pulls", "pushes"})
	for i, s := range sources {
		names[firstSource+i] = "sent " + s
	}
	return names
}()

// values are the values of the columns of one sample.
type values [width]int64

// add adds the metrics of a family to the values. growth returns by how much a counter has grown.
func (v *values) add(f *dto.MetricFamily, growth func(counter, float64) float64) {
	count := func(m *dto.Metric) (counter, int64) {
		c := counterOf(f.GetName(), m)
		return c, int64(growth(c, m.GetCounter().GetValue()))
	}
	for _, m := range f.GetMetric() {
		switch f.GetName() {
		case "dray_requests_total":
			if c, n := count(m); c.method == "GET" && (c.kind == "manifest" || c.kind == "blob") {
				v[requests] += n
			}
		case "dray_cache_opens_total":
			if c, n := count(m); c.source == "memory" || c.source == "disk" {
				v[hits] += n
			} else {
				v[misses] += n
			}
		case "dray_response_bytes_total":
			c, n := count(m)
			v[columnOf(c.source)] += n
		case "dray_upstream_received_bytes_total":
			_, n := count(m)
			v[fetched] += n
		case "dray_cache_received_bytes_total":
			_, n := count(m)
			v[uploaded] += n
		case "dray_disk_bytes":
			v[stored] = int64(m.GetGauge().GetValue())
		case "dray_cache_flights":
			v[fetches] = int64(m.GetGauge().GetValue())
		case "dray_live_pulls":
			v[pulls] = int64(m.GetGauge().GetValue())
		case "dray_live_pushes":
			v[pushes] = int64(m.GetGauge().GetValue())
		}
	}
}

// columnOf returns the column of the bytes from a source.
func columnOf(source string) int {
	for i, s := range sources {
		if s == source {
			return firstSource + i
		}
	}
	return width - 1
}

// join adds a later sample to the values. It adds counters, uses the stored bytes of the later
// sample, and uses the larger number of fetches, pulls and pushes.
func (v *values) join(later values) {
	for i := range v {
		switch {
		case i <= lastCounter || i >= firstSource:
			v[i] += later[i]
		case i == stored:
			v[i] = later[i]
		default:
			v[i] = max(v[i], later[i])
		}
	}
}

// [values.into] copies the values to a point of a series.
func (v *values) into(p *api.HistoryPoint) {
	p.Seconds = float64(v[milliseconds]) / 1000
	p.Requests, p.Hits, p.Misses = v[requests], v[hits], v[misses]
	p.Fetched, p.Uploaded, p.Stored = v[fetched], v[uploaded], v[stored]
	p.Fetches, p.Pulls, p.Pushes = v[fetches], v[pulls], v[pushes]
	p.Sent = map[string]int64{}
	for i, s := range sources {
		if n := v[firstSource+i]; n > 0 {
			p.Sent[s] = n
		}
	}
}
