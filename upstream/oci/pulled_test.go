package oci_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"dray/upstream/oci"
)

// signed puts signatures into a payload that ends in "}". before is how many of its last bytes come
// after them.
func signed(payload string, before int, protected ...string) string {
	n := len(payload) - before
	text := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	if protected == nil {
		protected = []string{fmt.Sprintf(`{"formatLength":%d,"formatTail":%q}`, n, text(payload[n:]))}
	}
	entries := make([]string, len(protected))
	for i, p := range protected {
		entries[i] = fmt.Sprintf(`{"header":{},"signature":"x","protected":%q}`, text(p))
	}
	return payload[:n] + `,"signatures":[` + strings.Join(entries, ",") + `]` + payload[n:]
}

const oldPayload = `{"schemaVersion": 1, "name": "a/b", "fsLayers": []
}`

// The digest of a signed manifest of schema 1 is that of its payload. Whatever is not quite such a
// manifest has the digest of its bytes.
func TestSignedManifest(t *testing.T) {
	tail := base64.RawURLEncoding.EncodeToString([]byte("\n}"))
	good := fmt.Sprintf(`{"formatLength":%d,"formatTail":%q,"time":"2016-03-04T05:06:07Z"}`, len(oldPayload)-2, tail)
	for name, c := range map[string]struct {
		mediaType, raw string
		of             string // what the digest covers; empty means raw
	}{
		"signed":                     {oci.MediaTypeDockerSchema1Signed, signed(oldPayload, 2), oldPayload},
		"signed twice":               {oci.MediaTypeDockerSchema1Signed, signed(oldPayload, 2, good, good), oldPayload},
		"padded":                     {oci.MediaTypeDockerSchema1Signed, signed(oldPayload, 2, strings.Replace(good, tail, tail+"=", 1)), oldPayload},
		"by the unsigned type":       {oci.MediaTypeDockerSchema1, signed(oldPayload, 2), oldPayload},
		"with parameters":            {oci.MediaTypeDockerSchema1Signed + "; charset=utf-8", signed(oldPayload, 2), oldPayload},
		"as JSON":                    {"application/json; charset=utf-8", signed(oldPayload, 1), oldPayload},
		"without a type":             {"", signed(oldPayload, 1), oldPayload},
		"unsigned":                   {oci.MediaTypeDockerSchema1, oldPayload, ""},
		"two payloads":               {oci.MediaTypeDockerSchema1Signed, signed(oldPayload, 2, good, `{"formatLength":1,"formatTail":"fQ"}`), ""},
		"more bytes than there are":  {oci.MediaTypeDockerSchema1Signed, signed(oldPayload, 2, `{"formatLength":99999,"formatTail":"fQ"}`), ""},
		"fewer than none":            {oci.MediaTypeDockerSchema1Signed, signed(oldPayload, 2, `{"formatLength":-1,"formatTail":"fQ"}`), ""},
		"a length that is no number": {oci.MediaTypeDockerSchema1Signed, signed(oldPayload, 2, `{"formatLength":"1","formatTail":"fQ"}`), ""},
		"a tail that is no base64":   {oci.MediaTypeDockerSchema1Signed, signed(oldPayload, 2, `{"formatLength":1,"formatTail":"/"}`), ""},
		"an image with signatures":   {oci.MediaTypeDockerSchema1Signed, signed(image, 1), ""},
		"an image of today":          {oci.MediaTypeOCIManifest, signed(image, 1), ""},
	} {
		t.Run(name, func(t *testing.T) {
			m, _ := oci.ReadManifest(c.mediaType, []byte(c.raw))
			of := c.raw
			if c.of != "" {
				of = c.of
			}
			if m.Digest != digest.FromString(of) || !m.Is(digest.SHA512.FromString(of)) || !m.Is(digest.FromString(c.raw)) {
				t.Errorf("the digest is %s, not that of %s", m.Digest, of)
			}
			if m.Keepable() != (c.of == "") || len(m.Children()) > 0 && c.mediaType != oci.MediaTypeOCIManifest || string(m.Raw) != c.raw {
				t.Errorf("keepable %v, children %v", m.Keepable(), m.Children())
			}
			if m.Is(digest.FromString(of + " ")) {
				t.Error("another digest is taken")
			}
		})
	}
}

// Bytes that ParseManifest refuses keep their digest and a media type, and name no content.
func TestReadManifest(t *testing.T) {
	for name, c := range map[string]struct {
		mediaType, raw, wantType string
		plausible                bool
	}{
		"a number as annotation":    {oci.MediaTypeOCIManifest, strings.Replace(image, "{", `{"annotations":{"a":1},`, 1), oci.MediaTypeOCIManifest, true},
		"size with an exponent":     {oci.MediaTypeOCIManifest, strings.Replace(image, `"size":9`, `"size":1.1e4`, 1), oci.MediaTypeOCIManifest, true},
		"no schema version":         {oci.MediaTypeOCIIndex, strings.Replace(index, `"schemaVersion":2,`, "", 1), oci.MediaTypeOCIIndex, true},
		"a digest of another kind":  {"application/json", strings.Replace(image, `"sha256:e3b`, `"blake3:e3b`, 1), oci.MediaTypeOCIManifest, true},
		"a number as variant":       {"", strings.Replace(index, `"size":9`, `"size":9,"platform":{"variant":7}`, 1), oci.MediaTypeOCIIndex, true},
		"layers that are no list":   {oci.MediaTypeOCIManifest, `{"schemaVersion":2,"layers":{}}`, oci.MediaTypeOCIManifest, true},
		"a contradiction":           {oci.MediaTypeOCIIndex, image, oci.MediaTypeOCIManifest, true},
		"a kind of its own":         {"application/vnd.x+json", `{"config":1}`, "application/vnd.x+json", true},
		"a type that is no text":    {oci.MediaTypeOCIIndex, `{"mediaType":1}`, oci.MediaTypeOCIIndex, false},
		"a header in a type":        {"", `{"schemaVersion":2,"mediaType":"a/b\nX: y"}`, "application/octet-stream", true},
		"an error":                  {"application/json", `{"errors":[{"code":"UNKNOWN"}]}`, "application/json", false},
		"a page":                    {"text/html", "<html>", "application/octet-stream", false},
		"a page that claims a type": {oci.MediaTypeOCIManifest, "<html>", oci.MediaTypeOCIManifest, false},
		"cut short":                 {oci.MediaTypeOCIManifest, image[:len(image)-1], oci.MediaTypeOCIManifest, false},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := oci.ReadManifest(c.mediaType, []byte(c.raw))
			if err == nil || m.MediaType != c.wantType || m.Plausible() != c.plausible || len(m.Children()) > 0 || m.Subject != nil {
				t.Errorf("%v: type %s, plausible %v, children %v", err, m.MediaType, m.Plausible(), m.Children())
			}
			if m.Digest != digest.FromString(c.raw) || !m.Keepable() {
				t.Errorf("digest %s", m.Digest)
			}
		})
	}
}

// FuzzReadManifest: whatever a registry sends, its bytes stay, and its digest is that of the bytes
// or of a payload that begins as they do.
func FuzzReadManifest(f *testing.F) {
	for _, s := range []string{image, index, "{}", signed(oldPayload, 2), signed(oldPayload, 1, `{"formatLength":5,"formatTail":"fQ"}`)} {
		f.Add(oci.MediaTypeDockerSchema1Signed, []byte(s))
		f.Add("", []byte(s))
	}
	f.Fuzz(func(t *testing.T, mediaType string, raw []byte) {
		sent := bytes.Clone(raw)
		m, err := oci.ReadManifest(mediaType, raw)
		if !bytes.Equal(m.Raw, sent) || !m.Is(m.Digest) || !m.Is(digest.FromBytes(sent)) {
			t.Fatalf("digest %s of %q", m.Digest, m.Raw)
		}
		if m.Digest != digest.FromBytes(sent) && (!m.Schema1() || m.Keepable()) {
			t.Fatalf("a %s has the digest of a part", m.MediaType)
		}
		if err != nil && len(m.Children()) > 0 {
			t.Fatalf("%v, but it has children", err)
		}
		if strings.ContainsAny(m.MediaType, "\r\n") || m.MediaType == "" {
			t.Fatalf("media type %q", m.MediaType)
		}
	})
}
