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
	pulls    int
	lastPull time.Time
}

// layer is a blob in one repository. Repositories share its bytes.
type layer struct {
	digest   digest.Digest
	size     int64
	object   string // name of the object in the store
	media    string // from the first manifest that named it
	named    int    // number of images that name it
	isConfig bool
}

// arn returns the ARN of a repository.
func (g *registry) arn(repo string) string {
	return "arn:aws:ecr:" + g.region + ":" + g.account + ":repository/" + repo
}

func newRepository(name, id string, now time.Time) *repository {
	return &repository{
		name: name, id: id, created: now, mutability: "MUTABLE", encryption: encryption{Type: "AES256"},
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

// put stores an image, and marks its layers as named.
func (r *repository) put(doc *document, tag string, now time.Time) *image {
	img, ok := r.images[doc.digest]
	if !ok {
		img = &image{doc: doc, pushed: now}
		r.images[doc.digest] = img
		for _, b := range doc.blobs {
			if l, ok := r.layers[b.Digest]; ok {
				l.named++
				l.isConfig = l.isConfig || b.config
				if l.media == "" {
					l.media = b.MediaType
				}
			}
		}
	}
	if tag != "" {
		r.tags[tag] = doc.digest
	}
	return img
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
	for _, b := range img.doc.blobs {
		if l, ok := r.layers[b.Digest]; ok {
			l.named--
		}
	}
}
