package ecrtest

import (
	"encoding/json"
	"mime"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

type accepted map[string]bool

// parseAccept parses the values of Accept. It ignores weights, as registries do.
func parseAccept(values []string) accepted {
	a := accepted{}
	for _, v := range values {
		for item := range strings.SplitSeq(v, ",") {
			if media, _, err := mime.ParseMediaType(item); err == nil {
				a[media] = true
			}
		}
	}
	return a
}

// takes reports whether the client accepts the media type. A client without Accept accepts
// every type.
func (a accepted) takes(media string) bool {
	return len(a) == 0 || a[media] || a["*/*"] || a["application/*"]
}

// counterpart maps a media type of Docker schema 2 to the media type of OCI, and the reverse. It
// returns false if the type has no counterpart.
func counterpart(media string) (string, bool) {
	pairs := [][2]string{
		{mediaDockerManifest, v1.MediaTypeImageManifest},
		{mediaDockerList, v1.MediaTypeImageIndex},
		{mediaDockerConfig, v1.MediaTypeImageConfig},
		{mediaDockerLayer + ".gzip", v1.MediaTypeImageLayerGzip},
		{mediaDockerLayer, v1.MediaTypeImageLayer},
		{mediaDockerLayer + ".zstd", v1.MediaTypeImageLayerZstd},
	}
	for _, p := range pairs {
		switch media {
		case p[0]:
			return p[1], true
		case p[1]:
			return p[0], true
		}
	}
	return media, false
}

// convert converts a manifest between Docker schema 2 and OCI, if the client accepts the other
// format. It converts container images, and their indexes if withIndexes is true. It does not
// convert artifacts. The result has a digest of its own.
func convert(doc *document, a accepted, withIndexes bool) (*document, bool) {
	other, ok := counterpart(doc.media)
	if !ok || !a[other] {
		return nil, false
	}
	return transcribe(doc, other, withIndexes)
}

// transcribe returns the manifest with the media types of the other format.
func transcribe(doc *document, media string, withIndexes bool) (*document, bool) {
	var m struct {
		SchemaVersion int               `json:"schemaVersion"`
		MediaType     string            `json:"mediaType"`
		Config        *v1.Descriptor    `json:"config,omitempty"`
		Layers        []v1.Descriptor   `json:"layers,omitempty"`
		Manifests     []v1.Descriptor   `json:"manifests,omitempty"`
		Annotations   map[string]string `json:"annotations,omitempty"`
	}
	if json.Unmarshal(doc.raw, &m) != nil || isIndex(media) && !withIndexes {
		return nil, false
	}
	if m.Config != nil {
		twin, ok := counterpart(m.Config.MediaType)
		if !ok {
			return nil, false
		}
		m.Config.MediaType = twin
	}
	for i := range m.Layers {
		m.Layers[i].MediaType, _ = counterpart(m.Layers[i].MediaType)
	}
	if strings.HasPrefix(media, "application/vnd.docker.") {
		m.Annotations = nil // Docker's format has no annotations
	}
	m.MediaType = media
	raw, err := json.MarshalIndent(m, "", "   ")
	if err != nil {
		return nil, false
	}
	return &document{raw: raw, media: media, digest: digest.FromBytes(raw)}, true
}

// convertedLocked finds an image whose converted form has the digest d, and returns that form.
func (r *repository) convertedLocked(d digest.Digest, sw Switches) (*document, bool) {
	for _, img := range r.images {
		if other, ok := counterpart(img.doc.media); ok {
			if doc, ok := transcribe(img.doc, other, sw.ConvertIndexes); ok && doc.digest == d {
				return doc, true
			}
		}
	}
	return nil, false
}
