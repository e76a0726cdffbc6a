package push

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"dray/mirror/flight"
	"dray/mirror/gate"
	"dray/mirror/repository"
	"dray/upstream"
)

// Pusher handles the requests that write.
type Pusher struct {
	*publisher
	sessions  *sessions
	recovered []recovered
	// pushing has the manifests that are being checked and forwarded.
	pushing *flight.Group[gate.Key, upstream.Pushed]
	// names has one checked push of a tag at a time.
	names  flight.Mutex[tagKey]
	within time.Duration
}

// recovered is a blob of a former process that is yet to be sent on.
type recovered struct {
	key  repository.Key
	blob *repository.Staged
}

// tagKey names a tag of a repository.
type tagKey struct {
	repo repository.Repo
	tag  string
}

// Expire drops the uploads that nobody continues.
func (p *Pusher) Expire(now time.Time) { p.sessions.expire(now) }

// Suspend leaves the open uploads to the next process, waiting for requests in progress.
func (p *Pusher) Suspend() { p.sessions.suspendAll() }

// Collectors returns the metrics of pushes.
func (p *Pusher) Collectors() []prometheus.Collector {
	return []prometheus.Collector{p.pushes, p.mounted,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "dray_uploads_open", Help: "Upload sessions that clients have opened and not ended."},
			func() float64 { return float64(p.sessions.count()) }),
	}
}
