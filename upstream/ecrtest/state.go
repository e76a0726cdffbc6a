package ecrtest

import (
	"time"

	"github.com/opencontainers/go-digest"
)

// registry is the private registry of one account in one region. Server.mu guards it and
// everything in it.
type registry struct {
	account, region string
	repos           map[string]*repository
	settings        map[string]string
}

type repository struct {
	name, id     string
	created      time.Time
	visible      time.Time // the time from which requests find the repository
	mutability   string
	exclusions   []exclusion
	scanOnPush   bool
	encryption   encryption
	resourceTags []resourceTag
	lifecycle    string
	policy       string
	pullThrough  bool

	images map[digest.Digest]*image
	tags   map[string]digest.Digest
	layers map[digest.Digest]*layer
}

type exclusion struct {
	Type   string `json:"filterType"`
	Filter string `json:"filter"`
}

type encryption struct {
	Type string `json:"encryptionType"`
	Key  string `json:"kmsKey,omitempty"`
}

type resourceTag struct {
	Key   string `json:"Key"`
	Value string `json:"Value"`
}

type image struct {
	doc      *document
	pushed   time.Time
	archived bool
	moved    time.Time // when the image was moved to or from the archive; zero means never
	pulls    int
	lastPull time.Time
}

// layer is a blob in one repository. The layers of one digest share a file for their bytes.
type layer struct {
	digest   digest.Digest
	size     int64
	object   string // name of the layer in the object store: the last part of its path there
	media    string // media type in the first manifest that named the layer
	named    int    // number of images that name the layer
	active   int    // number of images that name the layer and are not archived
	isConfig bool
	remote   string // URL of the blob at the upstream of a pull-through rule; empty once the bytes are here
}

// [layer.archived] reports whether only archived images name the layer.
func (l *layer) archived() bool { return l.named > 0 && l.active == 0 }

// find finds a repository that requests can see at a given time.
func (g *registry) find(name string, now time.Time) (*repository, bool) {
	r, ok := g.repos[name]
	return r, ok && !now.Before(r.visible)
}

func (g *registry) arn(repo string) string {
	return "arn:aws:ecr:" + g.region + ":" + g.account + ":repository/" + repo
}

func newRepository(name, id string, now time.Time) *repository {
	return &repository{
		name: name, id: id, created: now, visible: now, mutability: "MUTABLE", encryption: encryption{Type: "AES256"},
		images: map[digest.Digest]*image{}, tags: map[string]digest.Digest{}, layers: map[digest.Digest]*layer{},
	}
}

// immutable reports whether a tag must not be moved.
func (r *repository) immutable(tag string) bool {
	excluded := false
	for _, x := range r.exclusions {
		excluded = excluded || wildcard(x.Filter, tag)
	}
	switch r.mutability {
	case "IMMUTABLE":
		return true
	case "IMMUTABLE_WITH_EXCLUSION":
		return !excluded
	case "MUTABLE_WITH_EXCLUSION":
		return excluded
	}
	return false
}

// find finds an image by tag or digest.
func (r *repository) find(tag string, d digest.Digest) (*image, bool) {
	if tag != "" {
		d = r.tags[tag] // empty for an unknown tag, and no image has the empty digest
	}
	img, ok := r.images[d]
	return img, ok
}

// put stores an image. If the image is new, put counts it in its layers. If the image is archived,
// put restores it (ECR guide, archive-image).
func (r *repository) put(doc *document, tag string, now time.Time) *image {
	img, ok := r.images[doc.digest]
	if !ok {
		img = &image{doc: doc, pushed: now}
		r.images[doc.digest] = img
		r.count(img, 1, 1)
	}
	r.archive(img, false, now)
	if tag != "" {
		r.tags[tag] = doc.digest
	}
	return img
}

// count adds namedDelta to layer.named, and activeDelta to layer.active, in each layer of img.
func (r *repository) count(img *image, namedDelta, activeDelta int) {
	for _, b := range img.doc.blobs {
		if l, ok := r.layers[b.Digest]; ok {
			l.named += namedDelta
			l.active += activeDelta
			l.isConfig = l.isConfig || b.config
			if l.media == "" {
				l.media = b.MediaType
			}
		}
	}
}

// archive moves an image to the archive class, or back.
func (r *repository) archive(img *image, archived bool, now time.Time) {
	if img.archived == archived {
		return
	}
	img.archived, img.moved = archived, now
	if archived {
		r.count(img, 0, -1)
	} else {
		r.count(img, 0, 1)
	}
}

// remove removes an image and its tags. Its layers stay.
func (r *repository) remove(d digest.Digest) {
	img, ok := r.images[d]
	if !ok {
		return
	}
	delete(r.images, d)
	for t, of := range r.tags {
		if of == d {
			delete(r.tags, t)
		}
	}
	active := -1
	if img.archived {
		active = 0
	}
	r.count(img, -1, active)
}
