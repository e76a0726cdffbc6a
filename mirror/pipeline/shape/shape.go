// Package shape judges an image by its sizes, its number of layers, its platforms and its media
// types.
package shape

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"dray/mirror/pattern"
	"dray/mirror/pipeline"
)

// Name is the name of the stage.
const Name = "shape"

// version is increased with every change of the code that affects which images pass.
const version = 1

// Config holds the bounds of images. Zero means no bound.
type Config struct {
	// MaxBytes bounds one image as stored, with its configuration and layers. MaxLayerBytes bounds one
	// layer.
	MaxBytes, MaxLayerBytes int64
	// MaxUncompressed bounds the uncompressed bytes of all layers of one image.
	MaxUncompressed int64
	// MaxLayers bounds the number of layers of one image.
	MaxLayers int
	// MaxManifestBytes bounds one manifest or index.
	MaxManifestBytes int64
	// Required are platforms that an image must have, such as "linux/arm64". For "linux/arm", an image
	// of any variant is enough. A manifest that waits for its index need not have them.
	Required []string
	// Platforms are the platforms that images may have. An empty list allows all.
	Platforms []string
	// MediaTypes are patterns for the media types of manifests and layers. An empty list allows all.
	MediaTypes []string
	// Foreign allows foreign layers, and other layers with URLs.
	Foreign bool
}

// Stage implements [pipeline.ImageStage].
type Stage struct{ config Config }

var _ pipeline.ImageStage = (*Stage)(nil)

// New makes a stage.
func New(c Config) *Stage { return &Stage{c} }

// Name implements pipeline.Stage.
func (*Stage) Name() string { return Name }

// Revision implements pipeline.Stage.
func (s *Stage) Revision() string { return pipeline.Revision(version, s.config) }

// CheckImage implements pipeline.ImageStage.
func (s *Stage) CheckImage(_ context.Context, img *pipeline.Image) ([]pipeline.Finding, error) {
	var found []pipeline.Finding
	for _, m := range img.Manifests {
		found = append(found, s.checkManifest(img, m)...)
		for i := range m.Layers {
			found = append(found, s.checkLayer(img, m, i)...)
		}
	}
	found = append(found, s.checkRequired(img)...)
	return found, s.checkSeen(img)
}

func (s *Stage) checkManifest(img *pipeline.Image, m *pipeline.Manifest) (found []pipeline.Finding) {
	add := func(rule, fix, format string, args ...any) {
		found = append(found, pipeline.Finding{Rule: rule, What: fmt.Sprintf(format, args...), Where: img.Place(m), Fix: fix})
	}
	c := s.config
	if c.MaxManifestBytes > 0 && m.Size > c.MaxManifestBytes {
		add("manifest-size", "use fewer layers and annotations", "the manifest has %s", over(m.Size, c.MaxManifestBytes))
	}
	if len(c.MediaTypes) > 0 && !pattern.Any(c.MediaTypes, m.MediaType) {
		add("media-type", "build the image in an allowed format", "the media type %s is not allowed", m.MediaType)
	}
	if m.Kind != pipeline.KindImage {
		return found
	}
	if c.MaxBytes > 0 && m.TotalSize > c.MaxBytes {
		add("size", "remove files that the image does not need at run time", "the image has %s", over(m.TotalSize, c.MaxBytes))
	}
	if c.MaxLayers > 0 && len(m.Layers) > c.MaxLayers {
		add("layers", "combine build steps", "the image has %d layers, and the limit is %d", len(m.Layers), c.MaxLayers)
	}
	if total := uncompressed(m); c.MaxUncompressed > 0 && total > c.MaxUncompressed {
		add("uncompressed", "remove files that the image does not need at run time", "the image without compression has %s", over(total, c.MaxUncompressed))
	}
	if len(c.Platforms) > 0 && !slices.ContainsFunc(c.Platforms, func(p string) bool { return sameOrVariant(m.Platform, p) }) {
		add("platform", "build it for "+strings.Join(c.Platforms, " or "), "the platform %s is not allowed", cmp.Or(m.Platform, "(none is given)"))
	}
	return found
}

func (s *Stage) checkLayer(img *pipeline.Image, m *pipeline.Manifest, i int) (found []pipeline.Finding) {
	l := m.Layers[i]
	add := func(rule, fix, format string, args ...any) {
		found = append(found, pipeline.Finding{Rule: rule, What: fmt.Sprintf(format, args...), Where: img.LayerPlace(m, i), Fix: fix})
	}
	c := s.config
	if c.MaxLayerBytes > 0 && l.Size > c.MaxLayerBytes {
		add("layer-size", "split the layer, or remove files that the image does not need at run time", "the layer has %s", over(l.Size, c.MaxLayerBytes))
	}
	if len(c.MediaTypes) > 0 && !pattern.Any(c.MediaTypes, l.MediaType) {
		add("media-type", "build the image in an allowed format", "the media type %s is not allowed", l.MediaType)
	}
	if !c.Foreign && (l.Foreign || len(l.URLs) > 0) {
		add("foreign", "push the layer to this repository", "the layer is a foreign layer, which clients fetch from another place")
	}
	return found
}

// checkRequired finds missing platforms. An image that is pushed without an index has only one
// platform, so any other required platform is missing.
func (s *Stage) checkRequired(img *pipeline.Image) (found []pipeline.Finding) {
	images := img.Images()
	if img.Part || len(images) == 0 {
		return nil
	}
	for _, want := range s.config.Required {
		if !slices.ContainsFunc(images, func(m *pipeline.Manifest) bool { return sameOrVariant(m.Platform, want) }) {
			found = append(found, pipeline.Finding{Rule: "required-platform", What: "the platform " + want + " is missing", Where: img.Place(img.Root()), Fix: "build it for all of " + strings.Join(s.config.Required, ", ")})
		}
	}
	return found
}

// checkSeen returns an error if MaxUncompressed is set but dray has not scanned every layer: the
// uncompressed size is then unknown. Foreign layers need no scan.
func (s *Stage) checkSeen(img *pipeline.Image) error {
	if s.config.MaxUncompressed <= 0 {
		return nil
	}
	for _, m := range img.Images() {
		for _, l := range m.Layers {
			if !l.Seen && !l.Foreign {
				return fmt.Errorf("layer %s was not read, so its uncompressed size is unknown", l.Digest)
			}
		}
	}
	return nil
}

func uncompressed(m *pipeline.Manifest) (total int64) {
	for _, l := range m.Layers {
		total += l.Uncompressed
	}
	return total
}

// sameOrVariant reports whether two platforms are equal, or the first is a variant of the second.
func sameOrVariant(platform, of string) bool {
	return platform == of || strings.HasPrefix(platform, of+"/")
}

// over formats a size and the limit that it exceeds. If both would be rounded to the same text,
// over gives them in bytes.
func over(size, limit int64) string {
	is, allowed := formatBytes(size), formatBytes(limit)
	if is == allowed {
		is, allowed = fmt.Sprintf("%d bytes", size), fmt.Sprintf("%d bytes", limit)
	}
	return is + ", and the limit is " + allowed
}

// formatBytes formats a size for people.
func formatBytes(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%d bytes", n)
}
