package disk

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	evicted, evictedBytes prometheus.Counter
	corrupt, verified     prometheus.Counter
	scrubbed, rot         prometheus.Counter
	refused               *prometheus.CounterVec
	gauges                []prometheus.Collector
	passed                atomic.Int64 // end of the last full scrub in Unix seconds; 0 if there was none
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
		Name: "dray_disk_refused_total", Help: "Blobs that the disk cache refused to store, by reason: full or too large.",
	}, []string{"reason"})
	for _, reason := range []string{"full", "too large"} {
		refused.WithLabelValues(reason)
	}
	m := &metrics{
		refused:      refused,
		evicted:      counter("dray_disk_evicted_total", "Blobs removed from the disk cache to make room."),
		evictedBytes: counter("dray_disk_evicted_bytes_total", "Bytes of blobs removed from the disk cache to make room."),
		corrupt:      counter("dray_disk_corrupt_total", "Blobs that dray removed from the disk cache because their bytes were wrong or could not be read."),
		verified:     counter("dray_disk_verified_total", "Blobs that dray verified after an unclean stop and found intact."),
		scrubbed:     counter("dray_disk_scrubbed_bytes_total", "Bytes of blobs that dray read again to verify them."),
		rot:          counter("dray_disk_rot_total", "Blobs that dray moved to quarantine because their bytes on disk had changed."),
	}
	m.gauges = []prometheus.Collector{
		gauge("dray_disk_bytes", "Bytes of the blobs in the disk cache, counted in blocks of the file system.", func() int64 { return a.used }),
		gauge("dray_disk_max_bytes", "Quota of the disk cache in bytes; 0 if it has no quota and is bounded only by the free space of its disk.", func() int64 { return a.maxBytes }),
		gauge("dray_disk_reserved_bytes", "Bytes reserved for blobs that dray is writing.", func() int64 { return a.reserved }),
		gauge("dray_disk_blobs", "Blobs in the disk cache.", func() int64 { return int64(a.index.len()) }),
		gauge("dray_disk_small_bytes", "Bytes of the blobs below 1 MiB in the disk cache.", func() int64 { return a.policy.small.bytes() }),
		gauge("dray_disk_pinned_bytes", "Bytes of the blobs on disk that dray does not evict, because of a pin or an unfinished push, counted in blocks of the file system.", a.pinnedBytes),
		gauge("dray_disk_quarantine_bytes", "Bytes of the corrupt blobs in quarantine, counted in blocks of the file system.", func() int64 { return a.quarantined }),
		gauge("dray_disk_scrub_pass_timestamp_seconds", "Unix time at which dray last finished a pass that verifies every blob on disk; 0 before the first pass ends.", m.passed.Load),
		gauge("dray_disk_unsynced_blobs", "Blobs that are not yet synced to stable storage.", func() int64 { return int64(len(a.dirty)) }),
		gauge("dray_disk_unverified_blobs", "Blobs that dray has not yet verified after an unclean stop.", func() int64 { return int64(len(a.suspects)) }),
	}
	return m
}

func (m *metrics) collectors() []prometheus.Collector {
	return append([]prometheus.Collector{m.evicted, m.evictedBytes, m.corrupt, m.verified, m.scrubbed, m.rot, m.refused}, m.gauges...)
}
