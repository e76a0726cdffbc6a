package oci

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"

	"github.com/opencontainers/go-digest"
)

// MaxPulledBytes is the size, in bytes, of the largest manifest that dray passes on from a
// registry. dray does not store manifests above MaxManifestBytes.
const MaxPulledBytes = 16 << 20

// ReadManifest reads a manifest that a registry sent. The digest of a signed manifest of schema 1
// is the digest of its payload. If ParseManifest refuses the bytes, ReadManifest returns the error
// together with a Manifest that has only its bytes, digest and media type. A caller that knows the
// digest may pass such a Manifest on if the digest is right. A caller that knows no digest may pass
// the Manifest on if it is [Manifest.Plausible].
func ReadManifest(mediaType string, raw []byte) (m *Manifest, err error) {
	if m, err = ParseManifest(mediaType, raw); err != nil {
		m = &Manifest{Raw: raw, Digest: digest.FromBytes(raw), MediaType: typeOf(BareType(mediaType), raw)}
	}
	if payload := signedPayload(raw); payload != nil && m.Schema1() {
		m.payload, m.Digest = payload, digest.FromBytes(payload)
	}
	return m, err
}

// typeOf returns the media type of bytes that ParseManifest refuses. It chooses between the type in
// the bytes and the declared type. If only one of them is a type of manifests, typeOf prefers that
// one. Otherwise it prefers the type in the bytes, because the digest covers the bytes.
func typeOf(declared string, raw []byte) string {
	own := membersOf(raw).MediaType
	switch {
	case manifestType(own):
		return own
	case manifestType(declared):
		return declared
	case validType(own):
		return own
	case validType(declared) && strings.HasSuffix(declared, "json"):
		return declared
	}
	return "application/octet-stream"
}

// pulledMembers are the members by which a manifest is recognised.
type pulledMembers struct {
	MediaType                                                 string
	SchemaVersion, Config, Layers, Manifests, Blobs, FSLayers json.RawMessage
}

// membersOf reads the pulledMembers of raw. It reads none if raw is not a JSON object.
func membersOf(raw []byte) (p pulledMembers) {
	var all map[string]json.RawMessage
	if json.Unmarshal(raw, &all) != nil {
		return p
	}
	_ = json.Unmarshal(all["mediaType"], &p.MediaType) // stays empty if it is no text
	p.SchemaVersion, p.Config, p.Layers = all["schemaVersion"], all["config"], all["layers"]
	p.Manifests, p.Blobs, p.FSLayers = all["manifests"], all["blobs"], all["fsLayers"]
	return p
}

// Plausible reports whether the bytes are a JSON object with a member that only manifests have. The
// error of a registry or the page of a proxy is not plausible.
func (m *Manifest) Plausible() bool {
	p := membersOf(m.Raw)
	return manifestType(p.MediaType) || p.SchemaVersion != nil || p.Config != nil || p.Layers != nil || p.Manifests != nil || p.Blobs != nil || p.FSLayers != nil
}

// Is reports whether d is a digest of the manifest, by any algorithm. For a signed manifest of
// schema 1, d may be the digest of its payload or of all its bytes, because some registries state
// the digest of all bytes.
func (m *Manifest) Is(d digest.Digest) bool {
	return d == m.Digest || d == d.Algorithm().FromBytes(m.Raw) || m.payload != nil && d == d.Algorithm().FromBytes(m.payload)
}

// Keepable reports whether the cache can store the manifest under its digest. For this, the
// manifest must have at most MaxManifestBytes, and the digest must be the digest of all its bytes.
func (m *Manifest) Keepable() bool {
	return len(m.Raw) <= MaxManifestBytes && m.Digest == m.Digest.Algorithm().FromBytes(m.Raw)
}

// signature is the part of an entry of "signatures" that describes the signed bytes.
type signature struct {
	Protected string `json:"protected"`
}

// signedPayload returns the payload of a signed manifest of schema 1: the bytes that its signatures
// and its digest cover. The protected header of each signature says how many bytes of the manifest
// precede the signatures, and contains the bytes that follow the signatures (distribution's
// specification of schema 1, "Signed Manifests"). signedPayload returns nil if raw is no such
// manifest. It does not verify signatures.
func signedPayload(raw []byte) []byte {
	var signed struct {
		Signatures []signature `json:"signatures"`
	}
	if json.Unmarshal(raw, &signed) != nil || len(signed.Signatures) == 0 {
		return nil
	}
	var payload []byte
	for _, s := range signed.Signatures {
		p := s.payload(raw)
		if p == nil || payload != nil && !bytes.Equal(p, payload) {
			return nil
		}
		payload = p
	}
	var of struct {
		SchemaVersion int `json:"schemaVersion"`
	}
	if json.Unmarshal(payload, &of) != nil || of.SchemaVersion != 1 {
		return nil
	}
	return payload
}

// payload returns the bytes that one signature covers, or nil if the header of the signature cannot
// be read.
func (s signature) payload(raw []byte) []byte {
	var header struct {
		FormatLength int    `json:"formatLength"`
		FormatTail   string `json:"formatTail"`
	}
	text, err := unpadded(s.Protected)
	if err != nil || json.Unmarshal(text, &header) != nil {
		return nil
	}
	tail, err := unpadded(header.FormatTail)
	if err != nil || header.FormatLength <= 0 || header.FormatLength > len(raw) {
		return nil
	}
	return append(bytes.Clone(raw[:header.FormatLength]), tail...)
}

// unpadded decodes base64url. It ignores padding, which some signers add.
func unpadded(s string) ([]byte, error) {
	return base64.RawURLEncoding.DecodeString(strings.TrimRight(s, "="))
}
