package jobs

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"dray/cache/meta"
	"dray/mirror/repository"
	"dray/upstream"
	"dray/upstream/oci"
)

// A registry may delete images without recent pulls, and it does not see the pulls that dray
// answers from its cache. So KeepAlive asks the registry for each image that clients have pulled
// since the registry last returned its manifest. It asks at most once in an interval for each
// image.

const (
	// maxWaiting bounds the number of images that wait for their request. It is less than the number
	// of requests that KeepAlive can send in a day.
	maxWaiting = 64 << 10
	// requestTimeout bounds one request.
	requestTimeout = time.Minute
)

// pulledImage is an image that was pulled since the last request for it.
type pulledImage struct {
	mediaType, tag string
	// since is the start of the present interval, at whose end KeepAlive sends its next request for
	// the image; zero until the facts have been read.
	since time.Time
}

// KeepAlive asks upstreams for images that clients pull here, so that the upstreams do not consider
// them unused.
type KeepAlive struct {
	o       KeepAliveOptions
	every   atomic.Pointer[map[string]time.Duration]
	changed chan struct{} // has an element after a change of the intervals
	results *prometheus.CounterVec

	mu     sync.Mutex // guards images; no other lock is taken while it is locked
	images map[repository.Key]pulledImage
}

// KeepAliveOptions configure a KeepAlive.
type KeepAliveOptions struct {
	Repositories *repository.Store
	// LastPulls records when an upstream last saw a pull of each image; nil disables KeepAlive.
	LastPulls *meta.LastPulls
	// Every is the shortest interval between two requests of KeepAlive for an image, by the name of
	// the upstream. 0 means no requests.
	Every  map[string]time.Duration
	Logger *slog.Logger
}

// NewKeepAlive returns a KeepAlive without images.
func NewKeepAlive(o KeepAliveOptions) *KeepAlive {
	k := &KeepAlive{
		o: o, changed: make(chan struct{}, 1), images: map[repository.Key]pulledImage{},
		results: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dray_keep_alive_requests_total",
			Help: "Manifests that dray requested only to mark an image as in use, by upstream and result: present, absent or failed."}, []string{"upstream", "result"}),
	}
	k.every.Store(&o.Every)
	return k
}

// Replace replaces the intervals. Their keys are the names of upstreams.
func (k *KeepAlive) Replace(intervals map[string]time.Duration) {
	k.every.Store(&intervals)
	select {
	case k.changed <- struct{}{}:
	default: // Run has not seen the last change yet
	}
}

// intervalOf returns the interval of an upstream, or 0 if the upstream gets no requests.
func (k *KeepAlive) intervalOf(upstream string) time.Duration { return (*k.every.Load())[upstream] }

// Collectors returns the metrics of KeepAlive.
func (k *KeepAlive) Collectors() []prometheus.Collector {
	return []prometheus.Collector{k.results,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "dray_keep_alive_images", Help: "Images that clients have pulled since dray last requested them from the upstream."},
			func() float64 { return float64(k.waiting()) }),
	}
}

// enabled reports whether KeepAlive is configured for an upstream.
func (k *KeepAlive) enabled(up *repository.Upstream) bool {
	return k.intervalOf(up.Name) > 0 && k.o.LastPulls != nil
}

// interval returns the shortest interval of all upstreams, or 0 if KeepAlive is not configured for
// any upstream.
func (k *KeepAlive) interval() time.Duration {
	shortest := time.Duration(0)
	for _, every := range *k.every.Load() {
		if k.o.LastPulls != nil && every > 0 && (shortest == 0 || every < shortest) {
			shortest = every
		}
	}
	return shortest
}

func (k *KeepAlive) waiting() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.images)
}

// Pulled notes that a client got an image from the cache, by tag or, if tag is empty, by digest. If
// the manifest came from the upstream, callers call [KeepAlive.Touched] instead, because the
// upstream has already counted a pull.
func (k *KeepAlive) Pulled(r repository.Repo, tag string, m *repository.Manifest) {
	if !k.enabled(r.Up) {
		return
	}
	image := r.Key(m.Digest)
	k.mu.Lock()
	defer k.mu.Unlock()
	if i, known := k.images[image]; known || len(k.images) < maxWaiting {
		k.images[image] = pulledImage{mediaType: m.MediaType, tag: cmp.Or(tag, i.tag), since: i.since}
	}
}

// Touched notes that the upstream returned a manifest by GET.
func (k *KeepAlive) Touched(ctx context.Context, r repository.Repo, tag string, man *oci.Manifest) {
	if !k.enabled(r.Up) {
		return
	}
	k.mu.Lock()
	delete(k.images, r.Key(man.Digest))
	k.mu.Unlock()
	k.o.Repositories.Recorded(k.o.LastPulls.Set(ctx, r.Up.Name, r.Name, man.Digest, meta.TouchFact{Touched: time.Now(), MediaType: man.MediaType, Tag: tag}))
}

// Run sends the requests until ctx ends. It looks for due images every minute, and waits a second
// between two requests. If the shortest interval of all upstreams is below an hour, Run looks more
// often. If that interval is below a day, Run waits less between two requests.
func (k *KeepAlive) Run(ctx context.Context) {
	for ctx.Err() == nil {
		interval := k.interval()
		if interval > 0 {
			k.restore(ctx)
		}
		k.runAt(ctx, interval)
	}
}

// runAt sends the requests until ctx ends or the intervals are replaced. interval is the result of
// the method interval; 0 means that KeepAlive is configured for no upstream.
func (k *KeepAlive) runAt(ctx context.Context, interval time.Duration) {
	if interval == 0 {
		select {
		case <-k.changed:
		case <-ctx.Done():
		}
		return
	}
	tick, gap := min(time.Minute, interval/60), min(time.Second, interval/(24*60*60))
	for k.sleep(ctx, tick) {
		select {
		case <-k.changed:
			return
		default:
		}
		failing := map[*repository.Upstream]bool{} // true: no more requests in this round
		for _, image := range k.dueImages(ctx) {
			if failing[image.Repo.Up] {
				continue
			}
			failing[image.Repo.Up] = !k.request(ctx, image)
			if !k.sleep(ctx, gap) {
				return
			}
		}
	}
}

// sleep waits for about d. It returns false if ctx ends first. The duration is random, so that
// mirrors that share a store of facts do not all send their requests at the same time.
func (k *KeepAlive) sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d/2 + rand.N(d+1))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// restore adds the images that the facts list as pulled. Clients may have pulled them before a
// restart, before a reload that disabled KeepAlive for their upstream, or from another mirror.
// restore does not change images that are already in the map, because their requests may have been
// postponed.
func (k *KeepAlive) restore(ctx context.Context) {
	for t, err := range k.o.LastPulls.All(ctx) {
		if err != nil {
			k.o.Logger.Debug("cannot read the last pulls of images", "error", err)
			return
		}
		up := k.o.Repositories.Upstream(t.Upstream)
		if up == nil || !k.enabled(up) || !t.Pulled {
			continue
		}
		image := k.o.Repositories.Repo(up, t.Repo).Key(t.Digest)
		k.mu.Lock()
		if _, known := k.images[image]; !known && len(k.images) < maxWaiting {
			k.images[image] = pulledImage{mediaType: t.MediaType, tag: t.Tag, since: t.Touched}
		}
		k.mu.Unlock()
	}
}

// dueImages schedules new images, and returns the images that are due, the oldest first. It does
// not schedule an image whose fact cannot be read. If it treated such an image like one without a
// fact, the image would be due at once after each pull: a popular image would cause one request
// after the other.
func (k *KeepAlive) dueImages(ctx context.Context) []repository.Key {
	k.mu.Lock()
	var fresh, due []repository.Key
	now := time.Now()
	for image, i := range k.images {
		if i.since.IsZero() {
			fresh = append(fresh, image)
		}
	}
	k.mu.Unlock()
	for _, image := range fresh {
		k.schedule(ctx, image)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for image, i := range k.images {
		every := k.intervalOf(image.Repo.Up.Name)
		if every == 0 {
			delete(k.images, image) // a reload has disabled KeepAlive for this upstream
			continue
		}
		if !i.since.IsZero() && meta.Age(now, i.since) >= every {
			due = append(due, image)
		}
	}
	slices.SortFunc(due, func(a, b repository.Key) int { return k.images[a].since.Compare(k.images[b].since) })
	return due
}

// schedule sets the start of the interval of a new image. If the image has a fact, schedule records
// in it that the image was pulled.
func (k *KeepAlive) schedule(ctx context.Context, image repository.Key) {
	fact, err := k.o.LastPulls.Get(ctx, image.Repo.Up.Name, image.Repo.Name, image.Digest)
	if err != nil && !errors.Is(err, meta.ErrNotFound) {
		return
	}
	k.mu.Lock()
	i, there := k.images[image]
	if there {
		i.since = cmp.Or(fact.Touched, time.Now().Add(-k.intervalOf(image.Repo.Up.Name)))
		k.images[image] = i
	}
	k.mu.Unlock()
	if there && err == nil && !fact.Pulled {
		fact.Pulled, fact.MediaType, fact.Tag = true, i.mediaType, cmp.Or(i.tag, fact.Tag)
		k.o.Repositories.Recorded(k.o.LastPulls.Set(ctx, image.Repo.Up.Name, image.Repo.Name, image.Digest, fact))
	}
}

// request sends the keep-alive request for an image, unless another mirror has sent one meanwhile.
// It records the request first, so that other mirrors skip the image. It returns false if requests
// for other images are also likely to fail.
func (k *KeepAlive) request(ctx context.Context, image repository.Key) bool {
	name := image.Repo.Up.Name
	fact, err := k.o.LastPulls.Get(ctx, name, image.Repo.Name, image.Digest)
	if err != nil && !errors.Is(err, meta.ErrNotFound) {
		return false
	}
	k.mu.Lock()
	i, there := k.images[image]
	delete(k.images, image)
	k.mu.Unlock()
	i.tag = cmp.Or(i.tag, fact.Tag) // the registry may not know the digest, only this tag
	now := time.Now()
	if !there || err == nil && meta.Age(now, fact.Touched) < k.intervalOf(name) {
		return true
	}
	claim := meta.TouchFact{Touched: now, MediaType: i.mediaType, Tag: i.tag}
	if err := k.o.LastPulls.Set(ctx, name, image.Repo.Name, image.Digest, claim); err != nil {
		k.postpone(image, i, now)
		k.o.Repositories.Recorded(err)
		return false
	}
	result := "present"
	switch err := k.getManifest(ctx, image, i); {
	case ctx.Err() != nil:
		result = ""
	case oci.NotFound(err):
		result = "absent"
		k.o.Logger.Warn("the registry does not have an image any more that clients pull here: it was deleted or archived; push it again before the cache evicts it",
			"upstream", name, "repository", image.Repo.Name, "digest", image.Digest, "tag", i.tag)
	case err != nil:
		result = "failed"
		k.o.Logger.Debug("keep-alive request failed", "upstream", name, "repository", image.Repo.Name, "digest", image.Digest, "error", err)
	}
	if result != "present" && result != "absent" {
		// Undo the record, even if the mirror is stopping.
		claim.Touched, claim.Pulled = cmp.Or(fact.Touched, now.Add(-k.intervalOf(name))), true
		k.o.Repositories.Recorded(k.o.LastPulls.Set(context.WithoutCancel(ctx), name, image.Repo.Name, image.Digest, claim))
		k.postpone(image, i, now)
	}
	if result != "" {
		k.results.WithLabelValues(name, result).Inc()
	}
	return result == "present" || result == "absent"
}

// postpone puts back an image whose request failed. The image is due again after a hundredth of the
// interval.
func (k *KeepAlive) postpone(image repository.Key, i pulledImage, now time.Time) {
	every := k.intervalOf(image.Repo.Up.Name)
	i.since = now.Add(every/100 - every)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.images[image] = i
}

// getManifest sends a full GET by digest. The documentation of Amazon ECR leaves no doubt that this
// counts as a pull. A registry that converted a manifest to fit Accept may not know the digest of
// the result. So if the registry answers "not found", getManifest asks for the tag.
func (k *KeepAlive) getManifest(ctx context.Context, image repository.Key, i pulledImage) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	r := image.Now()
	source, repo, accept := r.Up.OneTry(), r.Remote().With(upstream.InBackground()), []string{i.mediaType}
	_, err := source.Manifest(ctx, repo, oci.Reference{Digest: image.Digest}, accept)
	if oci.NotFound(err) && i.tag != "" {
		man, terr := source.Manifest(ctx, repo, oci.Reference{Tag: i.tag}, accept)
		if terr != nil || man.Digest == image.Digest {
			return terr
		}
	}
	return err
}
