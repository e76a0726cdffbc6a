package oci_test

import (
	"errors"
	"strings"
	"testing"

	"dray/upstream/oci"
)

const (
	d1 = `"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"`
	d2 = `"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"`

	image = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":` + d2 + `,"size":2},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":` + d1 + `,"size":9}]}`
	index = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":` + d1 + `,"size":9}]}`
)

func TestParseManifest(t *testing.T) {
	for _, tc := range []struct{ name, mediaType, raw, wantType, children string }{
		{"image", oci.MediaTypeOCIManifest, image, oci.MediaTypeOCIManifest, "bb"},
		{"index", oci.MediaTypeOCIIndex, index, oci.MediaTypeOCIIndex, "m"},
		{"type parameters", oci.MediaTypeOCIIndex + "; charset=utf-8", index, oci.MediaTypeOCIIndex, "m"},
		{"vague type", "application/json", image, oci.MediaTypeOCIManifest, "bb"},
		{"no type at all", "", `{"schemaVersion":2,"config":{"mediaType":"x","digest":` + d1 + `,"size":1},"layers":[]}`, oci.MediaTypeOCIManifest, "b"},
		{"no type, index", "", `{"schemaVersion":2,"manifests":[]}`, oci.MediaTypeOCIIndex, ""},
		{"old BuildKit cache: an index of layers", "", `{"schemaVersion":2,"mediaType":"` + oci.MediaTypeOCIIndex + `","manifests":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":` + d1 + `,"size":1}]}`, oci.MediaTypeOCIIndex, "b"},
		{"names that only look like members", "", `{"schemaVersion":2,"layers":[],"Layers":[{"digest":` + d1 + `,"size":1}],"blobs":[{"digest":` + d2 + `,"size":1}]}`, oci.MediaTypeOCIManifest, ""},
		{"names in descriptors", "", `{"schemaVersion":2,"layers":[{"digest":` + d1 + `,"Digest":` + d2 + `,"size":1}]}`, oci.MediaTypeOCIManifest, "b"},
		{"artifact", "", `{"mediaType":"` + oci.MediaTypeOCIArtifact + `","blobs":[{"digest":` + d1 + `,"size":1}]}`, oci.MediaTypeOCIArtifact, "b"},
		{"schema 1 with layers", oci.MediaTypeDockerSchema1, `{"schemaVersion":1,"layers":[{"digest":` + d1 + `,"size":1}]}`, oci.MediaTypeDockerSchema1, ""},
		{"schema 1", oci.MediaTypeDockerSchema1Signed, `{"schemaVersion":1,"fsLayers":[]}`, oci.MediaTypeDockerSchema1Signed, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m, err := oci.ParseManifest(tc.mediaType, []byte(tc.raw))
			if err != nil {
				t.Fatal(err)
			}
			kinds := ""
			for _, c := range m.Children() {
				if c.Manifest {
					kinds += "m"
				} else {
					kinds += "b"
				}
			}
			if m.MediaType != tc.wantType || kinds != tc.children || string(m.Raw) != tc.raw {
				t.Errorf("got type %q children %q", m.MediaType, kinds)
			}
		})
	}
}

// A build cache is recognised by the type of its configuration, and an index of blobs by any entry
// that is a blob.
func TestBuildCache(t *testing.T) {
	own := `{"mediaType":"` + oci.MediaTypeBuildKitCache + `","digest":` + d1 + `,"size":1}`
	for _, tc := range []struct {
		raw                   string
		cache, listed, embeds bool
	}{
		{image, false, false, false},
		{index, false, false, false},
		{`{"schemaVersion":2,"config":{"mediaType":"x/y","digest":` + d2 + `,"size":2,"data":"e30="},"layers":[]}`, false, false, true},
		{`{"schemaVersion":2,"config":` + own + `,"layers":[{"mediaType":"x/y","digest":` + d2 + `,"size":2,"data":"e30="}]}`, true, false, true},
		{`{"schemaVersion":2,"config":` + own + `,"layers":[]}`, true, false, false},
		{`{"schemaVersion":2,"config":{"mediaType":"x/y","digest":` + d2 + `,"size":1},"layers":[` + own + `]}`, false, false, false},
		{`{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":` + d2 + `,"size":1},` + own + `]}`, true, true, false},
		{`{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":` + d2 + `,"size":1}]}`, false, true, false},
	} {
		m, err := oci.ParseManifest("", []byte(tc.raw))
		if err != nil {
			t.Fatal(err)
		}
		if m.BuildCache() != tc.cache || m.ListsBlobs() != tc.listed || m.Embeds() != tc.embeds {
			t.Errorf("%s: build cache %v, lists blobs %v, embeds %v", tc.raw, m.BuildCache(), m.ListsBlobs(), m.Embeds())
		}
	}
}

func TestParseManifestRefuses(t *testing.T) {
	for _, tc := range []struct {
		name, mediaType, raw string
		want                 *oci.Error
	}{
		{"empty", "", "", oci.ErrManifestInvalid},
		{"no object", "", `"x"`, oci.ErrManifestInvalid},
		{"null", "", `null`, oci.ErrManifestInvalid},
		{"cut short", oci.MediaTypeOCIManifest, image[:len(image)-5], oci.ErrManifestInvalid},
		{"trailing data", oci.MediaTypeOCIManifest, image + "x", oci.ErrManifestInvalid},
		{"contradiction", oci.MediaTypeOCIIndex, image, oci.ErrManifestInvalid},
		{"both", "", `{"schemaVersion":2,"layers":[],"manifests":[]}`, oci.ErrManifestInvalid},
		{"type does not fit", oci.MediaTypeOCIIndex, `{"schemaVersion":2,"layers":[]}`, oci.ErrManifestInvalid},
		{"index as image", oci.MediaTypeOCIManifest, `{"schemaVersion":2,"manifests":[]}`, oci.ErrManifestInvalid},
		{"version", "", `{"schemaVersion":3,"layers":[]}`, oci.ErrManifestInvalid},
		{"digest", "", `{"schemaVersion":2,"layers":[{"digest":"sha256:1","size":1}]}`, oci.ErrManifestInvalid},
		{"path as digest", "", `{"schemaVersion":2,"layers":[{"digest":"../../etc/passwd","size":1}]}`, oci.ErrManifestInvalid},
		{"header in a media type", "", `{"schemaVersion":2,"mediaType":"a/b\nX: y","layers":[]}`, oci.ErrManifestInvalid},
		{"endless media type", "", `{"schemaVersion":2,"mediaType":"a/` + strings.Repeat("b", 300) + `","layers":[]}`, oci.ErrManifestInvalid},
		{"endless media type of a layer", "", `{"schemaVersion":2,"layers":[{"mediaType":"a/` + strings.Repeat("b", 300) + `","digest":` + d1 + `,"size":1}]}`, oci.ErrManifestInvalid},
		{"size", "", `{"schemaVersion":2,"layers":[{"digest":` + d1 + `,"size":-1}]}`, oci.ErrManifestInvalid},
		{"too large", "", `{"schemaVersion":2,"layers":[],"annotations":{"a":"` + strings.Repeat("x", oci.MaxManifestBytes) + `"}}`, oci.ErrSizeInvalid},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if m, err := oci.ParseManifest(tc.mediaType, []byte(tc.raw)); !errors.Is(err, tc.want) {
				t.Errorf("got %+v, %v; want %v", m, err, tc.want)
			}
		})
	}
}

func FuzzParseManifest(f *testing.F) {
	for _, s := range []string{image, index, `{"schemaVersion":1}`, `{}`} {
		f.Add("", []byte(s))
		f.Add(oci.MediaTypeOCIIndex, []byte(s))
	}
	f.Fuzz(func(t *testing.T, mediaType string, raw []byte) {
		m, err := oci.ParseManifest(mediaType, raw)
		if err != nil {
			if _, ok := errors.AsType[*oci.Error](err); !ok {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		for _, c := range m.Children() {
			if c.Digest.Validate() != nil || c.Size < 0 {
				t.Fatalf("accepted child %+v", c)
			}
		}
		if again, err := oci.ParseManifest(m.MediaType, raw); err != nil || again.MediaType != m.MediaType {
			t.Fatalf("unstable: %v, %v", again, err)
		}
	})
}

func TestAcceptKey(t *testing.T) {
	a := oci.AcceptKey([]string{oci.MediaTypeOCIIndex, oci.MediaTypeDockerManifest + ";q=0.5", "text/plain"})
	b := oci.AcceptKey([]string{oci.MediaTypeDockerManifest + ", " + oci.MediaTypeOCIIndex})
	if a != b || a == "*" {
		t.Errorf("%q != %q", a, b)
	}
	if got := oci.AcceptKey([]string{"application/json"}); got == "*" {
		t.Error("a client that takes no manifest shares the key of one that takes all")
	}
	if got := oci.AcceptKey(nil); got != "*" || oci.AcceptKey([]string{"*/*"}) != got {
		t.Errorf("absent Accept gives %q", got)
	}
	if !oci.Accepts(nil, "x/y") || !oci.Accepts([]string{"a/b, */*;q=0.1"}, "x/y") || oci.Accepts([]string{"a/b"}, "x/y") {
		t.Error("Accepts")
	}
}
