package ecrtest

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Whatever the path, the call that is read from it names what the path ends with.
func FuzzParseCall(f *testing.F) {
	for _, p := range []string{"/v2/", "/v2/a/b/manifests/v1", "/v2/a/blobs/uploads/", "/v2/a/blobs/uploads/x", "/v2/a/blobs/sha256:00", "/v2/tags/list/tags/list",
		"/v2/a/referrers/sha256:00", "/v2/_catalog", "/token", "/v2//manifests/", "/v2/a/blobs/uploads"} {
		f.Add("GET", p)
	}
	f.Fuzz(func(t *testing.T, method, path string) {
		r := &http.Request{Method: method, URL: &url.URL{Path: path}}
		c := parseCall(r)
		if c.Repo == "" {
			return
		}
		if !strings.HasPrefix(path, "/v2/"+c.Repo+"/") || !strings.HasSuffix(path, c.RawRef) || !strings.HasSuffix(path, c.Session) {
			t.Errorf("%q: %+v", path, c)
		}
		if c.Tag != "" && c.Digest != "" || c.Digest != "" && c.Digest.Validate() != nil {
			t.Errorf("%q: %+v", path, c)
		}
	})
}

// A manifest that is taken keeps its bytes, has sound digests only, and stays convertible there and
// back without a panic.
func FuzzParseDocument(f *testing.F) {
	const layer = `{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":1}`
	f.Add(v1.MediaTypeImageManifest, []byte(`{"schemaVersion":2,"config":`+layer+`,"layers":[`+layer+`]}`), true)
	f.Add(v1.MediaTypeImageIndex, []byte(`{"schemaVersion":2,"manifests":[`+layer+`]}`), false)
	f.Add("", []byte(`{"schemaVersion":1,"fsLayers":[{"blobSum":"sha256:x"}]}`), true)
	f.Fuzz(func(t *testing.T, contentType string, raw []byte, strict bool) {
		doc, err := parseDocument(contentType, raw, strictness{strict, strict, strict, strict})
		if err != nil {
			return
		}
		if !bytes.Equal(doc.raw, raw) || strict && !isManifest(doc.media) {
			t.Errorf("%+v", doc)
		}
		for _, b := range doc.blobs {
			if b.Digest.Validate() != nil {
				t.Errorf("blob %q", b.Digest)
			}
		}
		for _, c := range doc.children {
			if c.Validate() != nil {
				t.Errorf("child %q", c)
			}
		}
		if other, ok := counterpart(doc.media); ok {
			convert(doc, accepted{other: true}, true)
		}
	})
}

// A signed URL with anything changed is refused.
func FuzzCheckSignature(f *testing.F) {
	s, err := New(Options{ObjectsURL: "http://objects.test", Dir: f.TempDir()})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("/abcd-123456789012-x/y", "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=ASIA0000000000000000/20260301/eu-west-1/s3/aws4_request&X-Amz-Date=20260301T000000Z&X-Amz-Expires=1&X-Amz-Signature=00")
	f.Add("/", "X-Amz-Credential=////")
	f.Fuzz(func(t *testing.T, path, query string) {
		r := httptest.NewRequest(http.MethodGet, "http://objects.test/", nil)
		r.URL.Path, r.URL.RawQuery = path, query
		if s.checkSignature(r) == nil {
			t.Errorf("accepted %s?%s", path, query)
		}
	})
}

// Patterns of IAM: a star is any run of characters, also none.
func TestWildcard(t *testing.T) {
	for _, tc := range []struct {
		pattern, s string
		want       bool
	}{
		{"*", "", true}, {"", "", true}, {"", "a", false}, {"a*", "a", true}, {"a*c", "abbc", true}, {"a*c", "abb", false}, {"*/b", "a/b", true},
		{"*a*a*", "banana", true}, {"*a*z*", "banana", false}, {"dev", "dev", true}, {"dev", "dev1", false},
	} {
		if got := wildcard(tc.pattern, tc.s); got != tc.want {
			t.Errorf("%q %q: %v", tc.pattern, tc.s, got)
		}
	}
}
