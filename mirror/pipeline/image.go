package pipeline

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"dray/upstream/oci"
)

// Image describes the pushed manifest and the manifests below it, in one document. Policies are
// written against its JSON form, which docs/pipeline.md describes. Later versions of dray may add
// members to it. Later versions neither remove nor change members.
type Image struct {
	Upstream   string        `json:"upstream"`
	Repository string        `json:"repository"`
	Tag        string        `json:"tag"`
	Digest     digest.Digest `json:"digest"`
	User       string        `json:"user"`
	// Part reports whether the manifest was pushed by digest and waits for an index or a tag that
	// refers to it. Rules that need the whole image are checked when that index or tag arrives.
	Part bool `json:"part"`
	// Manifests starts with the pushed manifest. If the pushed manifest is an index, the manifests
	// below it follow.
	Manifests []*Manifest `json:"manifests"`
	// Contents reads blobs that are not part of the document; it may be nil.
	Contents Contents `json:"-"`
}

// Manifest is one manifest of an image.
type Manifest struct {
	Kind         string            `json:"kind"`
	Digest       digest.Digest     `json:"digest"`
	MediaType    string            `json:"mediaType"`
	Size         int64             `json:"size"`
	Platform     string            `json:"platform"`
	ArtifactType string            `json:"artifactType"`
	Subject      digest.Digest     `json:"subject"`
	Annotations  map[string]string `json:"annotations"`
	// DescriptorAnnotations are the annotations of the manifest's descriptor in its index.
	DescriptorAnnotations map[string]string `json:"descriptorAnnotations"`
	Config                *Config           `json:"config,omitempty"`
	Layers                []*LayerView      `json:"layers"`
	// Children are the digests of the manifests that an index lists.
	Children []digest.Digest `json:"children,omitempty"`
	// Statements are the in-toto attestations in the layers.
	Statements []Statement `json:"statements,omitempty"`
	// TotalSize is the size of the configuration and layers as stored, in bytes.
	TotalSize int64  `json:"totalSize"`
	Raw       []byte `json:"-"`
}

// Config is the configuration of an image.
type Config struct {
	Digest    digest.Digest `json:"digest"`
	MediaType string        `json:"mediaType"`
	Size      int64         `json:"size"`
	// Image is the parsed content of an image's configuration. It is empty for other configurations.
	v1.Image
	// Raw is the whole content. It is set for every media type.
	Raw json.RawMessage `json:"-"`
	// ofImage reports whether the content is the configuration of an image (see describesImage).
	ofImage bool
}

// LayerView describes a layer of an image.
type LayerView struct {
	Digest      digest.Digest     `json:"digest"`
	MediaType   string            `json:"mediaType"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations"`
	URLs        []string          `json:"urls"`
	Foreign     bool              `json:"foreign"`
	// Seen reports whether dray has scanned the layer. If Seen is false, the embedded Archive is zero.
	Seen bool `json:"seen"`
	Archive
	facts map[string]json.RawMessage
}

// MarshalJSON leaves out the members of Archive if Seen is false. A rule about them then cannot be
// decided. If the members were written as zeros, the rule could pass.
func (l *LayerView) MarshalJSON() ([]byte, error) {
	type plain LayerView
	if l.Seen {
		return json.Marshal((*plain)(l))
	}
	type twice struct{ Archive }
	return json.Marshal(struct { // package json leaves out members that occur twice at the same depth
		*plain
		twice
	}{plain: (*plain)(l)})
}

// Facts decodes into the given variable the facts that a stage found in the layer. It returns false
// if the stage has not looked at the layer. If the stage has looked and found nothing, Facts
// returns true, and the variable stays as it is.
func (l *LayerView) Facts(stage string, into any) (bool, error) {
	raw, ok := l.facts[stage]
	if !ok {
		return false, nil
	}
	if raw == nil {
		return true, nil
	}
	return true, json.Unmarshal(raw, into)
}

// Title returns the file name in the layer's annotation, or "". Tools for artifacts write this
// annotation for a layer that is a single file.
func (l *LayerView) Title() string { return l.Annotations[v1.AnnotationTitle] }

// Statement is the content of an attestation. dray has not verified it.
type Statement struct {
	Layer         digest.Digest   `json:"layer"`
	PredicateType string          `json:"predicateType"`
	Subjects      []digest.Digest `json:"subjects"`
	// Predicate is set only for provenance of at most 1 MiB.
	Predicate json.RawMessage `json:"predicate,omitempty"`
}

// Contents reads the parts of an image.
type Contents interface {
	// Manifest returns a manifest that an index lists.
	Manifest(ctx context.Context, d oci.Descriptor) (*oci.Manifest, error)
	// Open reads a blob. Its reader verifies the digest before it returns io.EOF.
	Open(ctx context.Context, d oci.Descriptor) (io.ReadCloser, error)
	// Scanned returns the results of all stages for a layer, or nil if the layer is not to be scanned.
	Scanned(ctx context.Context, d oci.Descriptor) (*Scanned, error)
}

// MaxConfigBytes bounds the configuration of an image, in bytes. Podman and Skopeo accept the same
// size (containers/image, image: iolimits).
const MaxConfigBytes = 32 << 20

// Bounds of the document of an image. maxStatement and maxPredicate are in bytes.
const (
	maxManifests  = 512
	maxNesting    = 4
	maxStatement  = 32 << 20
	maxPredicate  = 1 << 20
	maxStatements = 64
	maxDocument   = 64 << 20 // bytes of manifests, configurations and predicates in all
)

// TooLarge is the error for an image that exceeds the bounds of the checks.
type TooLarge struct{ what string }

func (e *TooLarge) Error() string { return e.what }

// assembly builds the document of an image.
type assembly struct {
	img  *Image
	from Contents
	size int64
	seen map[digest.Digest]bool
}

func assemble(ctx context.Context, s Subject, from Contents) (*Image, error) {
	a := &assembly{from: from, seen: map[digest.Digest]bool{}, img: &Image{
		Upstream: s.Upstream, Repository: s.Repository, Tag: s.Tag, Digest: s.Manifest.Digest, User: s.User, Part: s.Part, Contents: from,
	}}
	return a.img, a.add(ctx, s.Manifest, oci.Descriptor{}, 0)
}

func (a *assembly) add(ctx context.Context, man *oci.Manifest, by oci.Descriptor, depth int) error {
	if a.seen[man.Digest] {
		return nil
	}
	a.seen[man.Digest] = true
	if a.size += int64(len(man.Raw)); len(a.img.Manifests) >= maxManifests || depth > maxNesting || a.size > maxDocument {
		return &TooLarge{fmt.Sprintf("the index holds more than %d manifests, %d bytes of them, or indexes nested deeper than %d", maxManifests, maxDocument, maxNesting)}
	}
	if err := oci.CheckMembers(man.Raw); err != nil {
		return err
	}
	m := &Manifest{
		Digest: man.Digest, MediaType: man.MediaType, Size: int64(len(man.Raw)), ArtifactType: man.ArtifactType,
		Annotations: orEmpty(man.Annotations), DescriptorAnnotations: orEmpty(by.Annotations), Platform: platform(by.Platform), Raw: man.Raw, Layers: []*LayerView{},
	}
	if man.Subject != nil {
		m.Subject = man.Subject.Digest
	}
	a.img.Manifests = append(a.img.Manifests, m)
	// A manifest that lists manifests counts as an index, whatever its media type, because the listed
	// manifests are forwarded with it.
	if man.Index() || len(man.Manifests) > 0 {
		m.Kind = KindIndex
		return a.children(ctx, m, man, depth)
	}
	if man.Config != nil {
		m.TotalSize += man.Config.Size
		if err := a.config(ctx, m, *man.Config); err != nil {
			return err
		}
	}
	for _, d := range man.Layers {
		m.TotalSize += d.Size
		m.Layers = append(m.Layers, &LayerView{
			Digest: d.Digest, MediaType: d.MediaType, Size: d.Size, Annotations: orEmpty(d.Annotations), URLs: d.URLs,
			Foreign: oci.Child{Descriptor: d}.Foreign(), facts: map[string]json.RawMessage{},
		})
	}
	return a.statements(ctx, m)
}

func (a *assembly) children(ctx context.Context, m *Manifest, man *oci.Manifest, depth int) error {
	for _, c := range man.Children() {
		if !c.Manifest {
			// Count the blob as a layer: BuildKit's old cache format lists blobs in an index.
			m.TotalSize += c.Size
			m.Layers = append(m.Layers, &LayerView{Digest: c.Digest, MediaType: c.MediaType, Size: c.Size, Annotations: orEmpty(c.Annotations), facts: map[string]json.RawMessage{}})
			continue
		}
		m.Children = append(m.Children, c.Digest)
		child, err := a.from.Manifest(ctx, c.Descriptor)
		if err != nil {
			return err
		}
		if err := a.add(ctx, child, c.Descriptor, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// config reads the configuration of a manifest. It reads configurations of all media types, because
// describesImage decides by their content, too.
func (a *assembly) config(ctx context.Context, m *Manifest, d oci.Descriptor) error {
	m.Config = &Config{Digest: d.Digest, MediaType: d.MediaType, Size: d.Size}
	raw, err := a.read(ctx, d, MaxConfigBytes)
	if err != nil {
		return err
	}
	m.Config.Raw = raw
	var image v1.Image
	err = json.Unmarshal(raw, &image)
	if err != nil && oci.ImageConfig(d.MediaType) {
		return oci.ErrManifestInvalid.With("the configuration %s of the image does not match its media type", d.Digest).Because(err)
	}
	if err != nil || !describesImage(d.MediaType, image) {
		return nil
	}
	m.Config.Image, m.Config.ofImage = image, true
	if m.Platform == "" && image.OS != "" && image.OS != "unknown" {
		m.Platform = platform(&image.Platform)
	}
	return nil
}

// read reads a whole blob. It returns a TooLarge if the blob has more than limit bytes, or if the
// document exceeds maxDocument.
func (a *assembly) read(ctx context.Context, d oci.Descriptor, limit int64) ([]byte, error) {
	if d.Size > limit {
		return nil, &TooLarge{fmt.Sprintf("%s %s has %d bytes, more than %d", d.MediaType, oci.Short(d.Digest), d.Size, limit)}
	}
	r, err := a.from.Open(ctx, d)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	raw, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if a.size += int64(len(raw)); int64(len(raw)) > limit || a.size > maxDocument {
		return nil, &TooLarge{fmt.Sprintf("%s %s is larger than the checks support", d.MediaType, oci.Short(d.Digest))}
	}
	return raw, nil
}

// statements reads the attestations in the layers.
func (a *assembly) statements(ctx context.Context, m *Manifest) error {
	for _, l := range m.Layers {
		if !strings.HasPrefix(l.MediaType, "application/vnd.in-toto") || !strings.HasSuffix(l.MediaType, "json") {
			continue
		}
		if len(m.Statements) >= maxStatements {
			return &TooLarge{fmt.Sprintf("an image has more than %d attestations", maxStatements)}
		}
		s := Statement{Layer: l.Digest, PredicateType: l.Annotations["in-toto.io/predicate-type"]}
		before := a.size
		raw, err := a.read(ctx, oci.Descriptor{Digest: l.Digest, Size: l.Size, MediaType: l.MediaType}, maxStatement)
		a.size = before // do not count the raw statement, because it is not kept
		if tooLarge := (*TooLarge)(nil); errors.As(err, &tooLarge) {
			m.Statements = append(m.Statements, s)
			continue
		}
		if err != nil {
			return err
		}
		s.read(raw)
		a.size += int64(len(s.Predicate))
		m.Statements = append(m.Statements, s)
	}
	return nil
}

// read parses a statement. The predicate type in the statement replaces the one from the layer's
// annotation. If raw cannot be parsed, s stays unchanged.
func (s *Statement) read(raw []byte) {
	var wire struct {
		PredicateType string `json:"predicateType"`
		Subject       []struct {
			Digest map[string]string `json:"digest"`
		} `json:"subject"`
		Predicate json.RawMessage `json:"predicate"`
	}
	if json.Unmarshal(raw, &wire) != nil {
		return
	}
	s.PredicateType = wire.PredicateType
	for _, subject := range wire.Subject {
		for algorithm, encoded := range subject.Digest {
			if d := digest.NewDigestFromEncoded(digest.Algorithm(algorithm), encoded); d.Validate() == nil {
				s.Subjects = append(s.Subjects, d)
			}
		}
	}
	if strings.Contains(wire.PredicateType, "provenance") && len(wire.Predicate) <= maxPredicate {
		s.Predicate = bytes.Clone(wire.Predicate)
	}
}

// Images returns the manifests of kind KindImage, which runtimes can run.
func (i *Image) Images() []*Manifest {
	var out []*Manifest
	for _, m := range i.Manifests {
		if m.Kind == KindImage {
			out = append(out, m)
		}
	}
	return out
}

// Root returns the pushed manifest.
func (i *Image) Root() *Manifest { return i.Manifests[0] }

// Place returns the place of a manifest. It has a platform only if the image has several manifests.
func (i *Image) Place(m *Manifest) Place {
	p := Place{Manifest: m.Digest}
	if len(i.Manifests) > 1 {
		p.Platform = m.Platform
	}
	return p
}

// LayerPlace returns the place of m.Layers[layer].
func (i *Image) LayerPlace(m *Manifest, layer int) Place {
	p := i.Place(m)
	p.Layer, p.Number, p.Of = m.Layers[layer].Digest, layer+1, len(m.Layers)
	return p
}

func platform(p *v1.Platform) string {
	if p == nil || p.OS == "" || p.OS == "unknown" {
		return ""
	}
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

func orEmpty(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

// Check validates a document read from JSON, and replaces null annotations of its manifests by
// empty maps.
func (i *Image) Check() error {
	if len(i.Manifests) == 0 {
		return errors.New("the document has no manifests")
	}
	for n, m := range i.Manifests {
		if m == nil {
			return fmt.Errorf("manifest %d of the document is null", n+1)
		}
		m.Annotations, m.DescriptorAnnotations = orEmpty(m.Annotations), orEmpty(m.DescriptorAnnotations)
		for k, l := range m.Layers {
			if l == nil {
				return fmt.Errorf("layer %d of manifest %d of the document is null", k+1, n+1)
			}
		}
	}
	return nil
}

// Subject is the image to judge.
type Subject struct {
	Name
	Manifest *oci.Manifest
	// Part reports whether the manifest waits for an index or a tag that refers to it.
	Part bool
}

// Kinds of a manifest.
const (
	KindImage = "image"
	KindIndex = "index"
	// KindAttestation is a manifest of BuildKit that describes another manifest of the same index.
	KindAttestation = "attestation"
	// KindArtifact is any other manifest, such as a signature, an SBOM or a chart.
	KindArtifact = "artifact"
)

// kindOf returns the kind of a manifest as runtimes treat it. Media types alone do not determine
// the kind: some runtimes unpack layers of any media type, and some tools give signatures the
// configuration of an image. A manifest with the configuration of an image can be run if it has no
// layers, or if runtimes unpack its layers. Such a manifest is an image even if it has a subject or
// an artifact type, or if the index marks it as an attestation.
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

// unpacks reports whether a runtime would unpack layers of the manifest. If the configuration has
// the media type of an image, one layer that may be unpacked is enough: some runtimes unpack the
// layers whose media types they know, and skip the other layers. If the configuration has another
// media type, it must be possible to unpack every layer, because the runtimes that accept such a
// configuration unpack all layers or none.
func (m *Manifest) unpacks() bool {
	if oci.ImageConfig(m.Config.MediaType) {
		return slices.ContainsFunc(m.Layers, (*LayerView).unpacks)
	}
	return !slices.ContainsFunc(m.Layers, func(l *LayerView) bool { return !l.unpacks() })
}

// unpacks reports whether a runtime may unpack the layer. It returns true for a layer that dray has
// not scanned.
func (l *LayerView) unpacks() bool {
	return !l.Seen || l.Format != FormatOther || l.encrypted()
}

// encrypted reports whether the layer's media type says that it is encrypted (ocicrypt, "Encryption
// and decryption of container images").
func (l *LayerView) encrypted() bool { return strings.HasSuffix(l.MediaType, "+encrypted") }

// impliedConfig reports whether Docker accepts a blob of this media type as the configuration of an
// image, although the media type does not say so. Registries used to send configurations with these
// types (moby, distribution: ImageTypes).
func impliedConfig(t string) bool {
	return t == "" || t == "application/octet-stream" || t == "application/json" || t == "text/html"
}

// describesImage reports whether dray treats a configuration as the configuration of an image. It
// is stricter than containerd 1.6 and Podman, which accept any media type if the configuration has
// settings or a list of layers. For dray, a list of layers alone is not enough, because tools that
// make artifacts with the libraries for images (Flux, Docker Model Runner) also write such a list.
// In addition to the list, the configuration must have an operating system or one of the media
// types of impliedConfig.
func describesImage(mediaType string, image v1.Image) bool {
	if oci.ImageConfig(mediaType) || !reflect.DeepEqual(image.Config, v1.ImageConfig{}) {
		return true
	}
	return len(image.RootFS.DiffIDs) > 0 && (image.OS != "" || impliedConfig(mediaType))
}
