package main

import (
	"bytes"
	"testing"

	"github.com/opencontainers/go-digest"

	"dray/upstream/ecrtest"
	"dray/upstream/oci"
)

func TestBudgetPush(t *testing.T) {
	s := startStack(t, t.TempDir())
	s.ecr.CreateRepository("team/app")
	layers := [][]byte{bytes.Repeat([]byte("a"), 700<<10), bytes.Repeat([]byte("b"), 11<<20)}
	m := s.push("team/app", "v1", layers...)
	// b new blobs: b uploads (start, one body, close) + 1 manifest.
	spent(t, s.ecr, kinds{"GetAuthorizationToken": 1, "upload-start": 3, "upload-patch": 3, "upload-put": 3, "manifest-put": 1})

	// The pushed image is a hit: by tag, by digest, every blob.
	for _, ref := range []string{"v1", m.Digest.String()} {
		if r := s.want(200, "GET", "/v2/team/app/manifests/"+ref, nil, "Accept", oci.MediaTypeOCIManifest); !bytes.Equal(r.body, m.Raw) {
			t.Errorf("manifest %s differs", ref)
		}
	}
	for _, l := range layers {
		if r := s.want(200, "GET", "/v2/team/app/blobs/"+digest.FromBytes(l).String(), nil); !bytes.Equal(r.body, l) {
			t.Error("a layer differs")
		}
	}
	spent(t, s.ecr, kinds{})

	// An identical image: no blob, at most one manifest request.
	for _, l := range append(layers, imageConfig) {
		s.want(200, "HEAD", "/v2/team/app/blobs/"+digest.FromBytes(l).String(), nil)
	}
	s.want(201, "PUT", "/v2/team/app/manifests/v1", m.Raw, "Content-Type", m.MediaType)
	spent(t, s.ecr, kinds{"manifest-put": 1})

	img, ok := s.ecr.Image("team/app", "v1")
	if !ok || !bytes.Equal(img.Raw, m.Raw) {
		t.Error("ECR does not have the manifest byte for byte")
	}
}

func TestBudgetFirstPushToANewRepository(t *testing.T) {
	sw := ecrtest.DefaultSwitches()
	sw.CreationDelay = 0
	s := startBefore(t, ecrtest.Start(t, ecrtest.Options{Switches: &sw}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()}), t.TempDir())
	s.push("brand/new", "v1", []byte("one layer"))
	// + 1 refused request + 1 CreateRepository.
	spent(t, s.ecr, kinds{"GetAuthorizationToken": 1, "CreateRepository": 1, "upload-start": 3, "upload-patch": 2, "upload-put": 2, "manifest-put": 1})

	s = startBefore(t, ecrtest.Start(t, ecrtest.Options{Switches: &sw}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()}), t.TempDir(), checked("")...)
	if r := s.pushImage("brand/new", "v1", newImage(t, plainConfig, gzipOf(t, tarOf(t, "a", "b")))); r.StatusCode != 201 {
		t.Fatalf("%s %s", r.Status, r.body)
	}
	// + 1 refused request before the verdict, 1 after it + 1 CreateRepository.
	spent(t, s.ecr, kinds{"GetAuthorizationToken": 1, "CreateRepository": 1, "upload-start": 4, "upload-patch": 2, "upload-put": 2, "manifest-put": 1})

	// ECR finds the repository after a second: + 1 refused request after 0.1, 0.3 and 0.7 s.
	s = startStack(t, t.TempDir())
	s.push("brand/new", "v1", []byte("one layer"))
	<-s.ecr.Idle()
	if n := s.ecr.Count("CreateRepository"); n != 1 {
		t.Errorf("%d calls of CreateRepository, want 1", n)
	}
	if n := s.ecr.Count(ecrtest.KindUploadStart); n < 4 || n > 7 {
		t.Errorf("%d starts of uploads, want 3 and some until ECR finds the repository", n)
	}
}

// A client that asks by HEAD where pushes are taken may be about to push, so the registry has to
// have confirmed the manifest lately.
func TestBudgetHeadBeforeAPush(t *testing.T) {
	s, img := warm(t)
	head := func() {
		t.Helper()
		for range 3 {
			s.want(200, "HEAD", "/v2/team/app/manifests/"+img.manifest.Digest.String(), nil)
		}
	}
	head()
	spent(t, s.ecr, kinds{})

	s, img = warm(t, "fresh: 1h", "fresh: 0s")
	head()
	spent(t, s.ecr, kinds{"manifest-head": 3})
	s.want(200, "GET", "/v2/team/app/manifests/"+img.manifest.Digest.String(), nil)
	spent(t, s.ecr, kinds{})

	s, img = warm(t, "fresh: 1h", "fresh: 0s", "{name: main,", "{name: main, role: mirror,")
	head()
	spent(t, s.ecr, kinds{})
}

// The first client that asks what to push finds out that the registry is silent. The next ones cost
// nothing until dray asks again, some seconds later.
func TestBudgetHeadDuringAnOutage(t *testing.T) {
	s := startStack(t, t.TempDir(), acknowledging...)
	s.want(404, "HEAD", "/v2/team/app/manifests/before", nil) // otherwise, dray would still be asking for a token
	s.ecr.AddFault(ecrtest.Fault{Close: true, Count: -1})
	absent := digest.FromString("absent").String()
	s.want(404, "HEAD", "/v2/team/app/blobs/"+absent, nil)
	<-s.ecr.Idle()
	s.ecr.ResetCounters()
	for range 10 {
		s.want(404, "HEAD", "/v2/team/app/blobs/"+absent, nil)
		s.want(404, "HEAD", "/v2/team/app/manifests/"+absent, nil)
		s.want(404, "HEAD", "/v2/team/app/manifests/v1", nil)
		s.want(202, "POST", "/v2/team/app/blobs/uploads/?from=team/base&mount="+absent, nil)
	}
	spent(t, s.ecr, kinds{})
}
