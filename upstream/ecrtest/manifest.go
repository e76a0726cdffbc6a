package ecrtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"mime"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	mediaDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	mediaDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	mediaDockerSigned1  = "application/vnd.docker.distribution.manifest.v1+prettyjws"
	mediaDockerConfig   = "application/vnd.docker.container.image.v1+json"
	mediaDockerLayer    = "application/vnd.docker.image.rootfs.diff.tar"

	maxManifest = 4194304 // bytes; the limit of PutImage in the ECR model
)

// document is a manifest or index: its exact bytes and the content that it names.
type document struct {
	raw          []byte
	media        string
	digest       digest.Digest
	artifactType string
	annotations  map[string]string
	subject      digest.Digest
	blobs        []blobRef       // the config and layers of an image, which the repository must have
	children     []digest.Digest // manifests that an index names
}

type blobRef struct {
	v1.Descriptor
	config bool
}

// wireManifest has the fields of all accepted kinds of manifests.
type wireManifest struct {
	SchemaVersion int                               `json:"schemaVersion"`
	MediaType     string                            `json:"mediaType"`
	ArtifactType  string                            `json:"artifactType"`
	Config        *wireDescriptor                   `json:"config"`
	Layers        []wireDescriptor                  `json:"layers"`
	FSLayers      []struct{ BlobSum digest.Digest } `json:"fsLayers"`
	Manifests     []wireDescriptor                  `json:"manifests"`
	Subject       *wireDescriptor                   `json:"subject"`
	Annotations   map[string]string                 `json:"annotations"`
}

type wireDescriptor struct {
	v1.Descriptor
	Platform map[string]json.RawMessage `json:"platform"`
}

// The reasons why ECR's parser refuses a manifest. With the quirk StrictManifests, the server
// answers all of them with the same 405.
var (
	errSyntax    = errors.New("not JSON")
	errMedia     = errors.New("media type missing, with parameters, or not one of a manifest")
	errPlatform  = errors.New("platform has a field the parser does not know")
	errChildren  = errors.New("index names something that is not a manifest")
	errData      = errors.New("descriptor embeds data")
	errReference = errors.New("descriptor without a sound digest")
	errConfig    = errors.New("config has annotations")
	errLayers    = errors.New("image without layers")
	errOdd       = errors.New("schemaVersion, mediaType and contents do not fit")
)

// strictness says which manifests the server refuses. The server always refuses manifests that are
// not JSON or name an invalid digest. If the field strict is set, it also refuses the manifests
// that ECR's parser refuses. The other fields have an effect only if strict is set. refuseEmpty
// refuses descriptors that embed the empty JSON of artifacts. refuseData refuses descriptors that
// embed other data. refuseOdd refuses manifests whose parts contradict each other.
type strictness struct{ strict, refuseData, refuseEmpty, refuseOdd bool }

// strictness returns the strictness of the server, from its quirks and switches.
func (s *Server) strictness() strictness {
	sw := s.Switches()
	inline := sw.RefuseInlineData && s.opts.Quirks.SharedScope == "" // ECR Public accepts such data: roadmap#2023
	return strictness{s.opts.Quirks.StrictManifests, inline, sw.RefuseEmptyData, !sw.TakeOddManifests}
}

// parseDocument parses a manifest. The error is the reason why the manifest is refused.
func parseDocument(contentType string, raw []byte, how strictness) (*document, error) {
	var m wireManifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, errSyntax
	}
	media, err := mediaOf(m.MediaType, contentType, &m, how)
	if err != nil {
		return nil, err
	}
	if how.strict && how.refuseOdd && m.odd(media, contentType) {
		return nil, errOdd
	}
	doc := &document{raw: bytes.Clone(raw), media: media, digest: digest.FromBytes(raw),
		artifactType: m.ArtifactType, annotations: m.Annotations}
	if m.Subject != nil {
		if m.Subject.Digest.Validate() != nil {
			return nil, errReference
		}
		doc.subject = m.Subject.Digest
	}
	if doc.artifactType == "" && m.Config != nil {
		doc.artifactType = m.Config.MediaType
	}
	if err := doc.collect(&m, how); err != nil {
		return nil, err
	}
	return doc, nil
}

// mediaOf returns the media type that the document declares, or the Content-Type if the document
// declares none. If how.strict is set, mediaOf returns an error if this type is not a manifest
// type, or if any type, including the artifact type, has parameters. Otherwise mediaOf ignores
// types that are not manifest types, and the parameters of the Content-Type. If no type is left,
// mediaOf returns the type of an index or of an image, depending on the fields of the document.
func mediaOf(declared, contentType string, m *wireManifest, how strictness) (string, error) {
	if how.strict && strings.Contains(declared+contentType+m.ArtifactType, ";") {
		return "", errMedia
	}
	if !how.strict {
		contentType, _, _ = mime.ParseMediaType(contentType)
	}
	switch {
	case declared != "" && isManifest(declared):
		return declared, nil
	case declared != "" && how.strict:
		return "", errMedia
	case isManifest(contentType):
		return contentType, nil
	case how.strict:
		return "", errMedia
	case m.Manifests != nil:
		return v1.MediaTypeImageIndex, nil
	}
	return v1.MediaTypeImageManifest, nil
}

func isManifest(media string) bool {
	switch media {
	case v1.MediaTypeImageManifest, v1.MediaTypeImageIndex, mediaDockerManifest, mediaDockerList, mediaDockerSigned1,
		"application/vnd.docker.distribution.manifest.v1+json":
		return true
	}
	return false
}

func isIndex(media string) bool { return media == v1.MediaTypeImageIndex || media == mediaDockerList }

// [wireManifest.odd] reports whether the version, the Content-Type or the contents contradict the
// media type.
func (m *wireManifest) odd(media, contentType string) bool {
	version := 2
	if isSchema1(media) {
		version = 1
	}
	return m.SchemaVersion != version || isManifest(contentType) && contentType != media || isIndex(media) && len(m.Manifests) == 0
}

func isSchema1(media string) bool { return strings.Contains(media, ".distribution.manifest.v1+") }

// collect checks the descriptors, and collects the blobs and manifests that the repository must
// have.
func (d *document) collect(m *wireManifest, how strictness) error {
	if isIndex(d.media) {
		for _, c := range m.Manifests {
			if err := c.check(how, isManifest); err != nil {
				return err
			}
			d.children = append(d.children, c.Digest)
		}
		return nil
	}
	anything := func(string) bool { return true }
	switch {
	case !how.strict || isSchema1(d.media):
	case m.Config == nil || len(m.Layers) == 0:
		return errLayers
	case len(m.Config.Annotations) > 0:
		return errConfig
	}
	if m.Config != nil {
		if err := m.Config.check(how, anything); err != nil {
			return err
		}
		d.blobs = append(d.blobs, blobRef{m.Config.Descriptor, true})
	}
	for _, l := range m.Layers {
		if err := l.check(how, anything); err != nil {
			return err
		}
		if !foreign(l.Descriptor) {
			d.blobs = append(d.blobs, blobRef{l.Descriptor, false})
		}
	}
	for _, l := range m.FSLayers {
		if l.BlobSum.Validate() != nil {
			return errReference
		}
		d.blobs = append(d.blobs, blobRef{v1.Descriptor{Digest: l.BlobSum}, false})
	}
	return nil
}

func (c wireDescriptor) check(how strictness, wanted func(string) bool) error {
	if c.Digest.Validate() != nil {
		return errReference
	}
	if !how.strict {
		return nil
	}
	if strings.Contains(c.MediaType, ";") {
		return errMedia
	}
	if !wanted(c.MediaType) {
		return errChildren
	}
	empty := c.MediaType == v1.MediaTypeEmptyJSON && string(c.Data) == "{}"
	if c.Data != nil && (how.refuseData && !empty || how.refuseEmpty && empty) {
		return errData
	}
	for field := range c.Platform {
		switch field {
		case "architecture", "os", "os.version", "os.features", "variant":
		default:
			return errPlatform
		}
	}
	return nil
}

// foreign reports whether a registry need not have the layer.
func foreign(d v1.Descriptor) bool {
	return len(d.URLs) > 0 || strings.Contains(d.MediaType, ".foreign.") || strings.Contains(d.MediaType, ".nondistributable.")
}
