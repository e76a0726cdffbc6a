package push

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"dray/cache"
	"dray/cache/meta"
	"dray/mirror/flight"
	"dray/mirror/gate"
	"dray/mirror/jobs"
	"dray/mirror/pull"
	"dray/mirror/queue"
	"dray/mirror/repository"
	"dray/upstream"
)

// Options configure a Pusher.
type Options struct {
	Repositories *repository.Store
	Cache        *cache.Cache
	// Queue stores the pushes to upstreams that acknowledge locally. It is an empty queue if there are
	// no such upstreams.
	Queue  *queue.Queue
	Checks *gate.Checks
	Tasks  *flight.Tasks
	// Manifests fetches the manifests that an index names and that dray does not hold, so that the
	// checks can read them. It also records which upstreams do not answer.
	Manifests *pull.Puller
	Verdicts  *jobs.Verdicts
	BaseIndex *jobs.BaseIndex
	Quotas    *Quotas
	// Shares reports whether the members of a fleet share a repository, so that one member at a time
	// works on all pushes to it.
	Shares func(repository.Repo) bool
	// Confirm returns an error if another member has taken over the pushes to a repository.
	Confirm func(context.Context, repository.Repo) error
	// Overtaken compares base and current, an earlier and a later state of the facts about a tag. It
	// returns an error if another member has changed the tag between them. It returns nil if members
	// do not share the repository.
	Overtaken func(r repository.Repo, tag string, base, current meta.Question) error
	// UploadExpiry is the time after which an upload without progress is dropped.
	UploadExpiry time.Duration
	Logger       *slog.Logger
}

// New returns a Pusher, which takes over the uploads and staged blobs that a former process left in
// the cache. It starts no goroutine.
func New(o Options) *Pusher {
	p := &Pusher{
		publisher: &publisher{
			sender: &sender{
				o: o, mounts: newMounts(),
				mounted: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dray_mounts_total",
					Help: "Attempts to mount a blob at an upstream from another of its repositories, by upstream and result: mounted, refused or failed."}, []string{"upstream", "result"}),
			},
			pushes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dray_pushes_total",
				Help: "Manifests that clients pushed, by upstream and result."}, []string{"upstream", "result"}),
		},
		bodies:   newBodies(),
		sessions: newSessions(o.UploadExpiry, o.Quotas),
		pushing:  flight.NewGroup[gate.Key, upstream.Pushed](flight.Options{Tasks: o.Tasks, Timeout: forwardTimeout, Detached: true}),
	}
	p.Count()
	p.recover(time.Now())
	return p
}

// Count creates the counters of pushes to the present upstreams, with the value 0. It keeps the
// counters that exist. Callers call Count again after they have replaced the upstreams.
func (p *Pusher) Count() {
	for name, up := range p.o.Repositories.Upstreams() {
		if up.Sink == nil {
			continue
		}
		for _, result := range []string{"forwarded", "queued", "rejected", "refused", "failed"} {
			p.pushes.WithLabelValues(name, result) // alerts look for an increase from 0
		}
	}
}
