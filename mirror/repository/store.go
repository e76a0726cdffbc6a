package repository

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"

	"dray/cache"
	"dray/cache/fleet"
	"dray/cache/meta"
	"dray/mirror/flight"
	"dray/mirror/queue"
	"dray/upstream"
	"dray/upstream/oci"
)

// Options are the parts of a Store.
type Options struct {
	Upstreams []*Upstream
	Cache     *cache.Cache
	// Fleet lets the mirrors of a fleet fetch blobs together. It is nil without a fleet.
	Fleet      *fleet.Fleet
	Tags       *meta.Tags
	Visibility *meta.Visibility
	Presence   *meta.Presence
	// Transit is nil unless other mirrors use the same store of facts.
	Transit *meta.Transit
	// OneWriter says that one mirror at a time, the writer, works on all pushes to a repository. If
	// a fact then says that another mirror has a blob in transit, that mirror is a former writer that
	// has failed, so dray ignores the fact.
	OneWriter bool
	// Queue holds the pushes that were acknowledged before they were forwarded. If there cannot be
	// such pushes, Queue is an empty queue, not nil.
	Queue  *queue.Queue
	Staged *Staging
	// Tasks runs the requests to upstreams whose answers several callers share.
	Tasks  *flight.Tasks
	Logger *slog.Logger
}

// Store is the state that all repositories share: the cache, the facts, and the tables of staged
// blobs and of waiting manifests.
type Store struct {
	o         Options
	absences  *meta.Absences
	upstreams atomic.Pointer[map[string]*Upstream]
	first     map[string]*Upstream // the first Upstream of each name, even of a removed upstream; only Replace uses it
	waiting   *Waiting
	// linkCache caches which digests are visible to repositories, each with a lease on the facts that
	// make it visible.
	linkCache *lru.Cache[Key, cachedLink]
	confirms  *flight.Group[Key, int64]
	lost      prometheus.Counter
}

const linkCacheSize = 8192

type cachedLink struct {
	link  meta.LinkFact
	lease *meta.Lease
}

// NewStore checks the upstreams and returns the store of their repositories.
func NewStore(o Options) (*Store, error) {
	if o.Cache == nil || o.Tags == nil || o.Visibility == nil || o.Presence == nil {
		return nil, errors.New("mirror: cache or metadata is missing")
	}
	linkCache, _ := lru.New[Key, cachedLink](linkCacheSize) // fails for sizes below 1 only
	s := &Store{
		o: o, absences: o.Tags.Absences(), first: map[string]*Upstream{}, waiting: newWaiting(maxWaiting, maxWaitingClient), linkCache: linkCache,
		lost: prometheus.NewCounter(prometheus.CounterOpts{Name: "dray_facts_lost_total",
			Help: "Facts that dray could not store. Each costs a request to an upstream later."}),
	}
	s.confirms = flight.NewGroup[Key, int64](flight.Options{Tasks: o.Tasks, Timeout: LookupTimeout})
	return s, s.Replace(o.Upstreams)
}

// Replace replaces all upstreams at once. The upstreams that do not change must be given too. An
// upstream with the name of a former upstream takes the place of that upstream: it has the same
// repositories, with the same staged blobs and waiting manifests. If Replace returns an error,
// nothing has changed. Replace must not be called concurrently.
func (s *Store) Replace(upstreams []*Upstream) error {
	byName := map[string]*Upstream{}
	for _, u := range upstreams {
		if err := u.check(); err != nil {
			return err
		}
		if u.AcknowledgeLocally && (u.Sink == nil || !s.o.Queue.Takes()) {
			return fmt.Errorf("mirror: upstream %q cannot acknowledge pushes without a queue and a sink", u.Name)
		}
		if byName[u.Name] != nil {
			return fmt.Errorf("mirror: two upstreams are named %q", u.Name)
		}
		byName[u.Name] = u
	}
	for name, u := range byName {
		switch first := s.first[name]; first {
		case nil:
			s.first[name] = u
		case u.identity():
		default:
			u.first = first // no other code uses the Upstream yet
		}
		if len(u.Fallbacks) > 0 && u.alone == nil {
			u.alone = u.withoutFallbacks() // one Upstream for all requests without fallbacks, so that clients share its answers
		}
	}
	s.upstreams.Store(&byName)
	return nil
}

// Upstreams returns the present upstreams by name. Callers must not change the map.
func (s *Store) Upstreams() map[string]*Upstream { return *s.upstreams.Load() }

// Upstream returns the present upstream with the given name, or nil.
func (s *Store) Upstream(name string) *Upstream { return s.Upstreams()[name] }

// Repo returns a repository of an upstream.
func (s *Store) Repo(up *Upstream, name string) Repo { return Repo{Up: up, Name: name, store: s} }

// Staged returns the table of staged blobs.
func (s *Store) Staged() *Staging { return s.o.Staged }

// Waiting returns the table of waiting manifests.
func (s *Store) Waiting() *Waiting { return s.waiting }

// Expire drops the staged blobs and the waiting manifests whose time is over.
func (s *Store) Expire(now time.Time) {
	s.o.Staged.Expire(now)
	s.waiting.Expire(now)
}

// Collectors returns the metrics of the repositories.
func (s *Store) Collectors() []prometheus.Collector {
	return []prometheus.Collector{s.lost,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "dray_push_blobs_staged", Help: "Blobs that dray retains for pushes whose manifest it has not forwarded yet."},
			func() float64 { return float64(s.o.Staged.Len()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "dray_push_manifests_waiting", Help: "Manifests that clients pushed by digest, that passed their checks, and that wait for a manifest that refers to them."},
			func() float64 { return float64(s.waiting.Len()) }),
	}
}

// Recorded handles the result of storing a fact. If err is not nil, it counts the fact as lost. A
// lost fact costs a request to the upstream later.
func (s *Store) Recorded(err error) {
	if err != nil {
		s.lost.Inc()
		s.o.Logger.Debug("fact not recorded", "error", err)
	}
}

// Repo is one repository of one upstream. Two values for the same repository are equal, unless its
// upstream was replaced in the meantime: see [Repo.Key] and [Same].
type Repo struct {
	Up    *Upstream
	Name  string
	store *Store
}

// Key is a digest in a repository. It stays the same when the upstream is replaced, because the
// field Repo has the first Upstream of this name. This Upstream may be out of date, so use the
// field Repo only for names and comparisons. For everything else, use [Key.Now].
type Key struct {
	Repo   Repo
	Digest digest.Digest
}

// Key returns the key of a digest in the repository.
func (r Repo) Key(d digest.Digest) Key {
	r.Up = r.Up.identity()
	return Key{r, d}
}

// Now returns the repository with its present upstream. If the upstream was removed, Now returns
// k.Repo unchanged.
func (k Key) Now() Repo {
	r := k.Repo
	r.Up = cmp.Or(r.store.Upstream(r.Up.Name), r.Up)
	return r
}

// Same reports whether two values are of the same repository, even if its upstream was replaced.
func Same(a, b Repo) bool { return a.Key("") == b.Key("") }

// Remote returns the repository's name at the upstream.
func (r Repo) Remote() upstream.Repo { return r.Up.Remote(r.Name) }

// Staged returns the staged blob with the given digest, or nil.
func (r Repo) Staged(d digest.Digest) *Staged { return r.store.o.Staged.Get(r.Key(d)) }

// Waiting returns the waiting manifest with the given digest, or nil.
func (r Repo) Waiting(d digest.Digest) *oci.Manifest { return r.store.waiting.Get(r.Key(d)) }

// BuildCaches returns the repository that stores the build caches pushed to this repository. ok is
// false if this repository stores them itself.
func (r Repo) BuildCaches() (to Repo, ok bool) {
	if r.Up.BuildCaches == nil {
		return Repo{}, false
	}
	return Repo{Up: r.Up.BuildCaches.To, Name: r.Up.Name + "/" + r.Name, store: r.store}, true
}

// Stored returns the repository of [Repo.BuildCaches] if that repository has the content that q
// asks for. If it lacks the content or does not answer, ok is false.
func (r Repo) Stored(ctx context.Context, q oci.Request) (to Repo, ok bool) {
	if to, ok = r.BuildCaches(); !ok {
		return to, false
	}
	var err error
	if q.Kind == oci.KindBlob {
		_, err = to.Up.Source.StatBlob(ctx, to.Remote(), q.Ref.Digest)
	} else {
		_, err = to.Up.Source.StatManifest(ctx, to.Remote(), q.Ref, nil)
	}
	return to, err == nil
}

// CheckPush refuses a push to a name under which this upstream stores the build caches of another
// upstream. dray serves these build caches in place of the other upstream's content, so a push
// needs the rights and the checks of the other upstream.
func (r Repo) CheckPush() error {
	for _, u := range r.store.Upstreams() {
		if u.BuildCaches != nil && u.BuildCaches.To == r.Up && strings.HasPrefix(r.Name, u.Name+"/") {
			return oci.ErrDenied.With("%s stores the build caches of %s under this name; push to %[2]s instead", r.Up.Name, u.Name)
		}
	}
	return nil
}

// AskManifest asks the upstream for the descriptor of a tag or digest.
func (r Repo) AskManifest(ctx context.Context, ref oci.Reference) (oci.Descriptor, error) {
	return r.Up.Source.StatManifest(ctx, r.Remote(), ref, oci.AnyManifest())
}

// Current returns the digest that a tag has at the upstream, or will have when the queued pushes
// have been forwarded. It returns "" if there is no such tag, or if ref is no tag.
func (r Repo) Current(ctx context.Context, ref oci.Reference) (digest.Digest, error) {
	if ref.Tag == "" {
		return "", nil
	}
	if queued := r.Queued(ref, nil); queued != nil {
		return queued.Digest, nil
	}
	d, err := r.AskManifest(ctx, ref)
	if oci.NotFound(err) {
		return "", nil
	}
	return d.Digest, err
}

// QueuedReferrers returns the descriptors of the manifests that are queued for a repository and
// whose subject has the given digest.
func QueuedReferrers(r Repo, subject digest.Digest) (all []oci.Descriptor) {
	for _, p := range r.store.o.Queue.Pushes(r.Up.Name, r.Name) {
		if !bytes.Contains(p.Manifest, []byte(subject.Encoded())) {
			continue // most pushes do not name the subject, so they need not be parsed
		}
		man, err := oci.ParseManifest(p.MediaType, p.Manifest)
		if err == nil && man.Subject != nil && man.Subject.Digest == subject {
			man.Digest = p.Digest
			all = append(all, man.Referrer())
		}
	}
	return all
}

// QueuedTags returns the tags of queued pushes to the repository.
func (r Repo) QueuedTags() []string { return r.store.o.Queue.Tags(r.Up.Name, r.Name) }
