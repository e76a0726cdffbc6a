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
		fetches: vector("dray_fleet_fetches_total", "by", "Decisions of fetches of blobs about who asks the registry: holder (this member, with the lease), follower (another member, from which this one read), bucket (nobody, because another member has the whole blob, and so the bucket may), alone (this member, without a lease).", "holder", "follower", "bucket", "alone"),
		alone: vector("dray_fleet_alone_total", "reason", "Fetches without other members, by reason: store (the store of leases did not answer), digest (earlier bytes were wrong), uncached (the blob cannot be kept here), leases (too many), busy (too many followers), late (the holder had no byte for 3 s), protocol (another version), unconfirmed (the registry did not confirm the blob by HEAD), broken (streams of other members broke too often).",
			aloneStore, aloneDigest, aloneUncached, aloneLeases, aloneBusy, aloneLate, aloneProtocol, aloneRefused, aloneBroken),
		received:  vector("dray_fleet_received_bytes_total", "zone", "Bytes of blobs received from other members, by zone: same or other.", "same", "other"),
		sent:      counter("dray_fleet_sent_bytes_total", "Bytes of blobs sent to other members."),
		questions: counter("dray_fleet_questions_total", "Questions to other members what they hold of a blob, before the registry is asked for it."),
		takeovers: counter("dray_fleet_takeovers_total", "Leases taken over from members that had failed."),
		bans:      counter("dray_fleet_bans_total", "Members that were banned for ten minutes, because bytes that came from them alone were wrong."),
		refused:   vector("dray_fleet_refused_total", "reason", "Requests of other members that were refused, by reason: protocol (its version is too far from this one), missing (the blob is not here any more), full (other members give it), other (it was for a member that was at this address before).", refusedProtocol, refusedMissing, refusedFull, refusedOther),
		gauges: []prometheus.Collector{
			gauge("dray_fleet_members", "Members that were alive when this one last looked, itself among them.", members),
			gauge("dray_fleet_leases", "Leases that this member holds: of blobs that it fetches, or fetched within ten minutes.", leases),
			gauge("dray_fleet_followers", "Streams by which other members read blobs from this one.", streams),
		},
	}
}

func (m *metrics) collectors() []prometheus.Collector {
	return append([]prometheus.Collector{m.fetches, m.alone, m.received, m.sent, m.questions, m.takeovers, m.bans, m.refused}, m.gauges...)
}
