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
	bodies    *bodies
	sessions  *sessions
	recovered []recovered
	// pushing runs the checks and the forwarding of a manifest once for all clients that push it.
	pushing *flight.Group[gate.Key, upstream.Pushed]
	// tagLocks serialises the checked pushes of a tag.
	tagLocks flight.Mutex[tagKey]
}

// recovered is a blob of a former process that has yet to be sent to the upstream.
type recovered struct {
	key  repository.Key
	blob *repository.Staged
}

type tagKey struct {
	repo repository.Repo
	tag  string
}

// Expire drops the uploads that no client continues. The uploads that go on keep the staged blobs
// of their push from expiring.
func (p *Pusher) Expire(now time.Time) {
	for _, s := range p.sessions.expire(now) {
		p.o.Repositories.Staged().Progress(s.repo, s.owner, now)
	}
}

// Suspend keeps the open uploads for the next process. It waits for requests in progress.
func (p *Pusher) Suspend() { p.sessions.suspendAll() }

// Collectors returns the metrics of pushes.
func (p *Pusher) Collectors() []prometheus.Collector {
	return []prometheus.Collector{p.pushes, p.mounted,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "dray_uploads_open", Help: "Upload sessions that clients have opened and not ended."},
			func() float64 { return float64(p.sessions.count()) }),
	}
}
