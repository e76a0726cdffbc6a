package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"dray/upstream/ecrtest"
)

// A client names a registry in place of a prefix, before or after /v2/, and dray asks no other.
func TestRegistryNameInAPath(t *testing.T) {
	s := startStack(t, t.TempDir(), "  prefixes: [hub]\n", "")
	img := seed(t, s.hub, "library/alpine", "3", 5000)
	for _, path := range []string{"/docker.io/v2/library/alpine", "/v2/docker.io/library/alpine", "/v2/docker.io/alpine"} {
		r := s.want(200, "GET", path+"/manifests/3", nil)
		if !bytes.Equal(r.body, img.manifest.Raw) {
			t.Errorf("%s: %s", path, r.body)
		}
		s.want(200, "GET", path+"/blobs/"+img.layer.String(), nil)
	}
	s.want(404, "GET", "/v2/docker.io/alpine/manifests/4", nil)
	if n := s.ecr.Count(ecrtest.KindManifestGet) + s.ecr.Count(ecrtest.KindManifestHead); n > 0 {
		t.Errorf("ECR was asked %d times", n)
	}
}

// Repositories that an upstream excludes are neither pulled, nor pushed, nor mounted from, and no
// registry hears of them. That holds for what the cache has, too.
func TestExcludedRepositories(t *testing.T) {
	dir := t.TempDir()
	ecr, hub := ecrtest.Start(t, ecrtest.Options{BlobMounting: true}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()})
	img := seed(t, hub, "library/alpine", "3", 5000)
	s := startBefore(t, ecr, hub, dir)
	layer := layerOf(1, 3000)
	d := digest.FromBytes(layer)
	s.push("closed/app", "v1", layer)
	s.want(200, "GET", "/v2/hub/alpine/manifests/3", nil)
	s.stop()

	s = startBefore(t, ecr, hub, dir,
		"  push: true", "  push: true\n  repositories: {deny: [closed/*]}", "  prefixes: [hub]", "  prefixes: [hub]\n  repositories: {allow: [team/*]}")
	<-ecr.Idle()
	ecr.ResetCounters()
	hub.ResetCounters()
	for _, path := range []string{"manifests/v1", "blobs/" + d.String(), "tags/list", "referrers/" + d.String()} {
		r := s.want(403, "GET", "/v2/closed/app/"+path, nil)
		if !bytes.Contains(r.body, []byte("matches repositories.deny")) {
			t.Errorf("%s: %s", path, r.body)
		}
	}
	s.want(403, "POST", "/v2/closed/new/blobs/uploads/", nil)
	s.want(403, "POST", "/v2/open/app/blobs/uploads/?mount="+d.String()+"&from=closed/app", nil)
	for _, path := range []string{"/v2/hub/alpine/manifests/3", "/hub/v2/library/alpine/manifests/3", "/v2/hub/library/alpine/blobs/" + img.layer.String()} {
		r := s.want(403, "GET", path, nil)
		if !bytes.Contains(r.body, []byte("nothing in repositories.allow")) {
			t.Errorf("%s: %s", path, r.body)
		}
	}
	s.want(404, "GET", "/v2/open/app/blobs/"+d.String(), nil)
	for _, e := range append(ecr.Log(), hub.Log()...) {
		if strings.Contains(e.Path, "closed/") || strings.Contains(e.Path, "alpine") {
			t.Errorf("%s %s", e.Method, e.Path)
		}
	}
	s.push("open/app", "v1", layer)
}

// A name that looks like another registry's costs Docker Hub no request. An upstream that could
// have such a repository is asked, and what it lacks is explained.
func TestNameOfAnotherRegistry(t *testing.T) {
	s := startStack(t, t.TempDir())
	<-s.ecr.Idle()
	<-s.hub.Idle()
	s.ecr.ResetCounters()
	s.hub.ResetCounters()
	const add = "for org/app of the registry quay.io, add quay.io to upstreams in the configuration of dray"
	for _, tc := range []struct{ path, want string }{
		{"/v2/hub/quay.io/org/app/manifests/1", "the upstream hub has no repository quay.io/org/app; " + add},
		{"/hub/v2/quay.io/org/app/manifests/1", "the upstream hub has no repository quay.io/org/app; " + add},
		{"/v2/quay.io/org/app/manifests/1?ns=docker.io", "the upstream hub has no repository quay.io/org/app; " + add},
		{"/v2/quay.io/org/app/manifests/1", "does not exist in the registry with id '123456789012'; " + add},
		{"/v2/aws/docker.io/org/app/manifests/1", "; for org/app of docker.io, leave out what is before docker.io in the name of the image"},
	} {
		if r := s.want(404, "GET", tc.path, nil); !bytes.Contains(r.body, []byte(tc.want)) {
			t.Errorf("%s: %s", tc.path, r.body)
		}
	}
	if hub, ecr := len(s.hub.Log()), s.ecr.Count(ecrtest.KindManifestGet); hub != 0 || ecr != 2 {
		t.Errorf("Docker Hub got %d requests, ECR %d: %v", hub, ecr, s.hub.Sequence())
	}
	layer := layerOf(1, 2000)
	s.push("quay.io/org/app", "1", layer)
	s.want(200, "GET", "/v2/quay.io/org/app/manifests/1", nil)
	if r := s.want(404, "GET", "/v2/quay.io/org/app/blobs/"+digest.FromString("x").String(), nil); bytes.Contains(r.body, []byte("upstreams")) {
		t.Errorf("the repository exists: %s", r.body)
	}
}
