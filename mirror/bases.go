package mirror

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"time"

	"dray/cache/meta"
	"dray/mirror/flight"
	"dray/upstream/oci"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/opencontainers/go-digest"
)

// Checks of what an image is built on need to know images by their layers. The learner takes them from what clients pull and push: the name
// by which they asked, and the diffIDs in the configuration, which they fetch right after the manifest. It asks no upstream for anything.

const (
	// relearnAfter is how long a name is not looked at again.
	relearnAfter = 24 * time.Hour
	// maxLessons bounds what is remembered as learnt, and the indexes' children whose names are remembered.
	maxLessons = 8192
	// maxUnlearnt bounds what waits to be learnt. What finds no place is learnt with a later pull.
	maxUnlearnt = 1024
	// maxImageNames bounds the names of an index's child.
	maxImageNames = 16
	// maxImageChildren bounds the children of an index that get its name.
	maxImageChildren = 512
	// maxConfigBytes and maxImageLayers bound what is taken for an image.
	maxConfigBytes = 4 << 20
	maxImageLayers = 512
)

// learnPauses are how long the learner waits for a configuration that is not held yet, before each further look.
var learnPauses = []time.Duration{100 * time.Millisecond, 2 * time.Second, 15 * time.Second, time.Minute, 5 * time.Minute}

// lesson is a name that means an image.
type lesson struct {
	up        *Upstream
	repo, ref string
	digest    digest.Digest
}

// unlearnt is a lesson on its way.
type unlearnt struct {
	lesson
	mediaType string
	// names are what the image is called; empty while nobody has looked.
	names []string
}

// learner learns images. A nil one learns nothing.
type learner struct {
	m        *Mirror
	bases    *meta.Bases
	learnt   *lru.Cache[lesson, time.Time]
	lessons  *flight.Jobs[unlearnt]
	children *lru.Cache[digest.Digest, []string] // names of indexes by their children
}

func newLearner(m *Mirror, bases *meta.Bases) *learner {
	if bases == nil {
		return nil
	}
	learnt, _ := lru.New[lesson, time.Time](maxLessons) // they fail for sizes below 1 only
	children, _ := lru.New[digest.Digest, []string](maxLessons)
	return &learner{m: m, bases: bases, learnt: learnt, lessons: flight.NewJobs[unlearnt](maxUnlearnt), children: children}
}

// saw notes what a reference means. It never waits.
func (l *learner) saw(up *Upstream, repo string, ref oci.Reference, mediaType string, d digest.Digest) {
	if l == nil {
		return
	}
	s := lesson{up, repo, ref.String(), d}
	if at, known := l.learnt.Get(s); known && time.Since(at) < relearnAfter {
		return
	}
	l.learnt.Add(s, time.Now())
	if !l.lessons.Add(unlearnt{lesson: s, mediaType: mediaType}) {
		l.learnt.Remove(s)
	}
}

// run learns until ctx ends.
func (l *learner) run(ctx context.Context) { l.lessons.Run(ctx, l.learn) }

func (l *learner) learn(ctx context.Context, c flight.Job[unlearnt]) {
	u := &c.Value
	raw, err := l.m.cache.Peek(ctx, u.digest, oci.MaxManifestBytes)
	if err != nil {
		l.postpone(c)
		return
	}
	man, err := oci.ParseManifest(u.mediaType, raw)
	if err != nil {
		return
	}
	if len(u.names) == 0 {
		u.names = l.names(u.lesson)
	}
	if man.Index() {
		l.index(ctx, *u, man)
		return
	}
	l.image(ctx, c, man)
}

// names are what people call an image that was asked for: by its tag, by the tag of its index, or else by its digest.
func (l *learner) names(s lesson) []string {
	name := cmp.Or(s.up.Public, s.up.Registry) + "/" + s.up.remote(s.repo).Name
	if s.ref != s.digest.String() {
		return []string{name + ":" + s.ref}
	}
	if names, ok := l.children.Get(s.digest); ok {
		return names
	}
	return []string{name + "@" + s.digest.String()}
}

// index gives the name of an index to its children: those that are held, and those that will be asked for.
func (l *learner) index(ctx context.Context, u unlearnt, man *oci.Manifest) {
	seen := map[digest.Digest]bool{}
	for _, c := range man.Children() {
		if !c.Manifest || seen[c.Digest] || len(seen) >= maxImageChildren {
			continue
		}
		seen[c.Digest] = true
		known, _ := l.children.Get(c.Digest)
		names := slices.Clone(u.names)
		for _, n := range known {
			if !slices.Contains(names, n) && len(names) < maxImageNames {
				names = append(names, n)
			}
		}
		l.children.Add(c.Digest, names)
		if image := c.MediaType == oci.MediaTypeOCIManifest || c.MediaType == oci.MediaTypeDockerManifest; image && l.m.held(ctx, u.up, u.repo, c.Digest) != nil {
			l.learn(ctx, flight.Job[unlearnt]{Value: unlearnt{lesson{u.up, u.repo, c.Digest.String(), c.Digest}, c.MediaType, u.names}})
		} else {
			l.learnt.Remove(lesson{u.up, u.repo, c.Digest.String(), c.Digest}) // it has got a name more
		}
	}
}

// image records the names of an image under its layers.
func (l *learner) image(ctx context.Context, c flight.Job[unlearnt], man *oci.Manifest) {
	u := c.Value
	if man.Config == nil || !oci.ImageConfig(man.Config.MediaType) {
		return
	}
	raw, err := l.m.cache.Peek(ctx, man.Config.Digest, maxConfigBytes)
	if err != nil {
		l.postpone(c)
		return
	}
	layers := diffIDs(raw)
	if len(layers) == 0 || len(layers) > maxImageLayers {
		return
	}
	for _, n := range u.names {
		err := l.bases.Learn(ctx, layers, meta.BaseName{Name: n, Upstream: u.up.Name, Seen: time.Now()})
		l.m.recorded(err)
		if err != nil {
			l.learnt.Remove(u.lesson)
			return
		}
	}
	l.m.metrics.bases.WithLabelValues(u.up.Name).Inc()
}

// postpone waits for what is not held yet, a few times. A later pull begins anew.
func (l *learner) postpone(c flight.Job[unlearnt]) {
	if !l.lessons.Retry(c, learnPauses) {
		l.learnt.Remove(c.Value.lesson)
	}
}

// diffIDs are those of a configuration; none of one that has something else in their place.
func diffIDs(config []byte) []digest.Digest {
	var c struct {
		RootFS struct {
			DiffIDs []digest.Digest `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if json.Unmarshal(config, &c) != nil {
		return nil
	}
	for _, d := range c.RootFS.DiffIDs {
		if d.Validate() != nil {
			return nil
		}
	}
	return c.RootFS.DiffIDs
}
