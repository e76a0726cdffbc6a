// Package stats sums the counts of the metrics for operators, and calculates the savings of dray.
package stats

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"dray/cache"
	"dray/mirror/admin/api"
)

// Gathered returns the result of the function Of for the current values of metrics.
func Gathered(metrics prometheus.Gatherer) (api.Stats, error) {
	families, err := metrics.Gather()
	return Of(families), err
}

// Of adds up the counters that `dray stats` shows.
func Of(families []*dto.MetricFamily) api.Stats {
	s := api.Stats{Fetched: map[string]int64{}, Opens: map[string]int64{}, Upstreams: map[string]map[string]int64{}}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			n, label := int64(m.GetCounter().GetValue()), Labels(m)
			switch f.GetName() {
			case "dray_response_bytes_total":
				up := s.Upstreams[label["upstream"]]
				if up == nil {
					up = map[string]int64{}
					s.Upstreams[label["upstream"]] = up
				}
				up[label["source"]] += n
				s.SentBytes += n
			case "process_start_time_seconds":
				s.Started = time.Unix(int64(m.GetGauge().GetValue()), 0).UTC()
			case "dray_upstream_received_bytes_total":
				s.Fetched[label["upstream"]] += n
				s.FetchedBytes += n
			case "dray_cache_received_bytes_total":
				s.ReceivedBytes += n
			case "dray_cache_opens_total":
				s.Opens[label["source"]] += n
			case "dray_requests_total":
				if get := label["method"] == "GET"; get && (label["kind"] == "manifest" || label["kind"] == "blob") {
					s.Requests += n
				}
			}
		}
	}
	s.SavedBytes = s.SentBytes - s.FetchedBytes
	if s.SentBytes > 0 {
		s.SavedRatio = float64(s.SavedBytes) / float64(s.SentBytes)
	}
	var readers int64
	for _, n := range s.Opens {
		readers += n
	}
	if readers > 0 {
		s.HitRatio = float64(s.Opens[string(cache.SourceMemory)]+s.Opens[string(cache.SourceDisk)]) / float64(readers)
	}
	return s
}

// Sources sums the bytes that came from each source, and the bytes that went to other members.
func Sources(families []*dto.MetricFamily) (b api.FleetBytes) {
	for _, f := range families {
		for _, m := range f.GetMetric() {
			n := int64(m.GetCounter().GetValue())
			switch f.GetName() {
			case "dray_upstream_received_bytes_total":
				b.Upstreams += n
			case "dray_bucket_read_bytes_total":
				b.Bucket += n
			case "dray_fleet_received_bytes_total":
				if Labels(m)["zone"] == "same" {
					b.SameZone += n
				} else {
					b.OtherZones += n
				}
			case "dray_fleet_sent_bytes_total":
				b.Sent += n
			}
		}
	}
	return b
}

// Labels returns the labels of a metric.
func Labels(m *dto.Metric) map[string]string {
	out := map[string]string{}
	for _, l := range m.GetLabel() {
		out[l.GetName()] = l.GetValue()
	}
	return out
}
