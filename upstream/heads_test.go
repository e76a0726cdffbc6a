package upstream_test

import (
	"bytes"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/upstream"
	"dray/upstream/oci"
	"dray/upstream/upstreamtest"
)

// TestHeadIsAnOptimisation: GET decides what HEAD does not answer. A registry that serves no HEAD
// is asked by GET alone, and by HEAD again after an hour.
func TestHeadIsAnOptimisation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		served := false
		n := &network{fault: func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodHead && !served {
				return respond(r, 404, "", nil), nil
			}
			return nil, nil
		}}
		c := upstreamtest.NewClient(t, upstream.Options{Name: "x", Base: parse(t, "http://registry.example"), Transport: n})
		stat := func(heads, gets int) {
			t.Helper()
			n.asked = nil
			d, err := c.StatManifest(t.Context(), upstream.Repo{Name: "a"}, oci.Reference{Tag: "v1"}, nil)
			if err != nil || d.Digest != digest.FromBytes(d.Data) || !bytes.Contains(d.Data, []byte("manifests")) {
				t.Errorf("%+v, %v", d, err)
			}
			if h, g := n.count("HEAD registry.example/v2/a/manifests/v1"), n.count("GET registry.example/v2/a/manifests/v1"); h != heads || g != gets {
				t.Errorf("%d HEAD and %d GET, want %d and %d", h, g, heads, gets)
			}
		}
		for range 3 {
			stat(1, 1)
		}
		stat(0, 1)
		time.Sleep(time.Hour)
		stat(1, 1)
		stat(0, 1)
		time.Sleep(time.Hour)
		served = true
		n.fault = func(r *http.Request) (*http.Response, error) {
			if r.Method != http.MethodHead {
				return nil, nil
			}
			return respond(r, 200, "", http.Header{"Content-Type": {oci.MediaTypeOCIIndex}, "Docker-Content-Digest": {digest.FromString("x").String()}}), nil
		}
		for range 5 {
			n.asked = nil
			d, err := c.StatManifest(t.Context(), upstream.Repo{Name: "a"}, oci.Reference{Tag: "v1"}, nil)
			if err != nil || d.Digest != digest.FromString("x") || d.Data != nil || len(n.asked) != 1 {
				t.Errorf("%+v, %v after %q", d, err, n.asked)
			}
		}
	})
}

// TestHeadWithoutAnAnswer: where nothing answers HEAD, GET would wait as long again.
func TestHeadWithoutAnAnswer(t *testing.T) {
	for name, fault := range map[string]func(*http.Request) (*http.Response, error){
		"unreachable": func(*http.Request) (*http.Response, error) { return nil, errors.New("refused") },
		"throttled":   func(r *http.Request) (*http.Response, error) { return respond(r, 429, "", nil), nil },
		"busy": func(r *http.Request) (*http.Response, error) {
			return respond(r, 503, "", http.Header{"Retry-After": {"3"}}), nil
		},
	} {
		n := &network{fault: fault}
		c := upstreamtest.NewClient(t, upstream.Options{Name: "x", Base: parse(t, "http://registry.example"), Transport: n})
		if _, err := c.StatManifest(t.Context(), upstream.Repo{Name: "a"}, oci.Reference{Tag: "v1"}, nil); !upstream.Transient(err) || len(n.asked) != 1 {
			t.Errorf("%s: %v after %q", name, err, n.asked)
		}
	}
}

// TestBlobHeadRefused: a size is told by the first byte where HEAD is refused, and "not found" is
// what it says.
func TestBlobHeadRefused(t *testing.T) {
	for status, ranged := range map[int]bool{403: true, 400: true, 404: true} {
		n := &network{fault: func(r *http.Request) (*http.Response, error) {
			switch {
			case r.URL.Host != "storage":
				return nil, nil
			case r.Method == http.MethodHead:
				return respond(r, status, "", nil), nil
			}
			return respond(r, 206, "x", http.Header{"Content-Range": {"bytes 0-0/17"}}), nil
		}}
		c := upstreamtest.NewClient(t, upstream.Options{Name: "x", Base: parse(t, "http://registry.example"), Transport: n})
		if size, err := c.StatBlob(t.Context(), upstream.Repo{Name: "a/storage"}, digest.FromString("x")); err != nil || size != 17 || ranged != (n.count("GET storage/object") == 1) {
			t.Errorf("%d: %d, %v", status, size, err)
		}
	}
	for status, ranged := range map[int]bool{405: true, 501: true, 403: true, 400: true, 404: false, 401: false} {
		n := &network{fault: func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodHead {
				return respond(r, status, "", nil), nil
			}
			return respond(r, 206, "x", http.Header{"Content-Range": {"bytes 0-0/17"}}), nil
		}}
		c := upstreamtest.NewClient(t, upstream.Options{Name: "x", Base: parse(t, "http://registry.example"), Transport: n})
		if size, err := c.StatBlob(t.Context(), upstream.Repo{Name: "a"}, digest.FromString("x")); (err == nil && size == 17) != ranged || len(n.asked) == 2 != ranged {
			t.Errorf("%d: %d, %v after %q", status, size, err, n.asked)
		}
	}
}

// TestOwnNameWithoutTLS: a registry that does not know of the TLS before it names itself by http.
// Nobody else may lead from TLS to plain HTTP, and the client is told.
func TestOwnNameWithoutTLS(t *testing.T) {
	for location, follows := range map[string]string{
		"http://registry.example/files/x":      "https://registry.example/files/x",
		"http://REGISTRY.example:80/files/x":   "https://registry.example/files/x",
		"http://registry.example:5000/files/x": "", // another server on the same machine
		"https://registry.example:8443/x":      "https://registry.example:8443/x",
		"http://storage.example/x":             "",
		"http://a.registry.example/x":          "",
	} {
		asked := ""
		via := roundTrip(func(r *http.Request) (*http.Response, error) {
			if r.URL.Path == "/v2/a/blobs/"+digest.FromString("x").String() {
				return respond(r, 302, "", http.Header{"Location": {location}}), nil
			}
			asked = r.URL.String()
			return respond(r, 200, "x", nil), nil
		})
		c := upstreamtest.NewClient(t, upstream.Options{Name: "x", Base: parse(t, "https://registry.example"), Transport: via})
		if err := openBlob(t.Context(), c, "a"); asked != follows || (err == nil) != (follows != "") || err != nil && !strings.Contains(err.Error(), "from https to http") {
			t.Errorf("%s: asked %q, %v", location, asked, err)
		}
	}
}
