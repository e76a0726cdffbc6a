package mirror

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"dray/cache"
	"dray/cache/meta"
	"dray/mirror/flight"
	"dray/mirror/notify"
	"dray/mirror/pipeline"
	"dray/mirror/queue"
	"dray/upstream"
	"dray/upstream/oci"

	"github.com/prometheus/client_golang/prometheus"
)

// Upstream is a registry as the mirror sees it.
type Upstream struct {
	Name string
	// Registry is the registry's own name, for people and for CloudWatch.
	Registry string
	// Public is what whole names of its images begin with, such as docker.io; empty: as Registry.
	Public string
	// Source reads, absorbing what is worth a second try.
	Source upstream.Source
	// Once reads with a single attempt: for questions whose answer is already at hand,
	// if an old one.
	Once upstream.Source
	// Sink takes pushes; nil refuses them.
	Sink upstream.Sink
	// AcknowledgeLocally answers a push when it is on stable storage here and in the queue.
	AcknowledgeLocally bool
	// answers notes whether the registry answers clients that are about to push; see orSend.
	answers *upstream.Breaker
	// Deleter takes deletions; nil refuses them.
	Deleter upstream.Deleter
	// Lister lists tags and referrers.
	Lister upstream.Lister
	// RepositoryPrefix is put before every repository name at the upstream, with a slash between
	// them; empty: nothing is.
	RepositoryPrefix string
	// Aside, when not nil, keeps the build caches that are pushed here.
	Aside *Aside
	Tags  TagPolicy
	// Split says how large blobs are fetched by several ranges at once; Part is the
	// Mirror's own. The zero value fetches every blob by one request.
	Split cache.Split
	// KeepAlive is the least time between two requests for an image that are sent only
	// because clients pull it here, so that the upstream does not take it for unused.
	// 0: there are none.
	KeepAlive time.Duration
	// Gates are what pushes have to pass. The first one with a pattern for a repository counts; without one, a push
	// is forwarded as it is.
	Gates []*Gate
	// Prefetch says what is fetched before clients ask for it. The zero value: nothing.
	Prefetch PrefetchPolicy
}

// TagPolicy says how long answers about tags are believed.
type TagPolicy struct {
	// Fresh is how long a tag is served without a question.
	Fresh time.Duration
	// Revalidate is how long after that the old answer is still served at once, while the
	// upstream is asked in the background. It has no effect where Fresh is 0.
	Revalidate time.Duration
	// Stale is how long after the last answer a tag is still served while the upstream
	// fails.
	Stale time.Duration
	// NotFound is how long "not found" is believed.
	NotFound time.Duration
}

// remote is the repository as it is asked for at the upstream.
func (u *Upstream) remote(repo string) upstream.Repo {
	return upstream.Repo{Name: oci.JoinRepo(u.RepositoryPrefix, repo)}
}

// Options are what a Mirror is made of.
type Options struct {
	Cache *cache.Cache
	Tags  *meta.Tags
	Links *meta.Links
	Known *meta.Known
	// Touches is needed where images are kept alive.
	Touches *meta.Touches
	// Bases, when not nil, learn the layers of the images that clients pull and push.
	Bases     *meta.Bases
	Upstreams []*Upstream
	// Queue takes the pushes to upstreams that acknowledge locally, and calls Forward for them; nil where there are none.
	Queue *queue.Queue
	// OnPull, when not nil, is called once for each manifest that a client got by GET.
	OnPull func(u *Upstream, repo, reference string)
	// OnEvent, when not nil, is told what was pushed, judged and deleted. It must not wait.
	OnEvent func(notify.Event)
	// Logger gets one line a request, and what background work reports; nil discards.
	Logger *slog.Logger
	// UploadExpiry ends an upload without progress, and how long a blob that no
	// manifest followed is kept for its push; 0 means 1 hour.
	UploadExpiry time.Duration
	// MaxUploadsPerClient bounds open uploads; 0 is no bound.
	MaxUploadsPerClient int
	// MaxUploadBytesPerClient bounds the bytes of open uploads and of blobs whose manifest has not landed; 0 is no bound.
	MaxUploadBytesPerClient int64
	// ClientStall disconnects a client that neither sends nor takes a byte for so long;
	// 0 means 2 minutes.
	ClientStall time.Duration
	// AnswerWithin bounds what a client that gives no limit of its own waits for the
	// answer to a manifest that it pushes; 0 means 10 minutes. Clients built on
	// containerd wait 30 s and are answered within 25.
	AnswerWithin time.Duration
}

// Mirror is what all listeners share.
type Mirror struct {
	cache     *cache.Cache
	tags      *meta.Tags
	absences  *meta.Absences
	links     *meta.Links
	known     *meta.Known
	queue     *queue.Queue
	upstreams map[string]*Upstream
	ahead     map[string]*prefetcher // by upstream
	onPull    func(u *Upstream, repo, reference string)
	onEvent   func(notify.Event)
	log       *slog.Logger
	tasks     *flight.Tasks
	manifests *flight.Group[manifestKey, *answer]
	vouches   *flight.Group[pinKey, int64]
	landings  *flight.Group[pleaKey, upstream.Pushed]
	tagLocks  flight.Mutex[tagKey]
	verdicts  *flight.Group[pleaKey, *pipeline.Report]
	scans     *flight.Group[scanKey, *pipeline.Scanned]
	walks     chan struct{}
	backlog   *backlog
	reports   *reports
	shares    *shares
	uploads   *uploads
	pins      *pins
	recovered []recovered
	within    time.Duration
	stall     time.Duration
	metrics   *metrics
	hot       hot
	refreshes *refreshes
	toucher   *toucher
	mounts    *mounts
	learner   *learner
	// attachments are verdicts that are to be put beside their images.
	attachments *flight.Jobs[attachment]
}

// lookFor bounds the questions to an upstream that a pull needs before its answer
// can begin: clients wait 30 s for a header.
const lookFor = 25 * time.Second

// New puts a Mirror together, with the uploads that a former process left in the cache. It starts nothing.
func New(o Options) (*Mirror, error) {
	if o.Cache == nil || o.Tags == nil || o.Links == nil || o.Known == nil {
		return nil, errors.New("mirror: cache and metadata are needed")
	}
	m := &Mirror{
		cache: o.Cache, tags: o.Tags, absences: o.Tags.Absences(), links: o.Links, known: o.Known, queue: o.Queue,
		upstreams: map[string]*Upstream{}, ahead: map[string]*prefetcher{}, onPull: o.OnPull, onEvent: o.OnEvent,
		log: cmp.Or(o.Logger, slog.New(slog.DiscardHandler)), tasks: flight.NewTasks(),
		within:  cmp.Or(o.AnswerWithin, 10*time.Minute),
		stall:   cmp.Or(o.ClientStall, 2*time.Minute),
		metrics: newMetrics(),
		hot:     newHot(), refreshes: newRefreshes(), mounts: newMounts(),
	}
	m.toucher = newToucher(m, o.Touches)
	m.attachments = flight.NewJobs[attachment](maxAttachments)
	m.learner = newLearner(m, o.Bases)
	expiry := cmp.Or(o.UploadExpiry, time.Hour)
	m.shares = newShares(o.MaxUploadsPerClient, o.MaxUploadBytesPerClient)
	m.uploads = newUploads(expiry, m.shares)
	m.pins = newPins(expiry, m.shares)
	questions := flight.Options{Tasks: m.tasks, Timeout: lookFor}
	m.manifests, m.vouches = flight.NewGroup[manifestKey, *answer](questions), flight.NewGroup[pinKey, int64](questions)
	pushes := flight.Options{Tasks: m.tasks, Timeout: landWithin, Detached: true}
	m.landings, m.verdicts = flight.NewGroup[pleaKey, upstream.Pushed](pushes), flight.NewGroup[pleaKey, *pipeline.Report](pushes)
	m.scans = flight.NewGroup[scanKey, *pipeline.Scanned](flight.Options{Tasks: m.tasks, Timeout: landWithin})
	m.walks, m.backlog, m.reports = make(chan struct{}, maxWalks), newBacklog(maxBacklog, maxBacklogClient), newReports()
	for _, u := range o.Upstreams {
		if u.Name == "" || u.Source == nil || u.Lister == nil {
			return nil, fmt.Errorf("mirror: upstream %q is incomplete", u.Name)
		}
		if u.AcknowledgeLocally && (u.Sink == nil || o.Queue == nil) {
			return nil, fmt.Errorf("mirror: upstream %q cannot acknowledge pushes: there is nowhere to queue them, or they are not taken", u.Name)
		}
		if m.upstreams[u.Name] != nil {
			return nil, fmt.Errorf("mirror: two upstreams are named %q", u.Name)
		}
		if err := u.checkAside(); err != nil {
			return nil, err
		}
		if u.Once == nil {
			u.Once = u.Source
		}
		u.answers = upstream.NewBreaker(upstream.BreakerOptions{Name: u.Name, Threshold: 1})
		m.upstreams[u.Name] = u
		m.metrics.from0(u)
		m.ahead[u.Name] = newPrefetcher(u.Prefetch)
	}
	m.recover(time.Now())
	return m, nil
}

// Run goes on with what a former process received, and drops uploads that nobody continues until ctx ends; then it ends
// everything that the Mirror does in the background and waits for it. Uploads are left to the next process.
func (m *Mirror) Run(ctx context.Context) error {
	m.tasks.Start(m.forwardRecovered)
	if m.toucher.interval() > 0 {
		m.tasks.Start(m.toucher.run)
	}
	if m.attaches() {
		m.tasks.Start(func(ctx context.Context) { m.attachments.Run(ctx, m.attachOne) })
	}
	if m.learner != nil {
		m.tasks.Start(m.learner.run)
	}
	tick := time.NewTicker(m.uploads.expiry / 10)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			m.uploads.suspendAll()
			m.tasks.Stop()
			m.pins.suspendAll()
			return nil
		case now := <-tick.C:
			m.uploads.expire(now)
			m.pins.expire(now)
			m.backlog.expire(now)
		}
	}
}

// Collectors returns the metrics of the front door.
func (m *Mirror) Collectors() []prometheus.Collector { return m.metrics.collectors(m) }
