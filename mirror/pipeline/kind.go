package pipeline

import (
	"reflect"
	"slices"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"dray/upstream/oci"
)

// Kinds of a manifest.
const (
	KindImage = "image"
	KindIndex = "index"
	// KindAttestation is a manifest of BuildKit that describes another manifest of the same index.
	KindAttestation = "attestation"
	// KindArtifact is any other manifest, such as a signature, an SBOM or a chart.
	KindArtifact = "artifact"
)

// kindOf returns the kind of a manifest as runtimes treat it. The contents decide, because some
// runtimes unpack layers of any media type, and some tools give signatures the configuration of an
// image. A manifest with the configuration of an image can be run if it has no layers, or if
// runtimes unpack them. It can be run even if it has a subject, an artifact type, or an annotation
// in the index.
func kindOf(m *Manifest) string {
	image := m.Config != nil && m.Config.ofImage
	attests := m.DescriptorAnnotations["vnd.docker.reference.type"] == "attestation-manifest"
	switch {
	case image && (len(m.Layers) == 0 || m.unpacks()):
		return KindImage
	case attests, image && slices.ContainsFunc(m.Layers, func(l *LayerView) bool {
		return strings.HasPrefix(l.MediaType, "application/vnd.in-toto") // an attestation that is pushed before its index
	}):
		return KindAttestation
	}
	return KindArtifact
}

// unpacks reports whether a runtime would unpack layers of the manifest. Runtimes that accept only
// the media types of images unpack each layer that has such a type. Other runtimes unpack all
// layers or none.
func (m *Manifest) unpacks() bool {
	if oci.ImageConfig(m.Config.MediaType) {
		return slices.ContainsFunc(m.Layers, (*LayerView).unpacks)
	}
	return !slices.ContainsFunc(m.Layers, func(l *LayerView) bool { return !l.unpacks() })
}

// unpacks reports whether a runtime may unpack the layer. A layer that was not walked counts as one
// that may be unpacked.
func (l *LayerView) unpacks() bool {
	return !l.Seen || l.Format != FormatOther || l.encrypted()
}

// encrypted reports whether the layer's media type says that it is encrypted (ocicrypt,
// "Encryption and decryption of container images").
func (l *LayerView) encrypted() bool { return strings.HasSuffix(l.MediaType, "+encrypted") }

// impliedConfig reports whether Docker takes a blob of this media type for the configuration of an
// image, although the type does not say so. Registries used to send configurations with these types
// (moby, distribution: ImageTypes).
func impliedConfig(t string) bool {
	return t == "" || t == "application/octet-stream" || t == "application/json" || t == "text/html"
}

// describesImage reports whether a runtime takes a configuration for that of an image. containerd
// 1.6 and Podman read a configuration of any media type, and need a list of layers or settings in
// it. Tools that make artifacts with the libraries for images also write a list of layers into it,
// but neither settings nor an operating system (Flux, Docker Model Runner).
func describesImage(mediaType string, image v1.Image) bool {
	if oci.ImageConfig(mediaType) || !reflect.DeepEqual(image.Config, v1.ImageConfig{}) {
		return true
	}
	return len(image.RootFS.DiffIDs) > 0 && (image.OS != "" || impliedConfig(mediaType))
}
