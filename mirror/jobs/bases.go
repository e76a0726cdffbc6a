package jobs

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"

	"dray/cache"
	"dray/cache/meta"
	"dray/mirror/flight"
	"dray/mirror/pipeline"
	"dray/mirror/repository"
	"dray/upstream/oci"
)

// The checks of base images recognise an image by its layers. For these checks, BaseIndex records
// the names of images under their layers, when clients pull or push the images. The name is in the
// request. The layers are the diffIDs in the image's configuration, which clients fetch right after
// the manifest. BaseIndex sends no requests to upstreams.

const (
	// recordAgainAfter is the time after which a pull or push by the same name records it again.
	recordAgainAfter = 24 * time.Hour
	// maxRemembered bounds the entries of BaseIndex.remembered, and of BaseIndex.children.
	maxRemembered = 8192
	// maxQueued bounds the names that wait to be recorded. A later pull records a name that did not
	// fit.
	maxQueued = 1024
	// maxImageNames bounds the names of one child of an index.
	maxImageNames = 16
	// maxImageChildren bounds the children of an index that are recorded under its name.
	maxImageChildren = 512
	// maxImageLayers bounds the layers of one image. An image with more layers is not recorded.
	maxImageLayers = 512
)

// indexPauses are the pauses before further tries to read content that is not in the cache yet.
var indexPauses = []time.Duration{100 * time.Millisecond, 2 * time.Second, 15 * time.Second, time.Minute, 5 * time.Minute}

// nameOf is a reference that a client used for an image.
type nameOf struct {
	image repository.Key
	ref   string
}

// namedImage is an image that is being recorded.
type namedImage struct {
	nameOf
	mediaType string
	// names are the names to record; empty until they have been looked up.
	names []string
}

// BaseIndex records the names of images under their layers.
type BaseIndex struct {
	repos      *repository.Store
	cache      *cache.Cache
	images     *meta.BaseImages
	remembered *lru.Cache[nameOf, time.Time]
	queue      *flight.Jobs[namedImage]
	children   *lru.Cache[digest.Digest, []string] // names of indexes, by the digests of their children
	recorded   *prometheus.CounterVec
}

// NewBaseIndex returns a BaseIndex that writes its records to images. If images is nil, the
// BaseIndex records nothing.
func NewBaseIndex(repos *repository.Store, c *cache.Cache, images *meta.BaseImages) *BaseIndex {
	remembered, _ := lru.New[nameOf, time.Time](maxRemembered) // New fails only for sizes below 1
	children, _ := lru.New[digest.Digest, []string](maxRemembered)
	return &BaseIndex{
		repos: repos, cache: c, images: images, remembered: remembered, queue: flight.NewJobs[namedImage](maxQueued), children: children,
		recorded: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dray_base_images_recorded_total",
			Help: "Images whose layers dray recorded at a pull or a push, so that it recognises images that are built on them, by upstream."}, []string{"upstream"}),
	}
}

// Saw is called when a client has pulled or pushed an image by ref. It puts the image into the
// queue of Run, unless the queue is full or Saw did so for this ref within recordAgainAfter. Saw
// never blocks.
func (l *BaseIndex) Saw(r repository.Repo, ref oci.Reference, mediaType string, d digest.Digest) {
	if l.images == nil {
		return
	}
	s := nameOf{r.Key(d), ref.String()}
	if at, known := l.remembered.Get(s); known && time.Since(at) < recordAgainAfter {
		return
	}
	l.remembered.Add(s, time.Now())
	if !l.queue.Add(namedImage{nameOf: s, mediaType: mediaType}) {
		l.remembered.Remove(s)
	}
}

// Run records images until ctx ends.
func (l *BaseIndex) Run(ctx context.Context) {
	if l.images != nil {
		l.queue.Run(ctx, l.process)
	}
}

func (l *BaseIndex) process(ctx context.Context, c flight.Job[namedImage]) {
	u := &c.Value
	raw, err := l.cache.Peek(ctx, u.image.Digest, oci.MaxManifestBytes)
	if err != nil {
		l.postpone(c)
		return
	}
	man, err := oci.ParseManifest(u.mediaType, raw)
	if err != nil {
		return
	}
	if len(u.names) == 0 {
		u.names = l.names(u.nameOf)
	}
	if man.Index() {
		l.recordIndex(ctx, *u, man)
		return
	}
	l.recordImage(ctx, c, man)
}

// names returns the names by which users know an image. For a request by tag, it returns the
// repository's name with the tag. For a request by digest, it returns the known names of the
// indexes that list the image. If there are no such names, it returns the repository's name with
// the digest.
func (l *BaseIndex) names(s nameOf) []string {
	r := s.image.Now()
	name := cmp.Or(r.Up.Public, r.Up.Registry) + "/" + r.Remote().Name
	if s.ref != s.image.Digest.String() {
		return []string{name + ":" + s.ref}
	}
	if names, ok := l.children.Get(s.image.Digest); ok {
		return names
	}
	return []string{name + "@" + s.image.Digest.String()}
}

// recordIndex stores the names of an index as names of its children. It records the children that
// are held now. The other children are recorded when a client asks for them.
func (l *BaseIndex) recordIndex(ctx context.Context, u namedImage, man *oci.Manifest) {
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
		child := nameOf{u.image.Repo.Key(c.Digest), c.Digest.String()}
		if image := c.MediaType == oci.MediaTypeOCIManifest || c.MediaType == oci.MediaTypeDockerManifest; image && u.image.Repo.Held(ctx, c.Digest) != nil {
			l.process(ctx, flight.Job[namedImage]{Value: namedImage{nameOf: child, mediaType: c.MediaType, names: u.names}})
		} else {
			l.remembered.Remove(child) // so that a later pull records the child with the new names
		}
	}
}

// recordImage records the names of an image under its layers.
func (l *BaseIndex) recordImage(ctx context.Context, c flight.Job[namedImage], man *oci.Manifest) {
	u := c.Value
	if man.Config == nil || !oci.ImageConfig(man.Config.MediaType) {
		return
	}
	raw, err := l.cache.Peek(ctx, man.Config.Digest, pipeline.MaxConfigBytes)
	if err != nil {
		l.postpone(c)
		return
	}
	layers := diffIDs(raw)
	if len(layers) == 0 {
		return
	}
	for _, n := range u.names {
		err := l.images.Add(ctx, layers, meta.BaseName{Name: n, Upstream: u.image.Repo.Up.Name, Seen: time.Now()})
		l.repos.Recorded(err)
		if err != nil {
			l.remembered.Remove(u.nameOf)
			return
		}
	}
	l.recorded.WithLabelValues(u.image.Repo.Up.Name).Inc()
}

// postpone queues a job again, because content that the job needs is not held yet. After the last
// try, or if the queue is full, it removes the name from BaseIndex.remembered, so that a later pull
// queues the image again.
func (l *BaseIndex) postpone(c flight.Job[namedImage]) {
	if !l.queue.Retry(c, indexPauses) {
		l.remembered.Remove(c.Value.nameOf)
	}
}

// diffIDs returns the diffIDs of a configuration. It returns none if one of them is invalid, or if
// there are more than maxImageLayers.
func diffIDs(config []byte) []digest.Digest {
	var c struct {
		RootFS struct {
			DiffIDs layerNames `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if json.Unmarshal(config, &c) != nil {
		return nil
	}
	return c.RootFS.DiffIDs
}

// layerNames are diffIDs. UnmarshalJSON decodes them one by one, so that it can stop early: a
// configuration may list millions of short texts.
type layerNames []digest.Digest

// UnmarshalJSON reads a list of diffIDs, or null. It returns an error for an invalid diffID, and
// for more than maxImageLayers.
func (l *layerNames) UnmarshalJSON(list []byte) error {
	*l = nil
	texts := json.NewDecoder(bytes.NewReader(list))
	if start, err := texts.Token(); err != nil || start == nil {
		return err
	} else if start != json.Delim('[') {
		return errors.New("diff_ids is no list")
	}
	for texts.More() {
		var d digest.Digest
		if err := texts.Decode(&d); err != nil {
			return err
		}
		if err := d.Validate(); err != nil {
			return err
		}
		if len(*l) == maxImageLayers {
			return fmt.Errorf("more than %d layers", maxImageLayers)
		}
		*l = append(*l, d)
	}
	return nil
}

// Collectors returns the metrics of the index.
func (l *BaseIndex) Collectors() []prometheus.Collector {
	return []prometheus.Collector{l.recorded}
}
