package mirror

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"dray/cache"
	"dray/cache/meta"
	"dray/mirror/flight"
	"dray/mirror/gate"
	"dray/mirror/jobs"
	"dray/mirror/notify"
	"dray/mirror/pipeline"
	"dray/mirror/pull"
	"dray/mirror/push"
	"dray/mirror/queue"
	"dray/mirror/repository"
	"dray/upstream/oci"
)

// Options are what a Mirror is made of.
type Options struct {
	Cache      *cache.Cache
	Tags       *meta.Tags
	Visibility *meta.Visibility
	Presence   *meta.Presence
	// LastPulls is needed where images are kept alive.
	LastPulls *meta.LastPulls
	// BaseImages, when not nil, learn the layers of the images that clients pull and push.
	BaseImages *meta.BaseImages
	Upstreams  []*repository.Upstream
	// Gates are what pushes have to pass, by the name of their upstream. The first one with a
	// pattern for a repository counts; without one, a push is forwarded as it is.
	Gates map[string][]*gate.Gate
	// Prefetch says what is fetched before clients ask for it, by the name of the upstream.
	Prefetch map[string]pull.Prefetch
	// KeepAlive is the least time between two requests for an image that are sent only
	// because clients pull it here, so that the upstream does not take it for unused, by the
	// name of the upstream. 0: there are none.
	KeepAlive map[string]time.Duration
	// Queue takes the pushes to upstreams that acknowledge locally, and calls Forward for them; nil
	// where there are none.
	Queue *queue.Queue
	// OnPull, when not nil, is called once for each manifest that a client got by GET.
	OnPull func(r repository.Repo, reference string)
	// OnEvent, when not nil, is called with what was pushed, judged and deleted. It must not wait.
	OnEvent func(notify.Event)
	// Logger gets one line a request, and what background work reports; nil discards.
	Logger *slog.Logger
	// UploadExpiry ends an upload without progress, and is how long a blob that no
	// manifest followed is kept for its push; 0 means 1 hour.
	UploadExpiry time.Duration
	// MaxUploadsPerClient bounds open uploads; 0 is no bound.
	MaxUploadsPerClient int
	// MaxUploadBytesPerClient bounds the bytes of open uploads and of blobs whose manifest has not
	// been forwarded; 0 is no bound.
	MaxUploadBytesPerClient int64
	// ClientStall disconnects a client that neither sends nor takes a byte for so long;
	// 0 means 2 minutes.
	ClientStall time.Duration
	// AnswerWithin bounds what a client that gives no limit of its own waits for the
	// answer to a manifest that it pushes; 0 means 10 minutes. Clients built on
	// containerd wait 30 s and are answered within 25.
	AnswerWithin time.Duration
}

// Mirror is what all listeners share: the rooms in which requests are worked on.
type Mirror struct {
	repos     *repository.Store
	checks    *gate.Checks
	keepAlive *jobs.KeepAlive
	verdicts  *jobs.Verdicts
	baseIndex *jobs.BaseIndex
	pull      *pull.Puller
	push      *push.Pusher
	tasks     *flight.Tasks
	log       *slog.Logger
	expiry    time.Duration
	stall     time.Duration
	metrics   *metrics
	handlers  map[oci.Kind]map[string]handler
}

// judgeWithin bounds the work on one verdict, which goes on when the client has been answered.
const judgeWithin = time.Hour

// New puts a Mirror together, with the uploads that a former process left in the cache. It starts
// nothing.
func New(o Options) (*Mirror, error) {
	m := &Mirror{
		tasks: flight.NewTasks(), log: cmp.Or(o.Logger, slog.New(slog.DiscardHandler)), expiry: cmp.Or(o.UploadExpiry, time.Hour),
		stall: cmp.Or(o.ClientStall, 2*time.Minute), metrics: newMetrics(),
	}
	quotas := push.NewQuotas(o.MaxUploadsPerClient, o.MaxUploadBytesPerClient)
	o.Queue = cmp.Or(o.Queue, queue.Empty())
	var err error
	m.repos, err = repository.NewStore(repository.Options{
		Upstreams: o.Upstreams, Cache: o.Cache, Tags: o.Tags, Visibility: o.Visibility, Presence: o.Presence, Queue: o.Queue,
		Staged: repository.NewStaging(m.expiry, quotas.Refund), Tasks: m.tasks, Logger: m.log,
	})
	if err != nil {
		return nil, err
	}
	m.checks = gate.New(gate.Options{Gates: o.Gates, Tasks: m.tasks, Logger: m.log, OnEvent: o.OnEvent, Bound: judgeWithin})
	m.keepAlive = jobs.NewKeepAlive(jobs.KeepAliveOptions{Repositories: m.repos, LastPulls: o.LastPulls, Every: o.KeepAlive, Logger: m.log})
	m.verdicts = jobs.NewVerdicts(m.log)
	m.baseIndex = jobs.NewBaseIndex(m.repos, o.Cache, o.BaseImages)
	m.pull = pull.New(pull.Options{
		Repositories: m.repos, Cache: o.Cache, Tags: o.Tags, Tasks: m.tasks, KeepAlive: m.keepAlive, BaseIndex: m.baseIndex,
		Prefetch: o.Prefetch, OnPull: o.OnPull, Logger: m.log,
	})
	m.push = push.New(push.Options{
		Repositories: m.repos, Cache: o.Cache, Queue: o.Queue, Checks: m.checks, Tasks: m.tasks, Manifests: m.pull, Verdicts: m.verdicts, BaseIndex: m.baseIndex,
		Quotas: quotas, UploadExpiry: m.expiry, AnswerWithin: o.AnswerWithin, Logger: m.log,
	})
	m.handlers = m.table()
	return m, nil
}

// Run goes on with what a former process received, and drops uploads that nobody continues until
// ctx ends; then it ends everything that the Mirror does in the background and waits for it.
// Uploads are left to the next process.
func (m *Mirror) Run(ctx context.Context) error {
	for _, job := range []func(context.Context){m.push.Recover, m.keepAlive.Run, m.verdicts.Run, m.baseIndex.Run} {
		m.tasks.Start(job)
	}
	tick := time.NewTicker(m.expiry / 10)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			m.push.Suspend()
			m.tasks.Stop()
			m.repos.Staged().SuspendAll()
			return nil
		case now := <-tick.C:
			m.push.Expire(now)
			m.repos.Expire(now)
		}
	}
}

// Reports lists the newest verdicts on pushes, newest first. They must not be changed.
func (m *Mirror) Reports() []*pipeline.Report { return m.checks.Reports() }

// Forward brings a push of the queue to its upstream. It is a [queue.Forward].
func (m *Mirror) Forward(ctx context.Context, e queue.Entry) error { return m.push.Forward(ctx, e) }

// Collectors returns the metrics of the front door and of its rooms.
func (m *Mirror) Collectors() []prometheus.Collector {
	all := m.metrics.collectors()
	for _, room := range []interface{ Collectors() []prometheus.Collector }{m.repos, m.keepAlive, m.verdicts, m.baseIndex, m.pull, m.push} {
		all = append(all, room.Collectors()...)
	}
	return all
}
