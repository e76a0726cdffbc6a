// Package base judges the base of an image.
//
// An image is based on another image if its first layers are the layers of the other image. Layers
// are compared by their diffIDs, which do not depend on their compression. Annotations and
// provenance are used only to find forbidden images, because anyone can declare an allowed image.
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

// version is increased with every change of the way in which bases are recognised.
const version = 2

// Rules of the stage. RuleUnknown is for an image whose base is not known. For example, a squashed
// image shows none of its base's layers.
const (
	RuleForbidden = "forbidden"
	RuleUnknown   = "unknown"
	RuleDeclared  = "declared"
	RuleMaterial  = "material"
)

// Known is a name of a known image.
type Known struct {
	// Name is written in full: "docker.io/library/debian:bookworm".
	Name string
	// Upstream names the upstream that has the image; empty for an image of Config.Images.
	Upstream string
}

// Catalogue finds images by their layers.
type Catalogue interface {
	// Named returns the known images that have exactly these layers. layers has their diffIDs,
	// starting with the lowest layer.
	Named(ctx context.Context, layers []digest.Digest) ([]Known, error)
}

// Image is a known image that dray's configuration lists.
type Image struct {
	Name    string
	DiffIDs []digest.Digest
}

// Config holds the allowed bases.
type Config struct {
	// Allowed are patterns of names in which * matches any characters. A base must match one of them.
	Allowed []string
	// Unknown lets images pass although their base is not known.
	Unknown bool
	// Scratch is the largest number of layers with which an image without a known base passes. It is
	// for images FROM scratch: only their number of layers distinguishes them from images with an
	// unknown base. 0 means that none of these images passes.
	Scratch int
	// Materials are patterns of images. Each image among the materials of the provenance must match
	// one of them. Allowed does not apply to materials, because builds also use images that are no
	// bases, such as compilers. An empty list lets all pass.
	Materials []string
	// Images are known images besides those of the catalogue.
	Images []Image
}

// Stage judges bases.
type Stage struct {
	config    Config
	catalogue Catalogue
}

var _ pipeline.ImageStage = (*Stage)(nil)

// New makes a stage. If catalogue is nil, only c.Images are known.
func New(c Config, catalogue Catalogue) (*Stage, error) {
	var errs []error
	if len(c.Allowed) == 0 && !(c.Unknown && len(c.Materials) > 0) {
		errs = append(errs, errors.New("base: no base image is allowed; set images, names or scratch"))
	}
	if c.Scratch < 0 {
		errs = append(errs, errors.New("base: scratch is negative"))
	}
	for i, img := range c.Images {
		if _, err := reference.ParseDockerRef(img.Name); err != nil {
			errs = append(errs, fmt.Errorf("base: images: %q is not the name of an image: %w", img.Name, err))
			continue
		}
		c.Images = slices.Clone(c.Images)
		c.Images[i].Name = fullName(img.Name)
		if len(img.DiffIDs) == 0 {
			errs = append(errs, fmt.Errorf("base: images: %s has no diff_ids", img.Name))
		}
		for _, d := range img.DiffIDs {
			if err := d.Validate(); err != nil {
				errs = append(errs, fmt.Errorf("base: images: %s: %q is not a diffID: %w", img.Name, d, err))
			}
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return &Stage{c, catalogue}, nil
}

// Name implements pipeline.Stage.
func (s *Stage) Name() string { return Name }

// Revision implements pipeline.Stage. It does not change with the catalogue, because the revision
// only invalidates remembered results for layers. Images are judged at every push.
func (s *Stage) Revision() string { return pipeline.Revision(version, s.config) }

// CheckImage implements pipeline.ImageStage.
func (s *Stage) CheckImage(ctx context.Context, img *pipeline.Image) ([]pipeline.Finding, error) {
	var found []pipeline.Finding
	for _, m := range img.Images() {
		if m.Config == nil {
			continue
		}
		where := img.Place(m)
		fs, err := s.checkBase(ctx, img, m, where)
		if err != nil {
			return found, err
		}
		found = append(found, fs...)
		found = append(found, s.checkDeclared(img, m, where)...)
	}
	return found, nil
}

// checkBase judges the base: the largest known image whose layers are the first layers of this
// image. Smaller known images do not count, because they may be bases of that base.
func (s *Stage) checkBase(ctx context.Context, img *pipeline.Image, m *pipeline.Manifest, where pipeline.Place) ([]pipeline.Finding, error) {
	ids := m.Config.RootFS.DiffIDs
	if i := mismatch(m, ids); i >= 0 {
		what, fix := "the layers in the configuration are not those of the manifest, so the base image is unknown", "build and push the image again"
		if i < len(m.Layers) {
			where = img.LayerPlace(m, i)
			if m.Layers[i].Partial() {
				what, fix = "the checks could not read the whole layer, so the base image is unknown", "build a layer that the stage archive accepts without a waiver"
			}
		}
		return []pipeline.Finding{{Rule: RuleUnknown, What: what, Where: where, Fix: fix}}, nil
	}
	if len(ids) == 0 {
		return nil, nil
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
			Rule: RuleUnknown, What: "unknown base image: the lowest layers are not those of a listed image or of one that was pulled through this mirror", Where: where,
			Fix: "build on one of the allowed images, pulled through this mirror and not squashed: " + strings.Join(s.config.Allowed, ", "),
		}}, nil
	}
	var names []string
	for _, k := range known {
		if s.allowed(k.Name) {
			return nil, nil // one allowed name is enough, because all names belong to the same image
		}
		names = append(names, k.Name)
	}
	slices.Sort(names)
	return []pipeline.Finding{{
		Rule: RuleForbidden, What: fmt.Sprintf("the image is built on %s, which is not allowed", names[0]), Where: where,
		Fix: "allowed are: " + strings.Join(s.config.Allowed, ", "),
	}}, nil
}

// longest returns the names of the largest known image whose layers are the first layers in ids. If
// a known image has exactly the layers in ids, and is at the upstream of the push, it is no base:
// it is this image, from an earlier push.
func (s *Stage) longest(ctx context.Context, upstream string, ids []digest.Digest) ([]Known, error) {
	for n := len(ids); n > 0; n-- {
		known, err := s.named(ctx, ids[:n])
		if err != nil {
			return nil, err
		}
		if n == len(ids) {
			known = slices.DeleteFunc(known, func(k Known) bool { return k.Upstream != "" && k.Upstream == upstream })
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

// mismatch returns the index of the first layer for which the manifest and the configuration
// disagree, or -1. They disagree if only one of them has a layer with this index. They also
// disagree if the checks computed a diffID that differs from the one in the configuration, or began
// to read the layer and stopped before its end. Without this check, a configuration could claim the
// diffIDs of an allowed base for other layers, and some clients would unpack these layers.
func mismatch(m *pipeline.Manifest, ids []digest.Digest) int {
	for i := range max(len(m.Layers), len(ids)) {
		if i >= len(m.Layers) || i >= len(ids) {
			return i
		}
		if l := m.Layers[i]; l.Seen && (l.Partial() || l.DiffID != "" && l.DiffID.Algorithm() == ids[i].Algorithm() && l.DiffID != ids[i]) {
			return i
		}
	}
	return -1
}

func (s *Stage) allowed(name string) bool {
	return pattern.Any(s.config.Allowed, name)
}

// checkDeclared checks what is declared about an image: its base, by the annotation of the image
// specification, and the images among the materials of its provenance.
func (s *Stage) checkDeclared(img *pipeline.Image, m *pipeline.Manifest, where pipeline.Place) []pipeline.Finding {
	var found []pipeline.Finding
	for _, from := range []map[string]string{m.Annotations, m.DescriptorAnnotations} {
		if name := fullName(from[v1.AnnotationBaseImageName]); name != "" && !s.allowed(name) {
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
				Rule: RuleMaterial, What: fmt.Sprintf("the provenance declares the material %s, which is not allowed", name), Where: where,
				Fix: "allowed are: " + strings.Join(s.config.Materials, ", "),
			})
		}
	}
	return found
}

// materials returns the images among package URLs (the purl specification, type docker), such as
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
		names = append(names, fullName(path))
	}
	return names
}

// fullName expands an image name as Docker does. It returns an invalid name unchanged.
func fullName(name string) string {
	if name == "" {
		return ""
	}
	ref, err := reference.ParseDockerRef(name)
	if err != nil {
		return name
	}
	return ref.String()
}
