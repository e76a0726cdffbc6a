package fleet

import (
	"github.com/prometheus/client_golang/prometheus"
)

// The reasons for the refusal of a request, as they appear in metrics.
const (
	refusedProtocol = "protocol"
	refusedMissing  = "missing"
	refusedFull     = "full"
	refusedOther    = "other"
)

// The reasons for a fetch without other members, as they appear in metrics.
const (
	aloneStore    = "store"
	aloneDigest   = "digest"
	aloneUncached = "uncached"
	aloneLeases   = "leases"
	aloneBusy     = "busy"
	aloneLate     = "late"
	aloneProtocol = "protocol"
	aloneRefused  = "unconfirmed"
	aloneBroken   = "broken"
)

type metrics struct {
	fetches, alone, received *prometheus.CounterVec
	sent, takeovers, bans    prometheus.Counter
	questions                prometheus.Counter
	refused                  *prometheus.CounterVec
	gauges                   []prometheus.Collector
}

// newMetrics returns the metrics. The functions return how many members are alive, how many leases
// this member has, and how many streams it sends.
func newMetrics(members, leases, streams func() int) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	vector := func(name, label, help string, from0 ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
		for _, value := range from0 { // so that alerts see the first event as an increase
			v.WithLabelValues(value)
		}
		return v
	}
	gauge := func(name, help string, value func() int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(value()) })
	}
	return &metrics{
		fetches: vector("dray_fleet_fetches_total", "by", "Decisions where to get a blob: holder (from the registry, with the lease), follower (from another member), bucket (from the bucket, because another member has the whole blob and may have written it there), alone (from the registry, without the lease).", "holder", "follower", "bucket", "alone"),
		alone: vector("dray_fleet_alone_total", "reason", "Fetches without other members, by reason: store (the store of leases did not answer), digest (earlier bytes of the blob were wrong), uncached (other members could not read the blob from this one), leases (this member has too many), busy (the holder has too many followers), late (the holder had no byte for 3 s), protocol (the holder speaks another version), unconfirmed (the registry did not confirm the blob by HEAD), broken (streams of other members broke too often).",
			aloneStore, aloneDigest, aloneUncached, aloneLeases, aloneBusy, aloneLate, aloneProtocol, aloneRefused, aloneBroken),
		received:  vector("dray_fleet_received_bytes_total", "zone", "Bytes of blobs received from other members, by zone: same or other.", "same", "other"),
		sent:      counter("dray_fleet_sent_bytes_total", "Bytes of blobs sent to other members."),
		questions: counter("dray_fleet_questions_total", "Requests that ask other members which parts of a blob they hold."),
		takeovers: counter("dray_fleet_takeovers_total", "Leases taken over from members that had failed."),
		bans:      counter("dray_fleet_bans_total", "Members that this one banned for ten minutes. Each had sent all bytes of a blob, and the bytes were wrong."),
		refused:   vector("dray_fleet_refused_total", "reason", "Requests of other members that this one refused, by reason: protocol (the versions of the members are too far apart), missing (this member no longer has the blob), full (this member sends the blob to enough members, which can send it on), other (the request was for a member that had this address before).", refusedProtocol, refusedMissing, refusedFull, refusedOther),
		gauges: []prometheus.Collector{
			gauge("dray_fleet_members", "Members that were alive at the last check, including this one.", members),
			gauge("dray_fleet_leases", "Leases that this member holds, for blobs that it is fetching or has fetched within the last ten minutes.", leases),
			gauge("dray_fleet_followers", "Streams over which other members read blobs from this one.", streams),
		},
	}
}

func (m *metrics) collectors() []prometheus.Collector {
	return append([]prometheus.Collector{m.fetches, m.alone, m.received, m.sent, m.questions, m.takeovers, m.bans, m.refused}, m.gauges...)
}
