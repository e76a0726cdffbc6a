package push

import (
	"io"
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
	unjudged  []unjudged
	// pushing has the flights of pushed manifests. A flight checks and forwards a manifest once for
	// all clients that push it at the same time.
	pushing *flight.Group[gate.Key, upstream.Pushed]
	// tagLocks makes pushes of one tag go on one after another when they have passed their gate.
	// Pushes without a gate do not use it.
	tagLocks flight.Mutex[tagKey]
}

// recovered is a blob that a former process has staged. Nothing records whether the upstream has
// it.
type recovered struct {
	key  repository.Key
	blob *repository.Staged
}

// unjudged is a manifest that waited in a former process (see waitAgain). It has to pass the checks
// of this process before dray forwards it, or lets it wait for its index.
type unjudged struct {
	gatedPush
	kept io.Closer
}

type tagKey struct {
	// repo is the field Repo of a repository.Key. It stays the same when the upstream is replaced.
	repo repository.Repo
	tag  string
}

func tagKeyOf(r repository.Repo, tag string) tagKey { return tagKey{r.Key("").Repo, tag} }

// Expire drops the uploads that no client continues. While a request is using an upload, the staged
// blobs of the same push do not expire.
func (p *Pusher) Expire(now time.Time) {
	for _, s := range p.sessions.expire(now) {
		p.o.Repositories.Staged().Progress(s.repo, s.owner, now)
	}
}

// Unfinished calls visit for each repository in which a push is not finished here: the repository
// has an open upload, a staged blob, a waiting manifest or a queued push. Unfinished may call visit
// more than once for one repository.
func (p *Pusher) Unfinished(visit func(repository.Repo)) {
	for _, s := range p.sessions.all() {
		visit(s.repo)
	}
	p.o.Repositories.Staged().Repositories(visit)
	p.o.Repositories.Waiting().Repositories(visit)
	p.o.Queue.Repositories(func(name, repo string) {
		if up := p.o.Repositories.Upstream(name); up != nil {
			visit(p.o.Repositories.Repo(up, repo))
		}
	})
}

// Suspend waits for the requests that use open uploads, and leaves the uploads to the next process.
func (p *Pusher) Suspend() { p.sessions.suspendAll() }

// Collectors returns the metrics of pushes.
func (p *Pusher) Collectors() []prometheus.Collector {
	return []prometheus.Collector{p.pushes, p.mounted,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "dray_uploads_open", Help: "Upload sessions that clients have opened and not ended."},
			func() float64 { return float64(p.sessions.count()) }),
	}
}
