package ledger

import (
	dto "github.com/prometheus/client_model/go"

	"dray/cache"
	"dray/mirror/history"
	"dray/mirror/savings"
)

// series identifies a counter, or one of the two values of a summary: the number of its samples or
// their sum. Labels that a metric does not have are empty.
type series struct {
	name, upstream, kind, source, zone, operation, result string
	number                                                bool // the number of samples, not their sum
}

// counted stores the value that each series had at the last count.
type counted struct{ history.Meter[series] }

// addTo adds to u the growth of each series since the last count.
func (c counted) addTo(u *savings.Usage, families []*dto.MetricFamily) {
	for _, f := range families {
		for _, m := range f.GetMetric() {
			switch s := seriesOf(f.GetName(), m); s.name {
			case "dray_response_bytes_total", "dray_upstream_received_bytes_total", "dray_fleet_received_bytes_total", "dray_bucket_requests_total":
				s.addTo(u, c.Grown(s, m.GetCounter().GetValue()))
			case "dray_layer_response_seconds":
				s.addTo(u, c.Grown(s, m.GetSummary().GetSampleSum()))
				s.number = true
				s.addTo(u, c.Grown(s, float64(m.GetSummary().GetSampleCount())))
			}
		}
	}
}

func seriesOf(name string, m *dto.Metric) series {
	s := series{name: name}
	for _, l := range m.GetLabel() {
		for label, to := range map[string]*string{
			"upstream": &s.upstream, "kind": &s.kind, "source": &s.source, "zone": &s.zone, "operation": &s.operation, "result": &s.result,
		} {
			if l.GetName() == label {
				*to = l.GetValue()
			}
		}
	}
	return s
}

// addTo adds n, by which the series has grown, to u.
func (s series) addTo(u *savings.Usage, n float64) {
	if n == 0 {
		return
	}
	switch s.name {
	case "dray_fleet_received_bytes_total":
		if s.zone == "other" {
			u.OtherZoneBytes += n
		}
	case "dray_bucket_requests_total":
		switch s.operation {
		case "get", "head":
			u.BucketReads += n
		case "put", "create", "part", "complete": // S3 does not bill abort
			u.BucketWrites += n
		}
	default:
		t := u.Upstreams[s.upstream]
		s.addTraffic(&t, n)
		u.Upstreams[s.upstream] = t
	}
}

func (s series) addTraffic(t *savings.Traffic, n float64) {
	if s.name == "dray_upstream_received_bytes_total" {
		t.Fetched += n
		return
	}
	var layers *savings.Answers
	switch {
	case s.name == "dray_response_bytes_total" && s.kind != "blob":
	case s.source == string(cache.SourceMemory), s.source == string(cache.SourceDisk):
		layers = &t.Held
	case s.source == string(cache.SourceOrigin):
		layers = &t.Origin
	}
	switch {
	case s.name == "dray_response_bytes_total":
		t.Sent += n
		if layers != nil {
			layers.Bytes += n
		}
	case layers == nil:
	case s.number:
		layers.Number += n
	default:
		layers.Seconds += n
	}
}
