package oci

import (
	"bytes"
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/distribution/distribution/v3/manifest/manifestlist"
	"github.com/distribution/distribution/v3/manifest/schema2"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// MaxManifestBytes is the size, in bytes, of the largest manifest that dray accepts in a push or
// stores. The spec asks registries to support at least this size. It is also ECR's limit
// (PutImage).
const MaxManifestBytes = 4 << 20

// The media types of manifests.
const (
	MediaTypeOCIManifest    = v1.MediaTypeImageManifest
	MediaTypeOCIIndex       = v1.MediaTypeImageIndex
	MediaTypeDockerManifest = schema2.MediaTypeManifest
	MediaTypeDockerList     = manifestlist.MediaTypeManifestList
	// MediaTypeOCIArtifact was in release candidates of the image specification 1.1. Registries still
	// have such manifests.
	MediaTypeOCIArtifact = "application/vnd.oci.artifact.manifest.v1+json"
	// MediaTypeDockerSchema1 and its signed form are obsolete. dray passes such manifests on in pulls,
	// and refuses them in pushes. The digest of the signed form covers only its payload, so the cache,
	// which stores bytes under their digest, cannot keep the signed form.
	MediaTypeDockerSchema1       = "application/vnd.docker.distribution.manifest.v1+json"
	MediaTypeDockerSchema1Signed = "application/vnd.docker.distribution.manifest.v1+prettyjws"
)

// The media types of the configuration of a runnable image.
const (
	MediaTypeOCIConfig    = v1.MediaTypeImageConfig
	MediaTypeDockerConfig = schema2.MediaTypeImageConfig
)

// Descriptor is the descriptor of the image specification.
type Descriptor = v1.Descriptor

// Manifest is a manifest: its exact bytes, its digest, and the descriptors in it. It must not be
// changed, because the digest covers its bytes.
type Manifest struct {
	MediaType string
	Raw       []byte
	Digest    digest.Digest
	// Config and Layers are set for an image, and Manifests is set for an index. If an index lists
	// blobs (the older form of BuildKit's cache), the blobs are in Manifests, too.
	Config       *Descriptor
	Layers       []Descriptor
	Manifests    []Descriptor
	Subject      *Descriptor
	ArtifactType string
	Annotations  map[string]string

	payload []byte // the bytes that Digest covers, if this is a signed manifest of schema 1; nil if not
}

// Child is a blob or manifest that a manifest names.
type Child struct {
	Descriptor
	// Manifest is set if the child is itself a manifest.
	Manifest bool
}

type wireManifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	ArtifactType  string            `json:"artifactType"`
	Config        *wireDescriptor   `json:"config"`
	Layers        []wireDescriptor  `json:"layers"`
	Blobs         []wireDescriptor  `json:"blobs"`
	Manifests     []wireDescriptor  `json:"manifests"`
	Subject       *wireDescriptor   `json:"subject"`
	Annotations   map[string]string `json:"annotations"`
}

// wireDescriptor is a Descriptor that is read only from members with the exact names (onlyMembers).
type wireDescriptor struct{ Descriptor }

// UnmarshalJSON implements json.Unmarshaler.
func (d *wireDescriptor) UnmarshalJSON(p []byte) error {
	p, err := onlyMembers(p, "mediaType", "digest", "size", "urls", "annotations", "platform", "artifactType")
	if err != nil {
		return err
	}
	return json.Unmarshal(p, &d.Descriptor)
}

// onlyMembers returns the JSON object p with only the listed members. It distinguishes upper and
// lower case in their names. encoding/json would also read the member "Layers" as "layers". A
// registry that reads only "layers" would then accept a manifest without checking the layers that
// dray reads in "Layers".
func onlyMembers(p []byte, names ...string) ([]byte, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(p, &members); err != nil || members == nil {
		return p, err
	}
	for name := range members {
		if !slices.Contains(names, name) {
			delete(members, name)
		}
	}
	return json.Marshal(members)
}

func descriptors(ws []wireDescriptor) []Descriptor {
	ds := make([]Descriptor, len(ws))
	for i, w := range ws {
		ds[i] = w.Descriptor
	}
	return ds
}

func (w *wireDescriptor) pointer() *Descriptor {
	if w == nil {
		return nil
	}
	return &w.Descriptor
}

// ParseManifest parses a manifest whose Content-Type was mediaType, which may be empty. The error
// is ErrSizeInvalid if raw is larger than MaxManifestBytes. It is ErrManifestInvalid if raw is not
// a manifest, contradicts mediaType, or has a malformed descriptor. The Manifest keeps raw without
// copying it.
func ParseManifest(mediaType string, raw []byte) (*Manifest, error) {
	if len(raw) > MaxManifestBytes {
		return nil, ErrSizeInvalid.With("the manifest has %d bytes, and the limit is %d", len(raw), MaxManifestBytes)
	}
	var w wireManifest
	known, err := onlyMembers(raw, "schemaVersion", "mediaType", "artifactType", "config", "layers", "blobs", "manifests", "subject", "annotations")
	if err == nil {
		err = json.Unmarshal(known, &w)
	}
	if err != nil || !bytes.HasPrefix(bytes.TrimLeft(raw, " \t\r\n"), []byte("{")) {
		return nil, ErrManifestInvalid.With("the manifest is not a JSON object of the expected form").Because(err)
	}
	m := &Manifest{
		Raw: raw, Digest: digest.FromBytes(raw), MediaType: BareType(mediaType),
		Config: w.Config.pointer(), Layers: descriptors(w.Layers), Manifests: descriptors(w.Manifests),
		Subject: w.Subject.pointer(), ArtifactType: w.ArtifactType, Annotations: w.Annotations,
	}
	if err := m.resolveType(w); err != nil {
		return nil, err
	}
	if m.MediaType == MediaTypeOCIArtifact { // registries check "blobs" in this type only
		m.Layers = append(m.Layers, descriptors(w.Blobs)...)
	}
	return m, m.check(w)
}

// resolveType sets the media type from the Content-Type and the bytes. The type in the bytes
// may be missing (umoci writes none), and the Content-Type may be too general.
func (m *Manifest) resolveType(w wireManifest) error {
	declared := m.MediaType
	if w.MediaType != "" && declared != "" && declared != w.MediaType && manifestType(declared) {
		return ErrManifestInvalid.With("Content-Type %q contradicts the manifest's mediaType %q", clip(declared), clip(w.MediaType))
	}
	switch {
	case manifestType(declared):
	case w.MediaType != "":
		m.MediaType = w.MediaType
	case w.SchemaVersion == 1:
		m.MediaType = MediaTypeDockerSchema1Signed
	case w.Manifests != nil:
		m.MediaType = MediaTypeOCIIndex
	case w.Config != nil || w.Layers != nil:
		m.MediaType = MediaTypeOCIManifest
	default:
		return ErrManifestInvalid.With("the manifest has neither layers nor manifests")
	}
	return nil
}

// check returns ErrManifestInvalid for manifests that a registry might refuse. These have an
// invalid media type, a wrong schema version or an invalid descriptor, or are both an image and an
// index (which spec 1.1 forbids). If a manifest has no mediaType, the Content-Type must fit its
// content.
func (m *Manifest) check(w wireManifest) error {
	if !validType(m.MediaType) {
		return ErrManifestInvalid.With("invalid media type %q", clip(m.MediaType))
	}
	if m.Schema1() { // its content is not checked
		m.Config, m.Layers, m.Manifests, m.Subject = nil, nil, nil, nil
		return nil
	}
	if w.SchemaVersion != 2 && m.MediaType != MediaTypeOCIArtifact {
		return ErrManifestInvalid.With("schemaVersion %d is not supported; it must be 2", w.SchemaVersion)
	}
	if w.Manifests != nil && (w.Config != nil || w.Layers != nil) {
		return ErrManifestInvalid.With("the manifest is ambiguous: it has both layers and manifests")
	}
	if m.Index() != (w.Manifests != nil) && w.MediaType == "" && (m.Index() || w.Manifests != nil) {
		return ErrManifestInvalid.With("Content-Type %q does not match the content of the manifest", clip(m.MediaType))
	}
	for _, d := range m.descriptors() {
		if _, err := ParseDigest(d.Digest.String()); err != nil {
			return ErrManifestInvalid.With("invalid digest %q in the manifest", clip(d.Digest.String()))
		}
		if d.Size < 0 {
			return ErrManifestInvalid.With("negative size of %s in the manifest", d.Digest)
		}
		if len(d.MediaType) > maxTypeBytes {
			return ErrManifestInvalid.With("the media type of %s in the manifest is longer than %d bytes", d.Digest, maxTypeBytes)
		}
	}
	return nil
}

func (m *Manifest) descriptors() []Descriptor {
	all := slices.Concat(m.Layers, m.Manifests)
	if m.Config != nil {
		all = append(all, *m.Config)
	}
	if m.Subject != nil {
		all = append(all, *m.Subject)
	}
	return all
}

// AnyManifest returns Accept lines that accept every manifest, the current types first.
func AnyManifest() []string {
	return []string{MediaTypeOCIIndex, MediaTypeOCIManifest, MediaTypeDockerList, MediaTypeDockerManifest, "*/*"}
}

// ImageConfig reports whether a media type is the type of the configuration of a runnable image.
func ImageConfig(mediaType string) bool {
	return mediaType == MediaTypeOCIConfig || mediaType == MediaTypeDockerConfig
}

// Schema1 reports whether the manifest has Docker's first format, which is obsolete.
func (m *Manifest) Schema1() bool {
	return m.MediaType == MediaTypeDockerSchema1 || m.MediaType == MediaTypeDockerSchema1Signed
}

// Index reports whether the manifest lists manifests.
func (m *Manifest) Index() bool {
	return m.MediaType == MediaTypeOCIIndex || m.MediaType == MediaTypeDockerList
}

// MediaTypeBuildKitCache is the media type of the configuration of a BuildKit build cache
// (cache/remotecache/v1, CacheConfigMediaTypeV0).
const MediaTypeBuildKitCache = "application/vnd.buildkit.cacheconfig.v0"

// BuildCache reports whether the manifest is a build cache of BuildKit. A build cache has a
// configuration of the type MediaTypeBuildKitCache. In the older form, it is an index that lists
// such a configuration.
func (m *Manifest) BuildCache() bool {
	if m.Config != nil && m.Config.MediaType == MediaTypeBuildKitCache {
		return true
	}
	return slices.ContainsFunc(m.Manifests, func(d Descriptor) bool { return d.MediaType == MediaTypeBuildKitCache })
}

// ListsBlobs reports whether an index lists blobs, as the older form of BuildKit's cache does.
// Many registries refuse such an index.
func (m *Manifest) ListsBlobs() bool {
	return slices.ContainsFunc(m.Manifests, func(d Descriptor) bool { return !manifestType(d.MediaType) })
}

// Embeds reports whether a descriptor of the manifest contains the content that it describes.
// BuildKit writes such descriptors when it stores attestations in the form of artifacts.
func (m *Manifest) Embeds() bool {
	type embedding struct{ Data json.RawMessage }
	var w struct {
		Config                   embedding
		Layers, Blobs, Manifests []embedding
	}
	_ = json.Unmarshal(m.Raw, &w) // a manifest that cannot be read embeds nothing
	return slices.ContainsFunc(slices.Concat([]embedding{w.Config}, w.Layers, w.Blobs, w.Manifests), func(e embedding) bool { return e.Data != nil })
}

// Descriptor returns the descriptor of the manifest itself.
func (m *Manifest) Descriptor() Descriptor {
	return Descriptor{MediaType: m.MediaType, Digest: m.Digest, Size: int64(len(m.Raw))}
}

// Referrer returns the descriptor of the manifest for the list of its subject's referrers. If the
// manifest has no artifact type, the descriptor has the media type of the configuration as its
// artifact type (spec, "Listing Referrers"). Signatures of cosign 2 have no artifact type.
func (m *Manifest) Referrer() Descriptor {
	d := m.Descriptor()
	d.ArtifactType, d.Annotations = m.ArtifactType, m.Annotations
	if d.ArtifactType == "" && m.Config != nil {
		d.ArtifactType = m.Config.MediaType
	}
	return d
}

// Children returns the configuration and layers of an image, foreign layers included, or the
// manifests of an index. It does not return the subject, because the registry need not have it
// (spec, "Pushing Manifests with Subject").
func (m *Manifest) Children() []Child {
	var out []Child
	for _, d := range m.Manifests {
		out = append(out, Child{Descriptor: d, Manifest: manifestType(d.MediaType)})
	}
	if m.Config != nil {
		out = append(out, Child{Descriptor: *m.Config})
	}
	for _, d := range m.Layers {
		out = append(out, Child{Descriptor: d})
	}
	return out
}

// Foreign reports whether the media type of a layer says that clients fetch the layer from the
// layer's URLs. A registry need not have such a layer.
func (c Child) Foreign() bool {
	return c.MediaType == schema2.MediaTypeForeignLayer || strings.Contains(c.MediaType, ".nondistributable.")
}

func manifestType(t string) bool {
	switch t {
	case MediaTypeOCIManifest, MediaTypeOCIIndex, MediaTypeOCIArtifact, MediaTypeDockerManifest, MediaTypeDockerList, MediaTypeDockerSchema1, MediaTypeDockerSchema1Signed:
		return true
	}
	return false
}

// typePattern is the grammar of media types (RFC 6838, 4.2). Other text must not get into a
// header.
var typePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]*/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]*$`)

const maxTypeBytes = 255

func validType(t string) bool { return len(t) <= maxTypeBytes && typePattern.MatchString(t) }

// BareType returns the media type of a Content-Type, without its parameters.
func BareType(t string) string {
	t, _, _ = strings.Cut(t, ";")
	return strings.TrimSpace(t)
}

// AcceptKey returns the set of manifest types in a client's Accept lines as a string. ECR converts
// the manifest of a tag to a type that the client accepts, and converts to the same type for all
// clients with equal keys. The key leaves out qualities and order, because ECR ignores both. A
// client without Accept lines has the same key as a client with */*.
func AcceptKey(accept []string) string {
	set := map[string]bool{}
	other := false
	for _, line := range accept {
		for t := range strings.SplitSeq(line, ",") {
			switch t = strings.ToLower(BareType(t)); {
			case manifestType(t):
				set[t] = true
			case t == "*/*" || t == "application/*":
				set["*"] = true
			default:
				other = other || t != ""
			}
		}
	}
	switch {
	case len(set) == 0 && other: // accepts no manifest type, so the answer may be "not found"
		return "none"
	case len(set) == 0:
		return "*"
	}
	return strings.Join(slices.Sorted(maps.Keys(set)), ",")
}

// Accepts reports whether a client with these Accept lines accepts the media type. A client without
// Accept lines accepts every type.
func Accepts(accept []string, mediaType string) bool {
	none := true
	for _, line := range accept {
		for t := range strings.SplitSeq(line, ",") {
			t = strings.ToLower(BareType(t))
			none = none && t == ""
			if t == mediaType || t == "*/*" || t == "application/*" {
				return true
			}
		}
	}
	return none
}
