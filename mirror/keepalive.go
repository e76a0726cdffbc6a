package mirror

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"dray/cache/meta"
	"dray/upstream/oci"

	"github.com/opencontainers/go-digest"
)

// A cache hides pulls from the registry behind it, and a registry that deletes what
// was not pulled for a while then deletes what is hot here. The toucher asks such a
// registry for the manifest of every image that clients have pulled since it was last
// asked for, at most once in an interval.

const (
	// maxKept bounds the images that wait for their touch. A day has time for more.
	maxKept = 64 << 10
	// touchWithin bounds one request.
	touchWithin = time.Minute
)

// kept names an image.
type kept struct {
	up     *Upstream
	repo   string
	digest digest.Digest
}

// keeping is an image that was pulled since its last touch.
type keeping struct {
	mediaType, tag string
	// due is when it is to be touched; zero while the facts were not looked at.
	due time.Time
}

// toucher touches images.
type toucher struct {
	m       *Mirror
	touches *meta.Touches

	mu     sync.Mutex // guards below; leaf lock
	images map[kept]keeping
}

func newToucher(m *Mirror, touches *meta.Touches) *toucher {
	return &toucher{m: m, touches: touches, images: map[kept]keeping{}}
}

// keeps reports whether an upstream's images are kept alive.
func (k *toucher) keeps(up *Upstream) bool { return up.KeepAlive > 0 && k.touches != nil }

// interval is the shortest between two touches, 0 where there is nothing to do.
func (k *toucher) interval() time.Duration {
	shortest := time.Duration(0)
	for _, up := range k.m.upstreams {
		if k.keeps(up) && (shortest == 0 || up.KeepAlive < shortest) {
			shortest = up.KeepAlive
		}
	}
	return shortest
}

func (k *toucher) waiting() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.images)
}

// pulled notes that a client got an image from here. What came from the upstream just
// now was a pull there as well.
func (k *toucher) pulled(up *Upstream, repo, tag string, a *answer) {
	if !k.keeps(up) || a.source == fromOrigin {
		return
	}
	image := kept{up, repo, a.digest}
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, known := k.images[image]; !known && len(k.images) < maxKept {
		k.images[image] = keeping{mediaType: a.mediaType, tag: tag}
	}
}

// touched notes that the upstream gave a manifest by GET.
func (k *toucher) touched(ctx context.Context, up *Upstream, repo, tag string, man *oci.Manifest) {
	if !k.keeps(up) {
		return
	}
	k.mu.Lock()
	delete(k.images, kept{up, repo, man.Digest})
	k.mu.Unlock()
	k.m.recorded(k.touches.Set(ctx, up.Name, repo, man.Digest, meta.TouchFact{Touched: time.Now(), MediaType: man.MediaType, Tag: tag}))
}

// run touches images until ctx ends. It looks around each minute, and spreads what is
// due by a second each; shorter intervals shrink both.
func (k *toucher) run(ctx context.Context) {
	interval := k.interval()
	tick, gap := min(time.Minute, interval/60), min(time.Second, interval/(24*60*60))
	k.recall(ctx)
	for k.rest(ctx, tick) {
		failing := map[*Upstream]bool{} // until the next look
		for _, image := range k.look(ctx) {
			if failing[image.up] {
				continue
			}
			failing[image.up] = !k.touch(ctx, image)
			if !k.rest(ctx, gap) {
				return
			}
		}
	}
}

// rest waits for about d, so that mirrors with a common store do not keep in step.
func (k *toucher) rest(ctx context.Context, d time.Duration) bool {
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
func (k *toucher) recall(ctx context.Context) {
	for t, err := range k.touches.All(ctx) {
		if err != nil {
			k.m.log.Debug("images to be kept alive not recalled", "error", err)
			return
		}
		up := k.m.upstreams[t.Upstream]
		if up == nil || !k.keeps(up) || !t.Pulled {
			continue
		}
		image := kept{up, t.Repo, t.Digest}
		k.mu.Lock()
		if len(k.images) < maxKept {
			k.images[image] = keeping{mediaType: t.MediaType, tag: t.Tag, due: t.Touched.Add(up.KeepAlive)}
		}
		k.mu.Unlock()
	}
}

// look lists what is due, the oldest first, after it has found out when new images are.
// While facts cannot be read nothing is: without them hot images would be touched again
// and again.
func (k *toucher) look(ctx context.Context) []kept {
	k.mu.Lock()
	var fresh, due []kept
	now := time.Now()
	for image, i := range k.images {
		if i.due.IsZero() {
			fresh = append(fresh, image)
		}
	}
	k.mu.Unlock()
	for _, image := range fresh {
		k.arrange(ctx, image)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for image, i := range k.images {
		if !i.due.IsZero() && meta.Age(now, i.due.Add(-image.up.KeepAlive)) >= image.up.KeepAlive {
			due = append(due, image)
		}
	}
	slices.SortFunc(due, func(a, b kept) int { return k.images[a].due.Compare(k.images[b].due) })
	return due
}

// arrange finds out when a new image is due, and puts on record that it was pulled.
func (k *toucher) arrange(ctx context.Context, image kept) {
	fact, err := k.touches.Get(ctx, image.up.Name, image.repo, image.digest)
	if err != nil && !errors.Is(err, meta.ErrNotFound) {
		return
	}
	k.mu.Lock()
	i, there := k.images[image]
	if there {
		i.due = cmp.Or(fact.Touched, time.Now().Add(-image.up.KeepAlive)).Add(image.up.KeepAlive)
		k.images[image] = i
	}
	k.mu.Unlock()
	if there && err == nil && !fact.Pulled {
		fact.Pulled, fact.MediaType, fact.Tag = true, i.mediaType, cmp.Or(i.tag, fact.Tag)
		k.m.recorded(k.touches.Set(ctx, image.up.Name, image.repo, image.digest, fact))
	}
}

// touch asks for an image, unless another mirror did so meanwhile. That it is being done
// is on record first, so that the others leave it alone. It is false where there is no use
// in asking for another image at once.
func (k *toucher) touch(ctx context.Context, image kept) bool {
	up, name := image.up, image.up.Name
	fact, err := k.touches.Get(ctx, name, image.repo, image.digest)
	if err != nil && !errors.Is(err, meta.ErrNotFound) {
		return false
	}
	k.mu.Lock()
	i, there := k.images[image]
	delete(k.images, image)
	k.mu.Unlock()
	now := time.Now()
	if !there || err == nil && meta.Age(now, fact.Touched) < up.KeepAlive {
		return true
	}
	claim := meta.TouchFact{Touched: now, MediaType: i.mediaType, Tag: i.tag}
	if err := k.touches.Set(ctx, name, image.repo, image.digest, claim); err != nil {
		k.again(image, i, now)
		k.m.recorded(err)
		return false
	}
	result := "touched"
	switch err := k.get(ctx, image, i); {
	case ctx.Err() != nil:
		result = ""
	case oci.NotFound(err):
		result = "absent"
	case err != nil:
		result = "failed"
		k.m.log.Debug("image not kept alive", "upstream", name, "repository", image.repo, "digest", image.digest, "error", err)
	}
	if result != "touched" && result != "absent" {
		// The claim is taken back, also when the mirror stops amid it.
		claim.Touched, claim.Pulled = cmp.Or(fact.Touched, now.Add(-up.KeepAlive)), true
		k.m.recorded(k.touches.Set(context.WithoutCancel(ctx), name, image.repo, image.digest, claim))
		k.again(image, i, now)
	}
	if result != "" {
		k.m.metrics.touches.WithLabelValues(name, result).Inc()
	}
	return result == "touched" || result == "absent"
}

// again puts an image off that could not be touched.
func (k *toucher) again(image kept, i keeping, now time.Time) {
	i.due = now.Add(image.up.KeepAlive / 100)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.images[image] = i
}

// get is the request: a full GET by digest, which is what counts as a pull of Amazon ECR
// by any reading of its documentation. What a registry has made to fit Accept it may not
// know by its digest: then the tag is asked for.
func (k *toucher) get(ctx context.Context, image kept, i keeping) error {
	ctx, cancel := context.WithTimeout(ctx, touchWithin)
	defer cancel()
	repo, accept := image.up.remote(image.repo).With(inBackground()), []string{i.mediaType}
	_, err := image.up.Once.Manifest(ctx, repo, oci.Reference{Digest: image.digest}, accept)
	if oci.NotFound(err) && i.tag != "" {
		man, terr := image.up.Once.Manifest(ctx, repo, oci.Reference{Tag: i.tag}, accept)
		if terr != nil || man.Digest == image.digest {
			return terr
		}
	}
	return err
}
