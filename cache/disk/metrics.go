package disk

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of one directory.
type metrics struct {
	evicted, evictedBytes prometheus.Counter
	corrupt, verified     prometheus.Counter
	scrubbed, rot         prometheus.Counter
	refused               *prometheus.CounterVec
	gauges                []prometheus.Collector
	passed                atomic.Int64 // end of the last full scrub, in Unix seconds; 0: none
}

func newMetrics(a *account) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	gauge := func(name, help string, value func() int64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
			a.mu.RLock()
			defer a.mu.RUnlock()
			return float64(value())
		})
	}
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "dray_disk_refused_total", Help: "Reservations refused, by reason: full or too large.",
	}, []string{"reason"})
	for _, reason := range []string{"full", "too large"} {
		refused.WithLabelValues(reason)
	}
	m := &metrics{
		refused:      refused,
		evicted:      counter("dray_disk_evicted_total", "Blobs removed from the disk cache to make room."),
		evictedBytes: counter("dray_disk_evicted_bytes_total", "Bytes of blobs removed from the disk cache to make room."),
		corrupt:      counter("dray_disk_corrupt_total", "Blobs dropped from the disk cache because their bytes were wrong."),
		verified:     counter("dray_disk_verified_total", "Blobs of an unclean stop that were found to be sound."),
		scrubbed:     counter("dray_disk_scrubbed_bytes_total", "Bytes of blobs that were read again to verify them."),
		rot:          counter("dray_disk_rot_total", "Blobs moved out of the disk cache because they were no longer what they were when they came."),
	}
	m.gauges = []prometheus.Collector{
		gauge("dray_disk_bytes", "Bytes of blobs in the disk cache, in blocks.", func() int64 { return a.used }),
		gauge("dray_disk_max_bytes", "Quota of the disk cache; 0 when only the free-space floor bounds it.", func() int64 { return a.maxBytes }),
		gauge("dray_disk_reserved_bytes", "Bytes promised to blobs being written.", func() int64 { return a.reserved }),
		gauge("dray_disk_blobs", "Blobs in the disk cache.", func() int64 { return int64(a.index.len()) }),
		gauge("dray_disk_small_bytes", "Bytes of blobs below 1 MiB in the disk cache.", func() int64 { return a.policy.small.bytes() }),
		gauge("dray_disk_pinned_bytes", "Bytes of blobs in the disk cache that operators have pinned, in blocks.", a.pinnedBytes),
		gauge("dray_disk_quarantine_bytes", "Bytes of corrupt blobs kept aside, in blocks.", func() int64 { return a.quarantined }),
		gauge("dray_disk_scrub_pass_timestamp_seconds", "When every blob had last been verified again; 0 before the first time.", m.passed.Load),
		gauge("dray_disk_unsynced_blobs", "Blobs waiting to be synced.", func() int64 { return int64(len(a.dirty)) }),
		gauge("dray_disk_unverified_blobs", "Blobs of an unclean stop waiting to be verified.", func() int64 { return int64(len(a.suspects)) }),
	}
	return m
}

// collectors returns all of them.
func (m *metrics) collectors() []prometheus.Collector {
	return append([]prometheus.Collector{m.evicted, m.evictedBytes, m.corrupt, m.verified, m.scrubbed, m.rot, m.refused}, m.gauges...)
}
