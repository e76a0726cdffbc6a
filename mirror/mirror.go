package mirror

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"dray/cache"
	"dray/cache/fleet"
	"dray/cache/meta"
	"dray/mirror/explain"
	"dray/mirror/flight"
	"dray/mirror/gate"
	"dray/mirror/jobs"
	"dray/mirror/live"
	"dray/mirror/notify"
	"dray/mirror/past"
	"dray/mirror/pipeline"
	"dray/mirror/pull"
	"dray/mirror/push"
	"dray/mirror/queue"
	"dray/mirror/repository"
	"dray/mirror/warming"
	"dray/mirror/writer"
	"dray/upstream/oci"
)

// Options configure a Mirror.
type Options struct {
	Cache *cache.Cache
	// Fleet lets the mirrors of a fleet fetch blobs together. It is nil without a fleet.
	Fleet      *fleet.Fleet
	Tags       *meta.Tags
	Visibility *meta.Visibility
	Presence   *meta.Presence
	// Transit is for mirrors that share a store of facts. It says which blobs these mirrors have
	// received from clients and have not forwarded yet. It is nil if no other mirror uses the store.
	Transit *meta.Transit
	// LastPulls is required if KeepAlive is set.
	LastPulls *meta.LastPulls
	// BaseImages, when not nil, records the layers of the images that clients pull and push.
	BaseImages *meta.BaseImages
	Replaceable
	// Queue stores the pushes that dray acknowledges locally, and calls [Mirror.Forward] for each. It
	// may be nil if no upstream has AcknowledgeLocally set.
	Queue *queue.Queue
	Joint
	Observers
	// Logger gets the messages of background work, and a log line for some requests (see [Listener]);
	// nil discards them.
	Logger *slog.Logger
	// UploadExpiry is how long dray keeps an upload that makes no progress, and a pushed blob that no
	// manifest names. 0 means 1 hour.
	UploadExpiry time.Duration
	// MaxUploadsPerClient bounds the open uploads of one client; 0 means no bound.
	MaxUploadsPerClient int
	// MaxUploadBytesPerClient bounds the bytes of one client's open uploads and staged blobs; 0 means
	// no bound. Blobs that are also in the queue do not count.
	MaxUploadBytesPerClient int64
	// Tracer, when not nil, makes a span for each request.
	Tracer trace.Tracer
	// ClientStall is the time after which dray disconnects a client that neither sends nor receives a
	// byte. A client that gets a file must receive each MiB of it within this time. 0 means 2 minutes.
	ClientStall time.Duration
}

// Observers receive the requests and events of clients. Each may be nil.
type Observers struct {
	// OnPull is called each time that a client has received a manifest by GET.
	OnPull func(r repository.Repo, reference string)
	// OnEvent is called for each push, verdict and deletion. It must not block.
	OnEvent func(notify.Event)
	// Live tracks the pulls and pushes under way.
	Live *live.Table
	// Past records the requests that failed or needed more than the cache.
	Past *past.Past
}

// Joint are the options for a fleet, in which several mirrors can receive requests of the same
// push.
type Joint struct {
	// Differs, when not nil, returns the other members of a fleet that have a different registry, or
	// different rights, for the upstream with the given name. If there is such a member, dray refuses
	// pushes to the upstream.
	Differs func(upstream string) []string
	// Writers, when not nil, are the options of package mirror/writer for a fleet. New sets their
	// function Unfinished.
	Writers *writer.Options
}

// Replaceable are the options that [Mirror.Replace] replaces.
type Replaceable struct {
	Upstreams []*repository.Upstream
	// Gates are the checks of pushes, by the name of their upstream. The first gate with a pattern
	// that matches the repository applies. If none matches, a push is forwarded unchecked.
	Gates map[string][]*gate.Gate
	// Prefetch has the settings for fetching blobs before clients request them, by the name of the
	// upstream.
	Prefetch map[string]pull.Prefetch
	// KeepAlive is the least time between two keep-alive requests for an image, by the name of the
	// upstream. Such a request shows the upstream that the image is in use, although clients pull it
	// from dray. 0 means that dray sends no such requests.
	KeepAlive map[string]time.Duration
}

// Mirror is everything that the listeners share: the rooms that handle requests.
type Mirror struct {
	cache     *cache.Cache
	repos     *repository.Store
	checks    *gate.Checks
	differs   func(upstream string) []string
	keepAlive *jobs.KeepAlive
	verdicts  *jobs.Verdicts
	baseIndex *jobs.BaseIndex
	observers Observers
	pull      *pull.Puller
	warm      *warming.Warmer
	push      *push.Pusher
	writers   *writer.Writers // nil without a fleet
	tasks     *flight.Tasks
	log       *slog.Logger
	expiry    time.Duration
	stall     time.Duration
	metrics   *metrics
	tracer    trace.Tracer // nil: requests are not traced
	handlers  map[oci.Kind]map[string]handler
	pushes    pushHealth
}

// judgeWithin bounds the time of the checks for one verdict. The checks need a bound because they
// can continue after dray has answered the client.
const judgeWithin = time.Hour

// New returns a Mirror with the uploads that an earlier process left in the cache. It starts no
// goroutine.
func New(o Options) (*Mirror, error) {
	m := &Mirror{
		cache: o.Cache, differs: o.Differs, tasks: flight.NewTasks(), log: cmp.Or(o.Logger, slog.New(slog.DiscardHandler)), expiry: cmp.Or(o.UploadExpiry, time.Hour),
		stall: cmp.Or(o.ClientStall, 2*time.Minute), observers: o.Observers, metrics: newMetrics(), tracer: o.Tracer, pushes: pushHealth{steps: map[pushStep]*failures{}},
	}
	quotas := push.NewQuotas(o.MaxUploadsPerClient, o.MaxUploadBytesPerClient)
	o.Queue = cmp.Or(o.Queue, queue.Empty())
	var err error
	m.repos, err = repository.NewStore(repository.Options{
		Upstreams: o.Upstreams, Cache: o.Cache, Fleet: o.Fleet, Tags: o.Tags, Visibility: o.Visibility, Presence: o.Presence, Transit: o.Transit, Queue: o.Queue,
		Staged: repository.NewStaging(m.expiry, quotas.Refund), Tasks: m.tasks, Logger: m.log, OneWriter: o.Writers != nil,
	})
	if err != nil {
		return nil, err
	}
	m.checks = gate.New(gate.Options{Gates: o.Gates, Tasks: m.tasks, Logger: m.log, OnEvent: o.OnEvent, Bound: judgeWithin})
	m.keepAlive = jobs.NewKeepAlive(jobs.KeepAliveOptions{Repositories: m.repos, LastPulls: o.LastPulls, Every: o.KeepAlive, Logger: m.log})
	m.verdicts = jobs.NewVerdicts(m.log)
	m.baseIndex = jobs.NewBaseIndex(m.repos, o.Cache, o.BaseImages)
	m.pull = pull.New(pull.Options{
		Repositories: m.repos, Cache: o.Cache, Tags: o.Tags, Tasks: m.tasks, Fleet: o.Fleet, KeepAlive: m.keepAlive, BaseIndex: m.baseIndex,
		Prefetch: o.Prefetch, OnPull: o.OnPull, Logger: m.log,
	})
	m.warm = warming.New(m.repos, m.pull, o.Cache)
	if o.Writers != nil {
		shared := *o.Writers
		shared.Unfinished = func(see func(repository.Repo)) { m.push.Unfinished(see) }
		m.writers = writer.New(shared)
	}
	m.push = push.New(push.Options{
		Repositories: m.repos, Cache: o.Cache, Queue: o.Queue, Checks: m.checks, Tasks: m.tasks, Manifests: m.pull, Verdicts: m.verdicts, BaseIndex: m.baseIndex,
		Quotas: quotas, Shares: m.writers.Shares, Confirm: m.writers.Confirm, UploadExpiry: m.expiry, Logger: m.log,
		Overtaken: func(r repository.Repo, tag string, since, now meta.Question) error {
			if !o.Tags.Overtaken(since, now) {
				return nil
			}
			return writer.Overtaken(m.writers, r, tag)
		},
	})
	m.handlers = m.table()
	return m, nil
}

// Replace replaces upstreams and their settings while the Mirror works. Requests under way continue
// with the former upstreams. A push whose next request comes after Replace can continue if a new
// upstream has the name of the former one. If Replace returns an error, nothing has changed.
// Replace must not be called concurrently.
func (m *Mirror) Replace(o Replaceable) error {
	if err := m.repos.Replace(o.Upstreams); err != nil {
		return err
	}
	m.checks.Replace(o.Gates)
	m.pull.Replace(o.Prefetch)
	m.push.Count()
	m.keepAlive.Replace(o.KeepAlive)
	return nil
}

// Run does the background work until ctx ends: it takes up the pushes that an earlier process left,
// runs the jobs, and drops expired uploads, staged blobs and waiting manifests. When ctx ends, Run
// stops all background work of the Mirror, waits for it, and returns nil. The next process can
// continue the open uploads.
func (m *Mirror) Run(ctx context.Context) error {
	for _, job := range []func(context.Context){m.push.Recover, m.keepAlive.Run, m.verdicts.Run, m.baseIndex.Run, m.writers.Run} {
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

// Reports lists the newest reports on checked pushes, newest first. The caller must not change
// them.
func (m *Mirror) Reports() []*pipeline.Report { return m.checks.Reports() }

// CheckPushes returns an error if the last pushes failed because of dray or the registry. It
// evaluates past requests, and sends no request itself.
func (m *Mirror) CheckPushes(ctx context.Context) error { return m.pushes.check(ctx) }

// Forward forwards a push of the queue to its upstream. It is a [queue.Forward].
func (m *Mirror) Forward(ctx context.Context, e queue.Entry) error { return m.push.Forward(ctx, e) }

// Writers returns the part that decides which member of a fleet works on a push. It is nil without
// a fleet.
func (m *Mirror) Writers() *writer.Writers { return m.writers }

// Warm returns the room that brings images into the cache before clients pull them.
func (m *Mirror) Warm() *warming.Warmer { return m.warm }

// Uploads lists the uploads that clients have started and not finished.
func (m *Mirror) Uploads() []*push.OpenUpload { return m.push.Uploads() }

// Explainer returns the room that explains to operators how dray handles the name of an image. It
// sets the fields of o that are parts of the Mirror.
func (m *Mirror) Explainer(o explain.Options) *explain.Explainer {
	o.Repositories, o.Pull, o.Cache, o.Live, o.Past, o.Reports = m.repos, m.pull, m.cache, m.observers.Live, m.observers.Past, m.Reports
	return explain.New(o)
}

// Collectors returns the metrics of this package and of the rooms.
func (m *Mirror) Collectors() []prometheus.Collector {
	all := m.metrics.collectors()
	for _, room := range []interface{ Collectors() []prometheus.Collector }{m.repos, m.keepAlive, m.verdicts, m.baseIndex, m.pull, m.push, m.writers} {
		all = append(all, room.Collectors()...)
	}
	return all
}
