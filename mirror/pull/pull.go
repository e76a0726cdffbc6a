package pull

import (
	"context"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"dray/cache"
	"dray/cache/fleet"
	"dray/cache/meta"
	"dray/mirror/admin/api"
	"dray/mirror/delegate"
	"dray/mirror/fallback"
	"dray/mirror/flight"
	"dray/mirror/jobs"
	"dray/mirror/past"
	"dray/mirror/repository"
	"dray/mirror/request"
	"dray/upstream"
	"dray/upstream/oci"
)

// Options configure a Puller.
type Options struct {
	Repositories *repository.Store
	Cache        *cache.Cache
	Tags         *meta.Tags
	Tasks        *flight.Tasks
	// Fleet is nil unless this mirror is a member of a fleet.
	Fleet     *fleet.Fleet
	KeepAlive *jobs.KeepAlive
	BaseIndex *jobs.BaseIndex
	// Prefetch has, by the name of the upstream, the settings that say which blobs dray fetches
	// before clients ask for them.
	Prefetch map[string]Prefetch
	// OnPull, if not nil, is called each time that a client has got a manifest by GET.
	OnPull func(r repository.Repo, reference string)
	Logger *slog.Logger
}

// Puller handles the requests that read.
type Puller struct {
	finder
	prefetchers atomic.Pointer[map[string]*prefetcher] // by upstream
	brought     chan struct{}                          // has an element for each blob that Bring is fetching
	hot         hot
	outages     *outages
	stale       *prometheus.CounterVec
	prefetched  *prometheus.CounterVec
	lender      *fallback.Lender
}

// New returns a Puller that has no hot answers yet.
func New(o Options) *Puller {
	p := &Puller{
		finder: finder{
			o: o, refreshes: newRefreshes(), lists: newImpatience(), accepts: &accepts{},
			questions: flight.NewGroup[question, *answer](flight.Options{Tasks: o.Tasks, Timeout: repository.LookupTimeout}),
			refreshed: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dray_tag_refreshes_total",
				Help: "Tags and lists of referrers that dray refreshed in the background while it served the old answer, by upstream and result."}, []string{"upstream", "result"}),
		},
		brought: make(chan struct{}, maxBrought), outages: newOutages(o.Tasks), hot: newHot(), lender: fallback.New(o.Repositories.Upstreams()),
		stale: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dray_stale_answers_total",
			Help: "Answers that used an old fact about a tag, a list of referrers, a manifest or a blob, because the upstream failed, by upstream."}, []string{"upstream"}),
		prefetched: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dray_prefetched_blobs_total",
			Help: "Blobs that dray prefetched after a client had requested their manifest, by upstream."}, []string{"upstream"}),
	}
	p.members = delegate.New(o.Fleet, o.Logger, p.answerMember)
	p.Replace(o.Prefetch)
	return p
}

// Replace replaces the settings of prefetching, whose keys are the names of upstreams. Callers also
// call it after replacing the upstreams. Fetches under way go on.
func (p *Puller) Replace(settings map[string]Prefetch) {
	prefetchers := map[string]*prefetcher{}
	for name := range p.o.Repositories.Upstreams() {
		if former := p.prefetcher(name); former.Prefetch == settings[name] {
			prefetchers[name] = former
		} else {
			prefetchers[name] = newPrefetcher(settings[name])
		}
		p.stale.WithLabelValues(name) // creates the counter at 0, so that alerts see its first increase
	}
	p.prefetchers.Store(&prefetchers)
}

// prefetcher returns the prefetcher of an upstream. For an upstream that was removed, it returns a
// new prefetcher that prefetches nothing.
func (p *Puller) prefetcher(upstream string) *prefetcher {
	if all := p.prefetchers.Load(); all != nil && (*all)[upstream] != nil {
		return (*all)[upstream]
	}
	return newPrefetcher(Prefetch{})
}

// Collectors returns the metrics of pulls.
func (p *Puller) Collectors() []prometheus.Collector {
	return append(append(p.lender.Collectors(), p.members.Collectors()...), p.stale, p.refreshed, p.prefetched)
}

// Manifest handles GET and HEAD of a manifest.
func (p *Puller) Manifest(x *request.Request) error {
	x.Divert()
	ctx := x.R.Context()
	if len(x.Repo.Up.Fallbacks) > 0 {
		ctx = x.WithTimeout(repository.LookupTimeout) // for the upstream and its fallbacks together
	}
	return p.lender.InTurn(ctx, x, func() error { return p.manifest(ctx, x) })
}

func (p *Puller) manifest(ctx context.Context, x *request.Request) error {
	r := x.Repo
	a, err := p.find(ctx, x, x.R.Header.Values("Accept"))
	if err != nil {
		return err
	}
	x.StopTimeout()
	x.Source, x.Stale = a.source, a.stale
	p.o.BaseIndex.Saw(r, x.Q.Ref, a.MediaType, a.Digest)
	p.warn(x)
	p.lender.Lend(x, a.Manifest)
	if x.R.Method == http.MethodGet {
		p.prefetchImage(trace.SpanFromContext(ctx), r, a.Manifest)
	}
	x.PullsManifest(a.Manifest)
	return p.pulled(x, a, x.SendManifest(a.Manifest))
}

// warn adds Warning headers to an old answer, and to an answer of a fallback (RFC 7234, 5.5.1,
// 5.5.2 and 5.5.6). RFC 9111 dropped these headers, but clients and people know them.
func (p *Puller) warn(x *request.Request) {
	p.lender.Mark(x)
	if x.Stale == nil && x.Source != fromUpdating {
		return
	}
	x.W.Header().Add("Warning", `110 dray "Response is Stale"`)
	if x.Stale != nil {
		x.W.Header().Add("Warning", `111 dray "Revalidation Failed"`)
		p.stale.WithLabelValues(x.Repo.Up.Name).Inc()
	}
}

// pulled reports to the jobs, the cache and OnPull that a client got a manifest by GET. err is the
// error of sending the manifest. pulled returns err, and reports nothing if err is not nil.
func (p *Puller) pulled(x *request.Request, a *answer, err error) error {
	if got := x.W.Status() == http.StatusOK || x.W.Status() == http.StatusPartialContent; err == nil && got && x.R.Method == http.MethodGet {
		// A pull that the upstream answered needs no keep-alive: the upstream has counted it.
		if a.source != fromOrigin {
			p.o.KeepAlive.Pulled(x.Repo, x.Q.Ref.Tag, a.Manifest)
		}
		p.o.Cache.Used(a.Digest, func() []digest.Digest { return imageBlobs(a.Manifest) })
		if p.o.OnPull != nil {
			p.o.OnPull(x.Repo, x.Q.Ref.String())
		}
	}
	return err
}

// imageBlobs lists the blobs of an image. It lists none for an index: a client that gets an index
// has not chosen a platform yet.
func imageBlobs(m *repository.Manifest) (blobs []digest.Digest) {
	man, err := m.Parse()
	if err != nil || man.Index() {
		return nil
	}
	for _, c := range man.Children() {
		if !c.Manifest {
			blobs = append(blobs, c.Digest)
		}
	}
	return blobs
}

func (p *Puller) find(ctx context.Context, x *request.Request, accept []string) (*answer, error) {
	r, ref := x.Repo, x.Q.Ref
	if !ref.ByDigest() {
		t := p.tagOf(x, accept)
		a, fact, err := p.tagAtHand(ctx, t, !x.AsksToPush())
		switch {
		case err != nil:
			x.Miss = &past.Miss{Cause: api.MissAbsent, Since: fact.CheckedAt}
			return nil, err
		case a == nil:
			return p.askedBy(ctx, x, accept, p.missedTag(x, t, fact))
		case a.source != fromUpdating:
			p.keepHot(x, a)
		}
		return a, nil
	}
	need := x.Need()
	if x.AsksToPush() {
		need = x.HeadNeed()
	}
	at, err := r.LocateManifest(ctx, ref.Digest, accept, need)
	if err != nil {
		x.Miss = &past.Miss{Cause: api.MissAbsent, Since: at.When}
		return nil, err
	}
	if at.Manifest == nil {
		return p.askedBy(ctx, x, accept, p.missedManifest(x, x.AsksToPush()))
	}
	a := &answer{Manifest: at.Manifest, source: fromCache}
	switch at.Place {
	case repository.Recent:
		a.until = at.When.Add(r.Up.Tags.Fresh)
		p.keepHot(x, a)
	case repository.Held:
		p.keepHot(x, a)
	}
	return a, nil
}

func (p *Puller) tagOf(x *request.Request, accept []string) tag {
	t := tag{repo: x.Repo, name: x.Q.Ref.Tag, accept: accept}
	t.after = p.lastAnswer(x.R.Context(), x, t)
	return t
}

// lastAnswer returns the time before which facts of a fallback do not count (see tag.after). This
// is the time of the newest fact about the tag at the upstream that the client named. lastAnswer
// returns zero if there is no such fact, if it is "not found", or if x does not go to a fallback.
func (f *finder) lastAnswer(ctx context.Context, x *request.Request, t tag) time.Time {
	if x.Instead.Up == nil {
		return time.Time{}
	}
	t.repo = x.Instead
	if fact := anyFact(ctx, f.o.Tags, t); fact != nil && !fact.NotFound {
		return fact.CheckedAt
	}
	return time.Time{}
}

// keepHot adds an answer to the hot answers, unless the answer came from a fallback. After an
// answer from a fallback, dray asks the upstream again for the next client.
func (p *Puller) keepHot(x *request.Request, a *answer) {
	if x.Instead.Up == nil {
		p.hot.add(x, a)
	}
}

// Newest returns the manifest that a tag means at its upstream, or will mean when a queued push has
// been forwarded. It asks the upstream unless there is a fresh fact. If the upstream fails, Newest
// returns the error, even if there is an old answer that a client would get.
func (p *Puller) Newest(ctx context.Context, r repository.Repo, name string) (*repository.Manifest, error) {
	accept := oci.AnyManifest()
	if m := r.Queued(oci.Reference{Tag: name}, accept); m != nil {
		return m, nil
	}
	a, err := p.byTag(ctx, upstream.Call{}, tag{repo: r, name: name, accept: accept, own: true})
	if err == nil {
		err = a.stale
	}
	if err != nil {
		return nil, err
	}
	return a.Manifest, nil
}

// ByDigest returns a manifest, for callers that do not know whether the repository has it. If the
// cache or the tier has the bytes, ByDigest asks the upstream only whether the repository has the
// manifest, and not even that if the manifest is visible. Otherwise a member of the fleet or the
// upstream sends the manifest.
func (p *Puller) ByDigest(ctx context.Context, r repository.Repo, d digest.Digest) (*repository.Manifest, error) {
	a, err := p.byDigest(ctx, upstream.Call{}, r, d, oci.AnyManifest())
	if err != nil {
		return nil, err
	}
	return a.Manifest, nil
}
