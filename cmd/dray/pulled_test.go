package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"dray/upstream/ecrtest"
	"dray/upstream/oci"
)

// TestOddManifests pulls manifests that dray does not understand, or that no registry would take
// today. Those whose digest is right arrive as they are, by tag, by digest and by HEAD, cold and
// asked for again, with Docker Hub's digests on GET and without.
func TestOddManifests(t *testing.T) {
	img := imageOf(t, layerOf(1, 100))
	edited := func(old, with string) []byte { return bytes.Replace(img.Raw, []byte(old), []byte(with), 1) }
	payload := []byte("{\n \"name\": \"team/old\",\n \"schemaVersion\": 1\n}")
	protected := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"formatLength":%d,"formatTail":"Cn0"}`, len(payload)-2))
	signed := append(bytes.Clone(payload[:len(payload)-2]), fmt.Sprintf(`,"signatures":[{"protected":%q}]`+"\n}", protected)...)
	for name, c := range map[string]struct {
		mediaType string
		raw       []byte
		of        []byte // what the digest covers; nil means raw
		held      bool   // asked for once
	}{
		"signed schema 1":         {oci.MediaTypeDockerSchema1Signed, signed, payload, false},
		"unsigned schema 1":       {oci.MediaTypeDockerSchema1, payload, nil, true},
		"a number as annotation":  {img.MediaType, edited(`"config"`, `"annotations":{"a":7},"config"`), nil, true},
		"a digest of its own":     {img.MediaType, edited("sha256:", "blake3:"), nil, true},
		"a size with an exponent": {img.MediaType, edited(`"size":100`, `"size":1e2`), nil, true},
		"no version":              {img.MediaType, edited(`"schemaVersion":2,`, ""), nil, true},
		"another type inside":     {img.MediaType, edited("manifest.v1", "index.v1"), nil, true},
		"larger than is kept":     {img.MediaType, edited(`"config"`, `"annotations":{"a":"`+strings.Repeat("x", oci.MaxManifestBytes)+`"},"config"`), nil, false},
	} {
		for _, digests := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/%v", name, digests), func(t *testing.T) {
				quirks := ecrtest.Other()
				quirks.DigestOnGet = digests
				s := startBefore(t, ecrtest.Start(t, ecrtest.Options{}), ecrtest.Start(t, ecrtest.Options{Quirks: quirks}), t.TempDir())
				of := c.raw
				if c.of != nil {
					of = c.of
				}
				d := digest.FromBytes(of)
				s.hub.SeedManifest("team/old", "v1", c.mediaType, d, c.raw)
				for range 2 {
					for _, ref := range []string{"v1", d.String()} {
						r := s.want(200, "GET", "/hub/v2/team/old/manifests/"+ref, nil)
						s.header(r, "Docker-Content-Digest", d.String())
						if !bytes.Equal(r.body, c.raw) || r.Header.Get("Warning") != "" {
							t.Errorf("%s: %d bytes, %v", ref, len(r.body), r.Header)
						}
						s.header(s.want(200, "HEAD", "/hub/v2/team/old/manifests/"+ref, nil), "Docker-Content-Digest", d.String())
					}
				}
				if n := s.hub.Count(ecrtest.KindManifestGet); c.held && n > 3 || !c.held && n < 4 {
					t.Errorf("%d requests for the manifest", n)
				}

				if ls := s.printed("ls"); strings.Contains(ls, "1 of ") != c.held {
					t.Errorf("what is held:\n%s", ls)
				}
				wrong := digest.FromBytes(append(of, ' '))
				s.hub.SeedManifest("team/wrong", "v1", c.mediaType, wrong, c.raw)
				s.want(http.StatusBadGateway, "GET", "/hub/v2/team/wrong/manifests/"+wrong.String(), nil)
				if digests {
					s.want(http.StatusBadGateway, "GET", "/hub/v2/team/wrong/manifests/v1", nil)
				}
			})
		}
	}
}
