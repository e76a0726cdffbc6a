// Package base judges what an image is built on.
//
// An image is built on another one when its first layers are all of the other's. Layers are
// compared by their diffIDs, which stay the same when layers are compressed anew. What annotations
// and provenance declare is looked at as well, but counts only where it says what is not allowed:
// everybody can declare something.
package base

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"dray/mirror/pattern"
	"dray/mirror/pipeline"
	"dray/mirror/pipeline/attestations"
)

// Name of the stage.
const Name = "base"

// version goes up with every change of how bases are recognised.
const version = 2

// Rules of the stage. An unknown base is an outcome of its own: a squashed image, for instance,
// shows none.
const (
	RuleForbidden = "forbidden"
	RuleUnknown   = "unknown"
	RuleDeclared  = "declared"
	RuleMaterial  = "material"
)

// Known is a name of an image that others may be built on.
type Known struct {
	// Name as people write it: "docker.io/library/debian:bookworm".
	Name string
	// Upstream is the one that has it; empty for an image that is listed.
	Upstream string
}

// Catalogue has the images that are known by their layers.
type Catalogue interface {
	// Named returns the known images that consist of exactly these layers, given by their diffIDs,
	// the lowest first.
	Named(ctx context.Context, layers []digest.Digest) ([]Known, error)
}

// Image is one that is known because it is listed.
type Image struct {
	Name    string
	DiffIDs []digest.Digest
}

// Config says what is allowed.
type Config struct {
	// Allowed are patterns of names, with * for any characters. A base must match one.
	Allowed []string
	// Unknown lets images pass whose base is not in the catalogue.
	Unknown bool
	// Scratch lets images pass that have no base: all of their layers are their own, as those FROM
	// scratch, which cannot be told from an unknown base but by having at most so many layers. 0
	// lets none pass.
	Scratch int
	// Materials are patterns of images, one of which each image among the materials of provenance
	// must match. Builds take images for other ends than as a base, too, such as compilers. Empty
	// lets all pass.
	Materials []string
	// Images are known besides those of the catalogue.
	Images []Image
}

// Stage judges bases.
type Stage struct {
	config    Config
	catalogue Catalogue
}

var _ pipeline.ImageStage = (*Stage)(nil)

// New makes a stage. known may be nil: then the listed images are all.
func New(c Config, known Catalogue) (*Stage, error) {
	var errs []error
	if len(c.Allowed) == 0 && !(c.Unknown && len(c.Materials) > 0) {
		errs = append(errs, errors.New("base: nothing is allowed"))
	}
	if c.Scratch < 0 {
		errs = append(errs, errors.New("base: scratch is negative"))
	}
	for i, img := range c.Images {
		if _, err := reference.ParseDockerRef(img.Name); err != nil {
			errs = append(errs, fmt.Errorf("base: images: %q is no name of an image: %w", img.Name, err))
			continue
		}
		c.Images = slices.Clone(c.Images)
		c.Images[i].Name = full(img.Name)
		if len(img.DiffIDs) == 0 {
			errs = append(errs, fmt.Errorf("base: images: %s has no diff_ids", img.Name))
		}
		for _, d := range img.DiffIDs {
			if err := d.Validate(); err != nil {
				errs = append(errs, fmt.Errorf("base: images: %s: %q is no diffID: %w", img.Name, d, err))
			}
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return &Stage{c, known}, nil
}

// Name implements pipeline.Stage.
func (s *Stage) Name() string { return Name }

// Revision implements pipeline.Stage. It does not change with the catalogue: images are judged anew
// with each push, and only what is found in layers is remembered.
func (s *Stage) Revision() string { return pipeline.Revision(version, s.config) }

// CheckImage implements pipeline.ImageStage.
func (s *Stage) CheckImage(ctx context.Context, img *pipeline.Image) ([]pipeline.Finding, error) {
	var found []pipeline.Finding
	for _, m := range img.Images() {
		if m.Config == nil {
			continue
		}
		where := img.Place(m)
		fs, err := s.judge(ctx, img, m, where)
		if err != nil {
			return found, err
		}
		found = append(found, fs...)
		found = append(found, s.declared(img, m, where)...)
	}
	return found, nil
}

// judge finds the longest known image that this one begins with. Shorter ones do not count: what it
// is built on may itself be built on something.
func (s *Stage) judge(ctx context.Context, img *pipeline.Image, m *pipeline.Manifest, where pipeline.Place) ([]pipeline.Finding, error) {
	ids := m.Config.RootFS.DiffIDs
	if len(ids) == 0 {
		return nil, nil
	}
	if i := differs(m, ids); i >= 0 {
		return []pipeline.Finding{{
			Rule: RuleUnknown, What: "its configuration names other layers than it has, so nobody can tell what it is built on", Where: img.LayerPlace(m, i), Fix: "build and push the image again",
		}}, nil
	}
	known, err := s.longest(ctx, img.Upstream, ids)
	if err != nil {
		return nil, err
	}
	if len(known) == 0 {
		if s.config.Unknown || len(ids) <= s.config.Scratch {
			return nil, nil
		}
		return []pipeline.Finding{{
			Rule: RuleUnknown, What: "its base image is not known: its lowest layers are those of no image that was pulled through here or is listed", Where: where,
			Fix: "build on an allowed image, pulled through this mirror and not squashed: " + strings.Join(s.config.Allowed, ", "),
		}}, nil
	}
	var names []string
	for _, k := range known {
		if s.allowed(k.Name) {
			return nil, nil // the same image under a name that is allowed
		}
		names = append(names, k.Name)
	}
	slices.Sort(names)
	return []pipeline.Finding{{
		Rule: RuleForbidden, What: fmt.Sprintf("it is built on %s, which is not allowed", names[0]), Where: where,
		Fix: "allowed are: " + strings.Join(s.config.Allowed, ", "),
	}}, nil
}

// longest finds the names of the longest known image. What the upstream has of exactly these layers
// is no base: it is this image, pushed before.
func (s *Stage) longest(ctx context.Context, to string, ids []digest.Digest) ([]Known, error) {
	for n := len(ids); n > 0; n-- {
		known, err := s.named(ctx, ids[:n])
		if err != nil {
			return nil, err
		}
		if n == len(ids) {
			known = slices.DeleteFunc(known, func(k Known) bool { return k.Upstream != "" && k.Upstream == to })
		}
		if len(known) > 0 {
			return known, nil
		}
	}
	return nil, nil
}

func (s *Stage) named(ctx context.Context, layers []digest.Digest) (known []Known, err error) {
	if s.catalogue != nil {
		known, err = s.catalogue.Named(ctx, layers)
	}
	for _, img := range s.config.Images {
		if slices.Equal(img.DiffIDs, layers) {
			known = append(known, Known{Name: img.Name})
		}
	}
	return known, err
}

// differs finds a layer whose content, where somebody has looked at it, is not what the
// configuration says; -1 for none. Without this anybody could claim the layers of an allowed base.
// (Clients refuse to unpack such an image, but only some.)
func differs(m *pipeline.Manifest, ids []digest.Digest) int {
	if len(m.Layers) != len(ids) {
		return len(m.Layers) - 1
	}
	for i, l := range m.Layers {
		if l.Seen && l.DiffID != "" && l.DiffID.Algorithm() == ids[i].Algorithm() && l.DiffID != ids[i] {
			return i
		}
	}
	return -1
}

func (s *Stage) allowed(name string) bool {
	return pattern.Any(s.config.Allowed, name)
}

// declared looks at what is said of the base: the annotation of the image specification, and the
// images among the materials of provenance.
func (s *Stage) declared(img *pipeline.Image, m *pipeline.Manifest, where pipeline.Place) []pipeline.Finding {
	var found []pipeline.Finding
	for _, from := range []map[string]string{m.Annotations, m.Given} {
		if name := full(from[v1.AnnotationBaseImageName]); name != "" && !s.allowed(name) {
			found = append(found, pipeline.Finding{
				Rule: RuleDeclared, What: fmt.Sprintf("an annotation declares the base image %s, which is not allowed", name), Where: where,
				Fix: "allowed are: " + strings.Join(s.config.Allowed, ", "),
			})
		}
	}
	if len(s.config.Materials) == 0 {
		return found
	}
	for _, name := range materials(attestations.About(img, m).Materials) {
		if !pattern.Any(s.config.Materials, name) {
			found = append(found, pipeline.Finding{
				Rule: RuleMaterial, What: fmt.Sprintf("its provenance declares that it is made from %s, which is not allowed", name), Where: where,
				Fix: "allowed are: " + strings.Join(s.config.Materials, ", "),
			})
		}
	}
	return found
}

// materials are the images among package URLs (the purl specification, type docker):
// "pkg:docker/alpine@3.20?platform=linux%2Famd64".
func materials(uris []string) []string {
	var names []string
	for _, uri := range uris {
		name, ok := strings.CutPrefix(uri, "pkg:docker/")
		if !ok {
			continue
		}
		name, _, _ = strings.Cut(name, "?")
		path, version, versioned := strings.Cut(name, "@")
		path, err := url.PathUnescape(path)
		if err != nil {
			continue
		}
		if version, err = url.PathUnescape(version); err != nil {
			continue
		}
		switch {
		case versioned && strings.Contains(version, ":"):
			path += "@" + version
		case versioned:
			path += ":" + version
		}
		names = append(names, full(path))
	}
	return names
}

// full is the whole name of an image that may be written as Docker lets people write it; what is no
// name stays as it is.
func full(name string) string {
	if name == "" {
		return ""
	}
	ref, err := reference.ParseDockerRef(name)
	if err != nil {
		return name
	}
	return ref.String()
}
