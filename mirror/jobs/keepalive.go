package jobs

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"dray/cache/meta"
	"dray/mirror/repository"
	"dray/upstream"
	"dray/upstream/oci"
)

// A cache hides pulls from the registry behind it, and a registry that deletes what was not pulled
// for a while then deletes what is hot here. KeepAlive asks such a registry for the manifest of
// every image that clients have pulled since it was last asked for, at most once in an interval.

const (
	// maxWaiting bounds the images that wait for their touch. A day has time for more.
	maxWaiting = 64 << 10
	// touchWithin bounds one request.
	requestTimeout = time.Minute
)

// pulledImage is an image that was pulled since its last touch.
type pulledImage struct {
	mediaType, tag string
	// due is when it is to be touched; zero while the facts were not looked at.
	due time.Time
}

// KeepAlive asks upstreams for images that clients pull here, so that the upstreams do not take
// them for unused.
type KeepAlive struct {
	o       KeepAliveOptions
	results *prometheus.CounterVec

	mu     sync.Mutex // guards below; leaf lock
	images map[repository.Key]pulledImage
}

// KeepAliveOptions are what a KeepAlive is made of.
type KeepAliveOptions struct {
	Repositories *repository.Store
	// LastPulls remember what was asked for; nil keeps nothing alive.
	LastPulls *meta.LastPulls
	// Every is the least time between two requests for an image that are sent only because clients
	// pull it here, by the name of the upstream. 0: there are none.
	Every  map[string]time.Duration
	Logger *slog.Logger
}

// NewKeepAlive returns a KeepAlive that knows of no image.
func NewKeepAlive(o KeepAliveOptions) *KeepAlive {
	return &KeepAlive{
		o: o, images: map[repository.Key]pulledImage{},
		results: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dray_keep_alive_requests_total",
			Help: "Manifests that dray requested only to mark an image as in use, by upstream and result: present, absent or failed."}, []string{"upstream", "result"}),
	}
}

// Collectors returns the metrics of what is kept alive.
func (k *KeepAlive) Collectors() []prometheus.Collector {
	return []prometheus.Collector{k.results,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "dray_keep_alive_images", Help: "Images that clients have pulled since dray last asked the upstream for them."},
			func() float64 { return float64(k.waiting()) }),
	}
}

// enabled reports whether an upstream's images are kept alive.
func (k *KeepAlive) enabled(up *repository.Upstream) bool {
	return k.o.Every[up.Name] > 0 && k.o.LastPulls != nil
}

// interval is the shortest between two touches, 0 where there is nothing to do.
func (k *KeepAlive) interval() time.Duration {
	shortest := time.Duration(0)
	for _, every := range k.o.Every {
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

// Pulled notes that a client got an image that was here, by a tag or, where tag is empty, by its
// digest. What comes from the upstream just now is a pull there as well: see [KeepAlive.Touched].
func (k *KeepAlive) Pulled(r repository.Repo, tag string, m *repository.Manifest) {
	if !k.enabled(r.Up) {
		return
	}
	image := r.Key(m.Digest)
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, known := k.images[image]; !known && len(k.images) < maxWaiting {
		k.images[image] = pulledImage{mediaType: m.MediaType, tag: tag}
	}
}

// Touched notes that the upstream gave a manifest by GET.
func (k *KeepAlive) Touched(ctx context.Context, r repository.Repo, tag string, man *oci.Manifest) {
	if !k.enabled(r.Up) {
		return
	}
	k.mu.Lock()
	delete(k.images, r.Key(man.Digest))
	k.mu.Unlock()
	k.o.Repositories.Recorded(k.o.LastPulls.Set(ctx, r.Up.Name, r.Name, man.Digest, meta.TouchFact{Touched: time.Now(), MediaType: man.MediaType, Tag: tag}))
}

// Run touches images until ctx ends; it returns at once where nothing is to be kept alive. It looks
// around each minute, and spreads what is due by a second each; shorter intervals shrink both.
func (k *KeepAlive) Run(ctx context.Context) {
	interval := k.interval()
	if interval == 0 {
		return
	}
	tick, gap := min(time.Minute, interval/60), min(time.Second, interval/(24*60*60))
	k.restore(ctx)
	for k.sleep(ctx, tick) {
		failing := map[*repository.Upstream]bool{} // until the next look
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

// rest waits for about d, so that mirrors with a common store do not keep in step.
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

// recall finds what was pulled before a restart.
func (k *KeepAlive) restore(ctx context.Context) {
	for t, err := range k.o.LastPulls.All(ctx) {
		if err != nil {
			k.o.Logger.Debug("images to be kept alive not recalled", "error", err)
			return
		}
		up := k.o.Repositories.Upstream(t.Upstream)
		if up == nil || !k.enabled(up) || !t.Pulled {
			continue
		}
		image := k.o.Repositories.Repo(up, t.Repo).Key(t.Digest)
		k.mu.Lock()
		if len(k.images) < maxWaiting {
			k.images[image] = pulledImage{mediaType: t.MediaType, tag: t.Tag, due: t.Touched.Add(k.o.Every[up.Name])}
		}
		k.mu.Unlock()
	}
}

// look lists what is due, the oldest first, after it has found out when new images are.
// While facts cannot be read nothing is: without them hot images would be touched again
// and again.
func (k *KeepAlive) dueImages(ctx context.Context) []repository.Key {
	k.mu.Lock()
	var fresh, due []repository.Key
	now := time.Now()
	for image, i := range k.images {
		if i.due.IsZero() {
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
		if every := k.o.Every[image.Repo.Up.Name]; !i.due.IsZero() && meta.Age(now, i.due.Add(-every)) >= every {
			due = append(due, image)
		}
	}
	slices.SortFunc(due, func(a, b repository.Key) int { return k.images[a].due.Compare(k.images[b].due) })
	return due
}

// arrange finds out when a new image is due, and puts on record that it was pulled.
func (k *KeepAlive) schedule(ctx context.Context, image repository.Key) {
	fact, err := k.o.LastPulls.Get(ctx, image.Repo.Up.Name, image.Repo.Name, image.Digest)
	if err != nil && !errors.Is(err, meta.ErrNotFound) {
		return
	}
	k.mu.Lock()
	i, there := k.images[image]
	if there {
		i.due = cmp.Or(fact.Touched, time.Now().Add(-k.o.Every[image.Repo.Up.Name])).Add(k.o.Every[image.Repo.Up.Name])
		k.images[image] = i
	}
	k.mu.Unlock()
	if there && err == nil && !fact.Pulled {
		fact.Pulled, fact.MediaType, fact.Tag = true, i.mediaType, cmp.Or(i.tag, fact.Tag)
		k.o.Repositories.Recorded(k.o.LastPulls.Set(ctx, image.Repo.Up.Name, image.Repo.Name, image.Digest, fact))
	}
}

// touch asks for an image, unless another mirror did so meanwhile. That it is being done
// is on record first, so that the others leave it alone. It is false where there is no use
// in asking for another image at once.
func (k *KeepAlive) request(ctx context.Context, image repository.Key) bool {
	up, name := image.Repo.Up, image.Repo.Up.Name
	fact, err := k.o.LastPulls.Get(ctx, name, image.Repo.Name, image.Digest)
	if err != nil && !errors.Is(err, meta.ErrNotFound) {
		return false
	}
	k.mu.Lock()
	i, there := k.images[image]
	delete(k.images, image)
	k.mu.Unlock()
	now := time.Now()
	if !there || err == nil && meta.Age(now, fact.Touched) < k.o.Every[up.Name] {
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
	case err != nil:
		result = "failed"
		k.o.Logger.Debug("image not kept alive", "upstream", name, "repository", image.Repo.Name, "digest", image.Digest, "error", err)
	}
	if result != "present" && result != "absent" {
		// The claim is taken back, also when the mirror stops amid it.
		claim.Touched, claim.Pulled = cmp.Or(fact.Touched, now.Add(-k.o.Every[up.Name])), true
		k.o.Repositories.Recorded(k.o.LastPulls.Set(context.WithoutCancel(ctx), name, image.Repo.Name, image.Digest, claim))
		k.postpone(image, i, now)
	}
	if result != "" {
		k.results.WithLabelValues(name, result).Inc()
	}
	return result == "present" || result == "absent"
}

// again puts an image off that could not be touched.
func (k *KeepAlive) postpone(image repository.Key, i pulledImage, now time.Time) {
	i.due = now.Add(k.o.Every[image.Repo.Up.Name] / 100)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.images[image] = i
}

// get is the request: a full GET by digest, which is what counts as a pull of Amazon ECR
// by any reading of its documentation. What a registry has made to fit Accept it may not
// know by its digest: then the tag is asked for.
func (k *KeepAlive) getManifest(ctx context.Context, image repository.Key, i pulledImage) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	source, repo, accept := image.Repo.Up.OneTry(), image.Repo.Remote().With(upstream.InBackground()), []string{i.mediaType}
	_, err := source.Manifest(ctx, repo, oci.Reference{Digest: image.Digest}, accept)
	if oci.NotFound(err) && i.tag != "" {
		man, terr := source.Manifest(ctx, repo, oci.Reference{Tag: i.tag}, accept)
		if terr != nil || man.Digest == image.Digest {
			return terr
		}
	}
	return err
}
