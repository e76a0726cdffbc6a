package main

import (
	"bytes"
	"testing"

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
