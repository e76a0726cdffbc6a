package main

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
	"time"

	"dray/upstream/ecrtest"
)

var readKinds = []ecrtest.Kind{ecrtest.KindManifestGet, ecrtest.KindManifestHead, ecrtest.KindBlobGet, ecrtest.KindBlobHead, ecrtest.KindTags}

// While the upstream fails in a way that says nothing about the tag, dray still serves the held
// content and marks it as stale. An answer about the tag counts.
func TestStaleWhileTheUpstreamFails(t *testing.T) {
	for name, tc := range map[string]struct {
		fault  ecrtest.Fault
		status int
		code   string // of the error; empty: the old answer
	}{
		"closes connections":  {ecrtest.Fault{Close: true}, 200, ""},
		"500":                 {ecrtest.Fault{Status: 500}, 200, ""},
		"503":                 {ecrtest.Fault{Status: 503}, 200, ""},
		"throttles":           {ecrtest.Fault{Status: 429}, 200, ""},
		"refuses dray":        {ecrtest.Fault{Status: 403, Code: "DENIED", Message: "Your authorization token has expired. Reauthenticate and try again."}, 200, ""},
		"takes the right":     {ecrtest.Fault{Status: 403, Code: "DENIED", Message: "User: x is not authorized to perform: ecr:BatchGetImage"}, 403, "DENIED"},
		"has no such tag":     {ecrtest.Fault{Status: 404, Code: "MANIFEST_UNKNOWN"}, 404, "MANIFEST_UNKNOWN"},
		"lost the repository": {ecrtest.Fault{Status: 404, Code: "NAME_UNKNOWN"}, 404, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := startStack(t, t.TempDir(), "fresh: 1h", "fresh: 0s", "not_found: 1h", "not_found: 0s")
			img := seed(t, s.ecr, "team/app", "v1", 10<<10)
			s.want(200, "GET", "/v2/team/app/manifests/v1", nil)
			s.want(200, "GET", "/v2/team/app/blobs/"+img.layer.String(), nil)
			tc.fault.Kinds, tc.fault.Count = readKinds, -1
			s.ecr.AddFault(tc.fault)
			for range 2 {
				r := s.do("GET", "/v2/team/app/manifests/v1", nil)
				stale := r.Header.Get("X-Cache") == "stale" && strings.HasPrefix(r.Header.Get("Warning"), "110 ")
				switch {
				case r.StatusCode != tc.status || stale != (tc.status == 200):
					t.Errorf("%s %v, want %d", r.Status, r.Header, tc.status)
				case tc.code != "":
					if msg := s.checkError(r, "GET", tc.status, tc.code); !strings.Contains(msg, tc.fault.Message) {
						t.Errorf("the message is %q", msg)
					}
				case tc.status == 200 && !bytes.Equal(r.body, img.manifest.Raw):
					t.Error("another manifest")
				}
			}
			// Content does not move: by digest it is served whatever happens to the tag.
			s.want(200, "GET", "/v2/team/app/manifests/"+img.manifest.Digest.String(), nil)
			s.want(200, "GET", "/v2/team/app/blobs/"+img.layer.String(), nil)
		})
	}
}

// TestStaleForOtherClients: while the upstream fails, a client gets what another kind of client was
// told about a tag, if it accepts that type of manifest, and if that is not too old.
func TestStaleForOtherClients(t *testing.T) {
	const index = "application/vnd.oci.image.index.v1+json"
	for bound, want := range map[string]int{"24h": 200, "0s": 503} {
		s := startStack(t, t.TempDir(), "stale: 24h", "stale: "+bound)
		img := seed(t, s.ecr, "team/app", "v1", 10<<10)
		first, others := img.manifest.MediaType+", "+index, img.manifest.MediaType+", application/vnd.oci.artifact.manifest.v1+json"
		s.want(200, "GET", "/v2/team/app/manifests/v1", nil, "Accept", first)
		s.ecr.AddFault(ecrtest.Fault{Kinds: readKinds, Count: -1, Status: 403, Code: "DENIED", Message: "Your authorization token has expired. Reauthenticate and try again."})
		for _, method := range []string{"HEAD", "GET"} {
			r := s.do(method, "/v2/team/app/manifests/v1", nil, "Accept", others)
			if stale := r.Header.Get("X-Cache") == "stale" && strings.HasPrefix(r.Header.Get("Warning"), "110 "); r.StatusCode != want || stale != (want == 200) {
				t.Errorf("stale for %s: %s %s %v, want %d", bound, method, r.Status, r.Header, want)
			}
		}
		s.want(503, "GET", "/v2/team/app/manifests/v1", nil, "Accept", index)
		// The answer to a client that accepts no list may be one image of a list.
		s.want(503, "GET", "/v2/team/app/manifests/v1", nil, "Accept", first+", application/vnd.docker.distribution.manifest.list.v2+json")
		s.want(200, "GET", "/v2/team/app/manifests/v1", nil, "Accept", first) // it is fresh
	}
}

// Behind its bound an old answer is worth nothing.
func TestStaleBound(t *testing.T) {
	for bound, want := range map[string]int{"1h": 200, "0s": 503, "1ms": 503} {
		t.Run(bound, func(t *testing.T) {
			s := startStack(t, t.TempDir(), "fresh: 1h", "fresh: 0s", "stale: 24h", "stale: "+bound)
			seed(t, s.ecr, "team/app", "v1", 10<<10)
			s.want(200, "GET", "/v2/team/app/manifests/v1", nil)
			for start := time.Now(); time.Since(start) < 2*time.Millisecond; {
				s.want(200, "GET", "/v2/", nil)
			}
			s.ecr.AddFault(ecrtest.Fault{Kinds: readKinds, Count: -1, Status: 503})
			if r := s.do("GET", "/v2/team/app/manifests/v1", nil); r.StatusCode != want {
				t.Errorf("%s, want %d", r.Status, want)
			}
		})
	}
}

// Without tokens from AWS, from the very start on, what is held is served and the rest fails with a
// reason; the first request after AWS is back succeeds.
func TestStaleWithoutTokens(t *testing.T) {
	dir := t.TempDir()
	s := startStack(t, dir, "fresh: 1h", "fresh: 0s", "not_found: 1h", "not_found: 0s")
	img := seed(t, s.ecr, "team/app", "v1", 10<<10)
	cold := seed(t, s.ecr, "team/cold", "v1", 10<<10)
	s.want(200, "GET", "/v2/team/app/manifests/v1", nil)
	s.want(200, "GET", "/v2/team/app/blobs/"+img.layer.String(), nil)
	s.stop()
	down := s.ecr.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{"GetAuthorizationToken"}, Count: -1, Status: 503})
	s = startBefore(t, s.ecr, s.hub, dir, "fresh: 1h", "fresh: 0s", "not_found: 1h", "not_found: 0s")
	r := s.want(200, "GET", "/v2/team/app/manifests/v1", nil)
	s.header(r, "X-Cache", "stale")
	s.header(s.want(200, "GET", "/v2/team/app/blobs/"+img.layer.String(), nil), "X-Cache", "disk")
	for _, path := range []string{"/v2/team/cold/manifests/v1", "/v2/team/cold/blobs/" + cold.layer.String(), "/v2/team/app/tags/list", "/v2/team/app/manifests/v2"} {
		if _, msg := s.refused(503, "UNAVAILABLE", "GET", path, nil); !strings.Contains(msg, "the ECR API of the region eu-west-1 gives this mirror no token") {
			t.Errorf("%s: the message is %q", path, msg)
		}
	}
	s.want(200, "GET", "/v2/", nil)
	s.ecr.RemoveFault(down)
	// The pause after failed calls to AWS has to pass.
	give := time.Now().Add(time.Minute)
	for tick := time.NewTicker(50 * time.Millisecond); ; <-tick.C {
		if r := s.do("GET", "/v2/team/cold/manifests/v1", nil); r.StatusCode == http.StatusOK {
			break
		} else if time.Now().After(give) {
			t.Fatalf("a minute after AWS is back: %s %s", r.Status, r.body)
		}
	}
	s.header(s.want(200, "GET", "/v2/team/app/manifests/v1", nil), "X-Cache", "cache")
}
