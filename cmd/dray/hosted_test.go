package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/upstream/ecrtest"
	"dray/upstream/oci"
)

// hosting are the edits that give a stack an upstream of kind local, with more settings of its own
// in YAML.
func hosting(more string) []string {
	return []string{"upstreams: [ecr, hub]", "upstreams: [ecr, hub, own]", "upstreams:\n", "upstreams:\n- {name: own, kind: local, prefixes: [own], local: {" + more + "}}\n"}
}

// served holds that an image can be pulled as a whole.
func (s *stack) served(repo, tag string, m *oci.Manifest, layers ...[]byte) {
	s.Helper()
	if r := s.want(200, "GET", "/v2/"+repo+"/manifests/"+tag, nil); !bytes.Equal(r.body, m.Raw) || r.Header.Get("Content-Type") != m.MediaType || r.Header.Get("Docker-Content-Digest") != m.Digest.String() {
		s.Errorf("%s:%s: another manifest, or as another", repo, tag)
	}
	s.want(200, "GET", "/v2/"+repo+"/manifests/"+m.Digest.String(), nil)
	for _, l := range append(layers, imageConfig) {
		at := "/v2/" + repo + "/blobs/" + digest.FromBytes(l).String()
		if r := s.want(200, "GET", at, nil); !bytes.Equal(r.body, l) {
			s.Errorf("%s: other bytes", at)
		}
		if r := s.want(200, "HEAD", at, nil); r.ContentLength != int64(len(l)) {
			s.Errorf("%s: %d bytes", at, r.ContentLength)
		}
	}
}

// askedNothing holds that the registries behind dray have seen no request, but for dray's token.
func (s *stack) askedNothing() {
	s.Helper()
	for _, r := range []*ecrtest.Running{s.ecr, s.hub} {
		<-r.Idle()
		for kind, c := range r.Counters() {
			if c.Requests > 0 && kind != "GetAuthorizationToken" {
				s.Errorf("%d requests of kind %s", c.Requests, kind)
			}
		}
	}
}

// A push to an upstream of kind local goes nowhere else. It survives a restart that loses all
// facts.
func TestHostedKeepsPushes(t *testing.T) {
	dir := t.TempDir()
	s := startStack(t, dir, hosting("")...)
	layer := layerOf(1, 200_000)
	m := s.push("own/team/app", "v1", layer)
	s.served("own/team/app", "v1", m, layer)
	s.want(404, "GET", "/v2/own/team/other/manifests/"+m.Digest.String(), nil)
	s.want(404, "GET", "/v2/own/team/other/blobs/"+digest.FromBytes(layer).String(), nil)
	s.want(404, "HEAD", "/v2/own/team/other/blobs/"+digest.FromBytes(layer).String(), nil)
	if r := s.want(200, "GET", "/v2/own/team/app/tags/list", nil); !strings.Contains(string(r.body), `{"name":"own/team/app","tags":["v1"]}`) {
		t.Errorf("tags: %s", r.body)
	}
	s.askedNothing()
	s.stop()
	if err := os.Remove(filepath.Join(dir, "facts.db")); err != nil {
		t.Fatal(err)
	}
	s = startBefore(t, s.ecr, s.hub, dir, hosting("")...)
	s.served("own/team/app", "v1", m, layer)
	// Another repository gets the layer by a mount, and an image without an upload.
	mount := "/v2/own/team/other/blobs/uploads/?mount="
	s.want(201, "POST", mount+digest.FromBytes(layer).String()+"&from=own/team/app", nil)
	s.want(201, "POST", mount+digest.FromBytes(imageConfig).String()+"&from=own/team/app", nil)
	s.want(201, "PUT", "/v2/own/team/other/manifests/v1", m.Raw, "Content-Type", m.MediaType)
	s.want(202, "POST", mount+digest.FromString("nowhere").String()+"&from=own/team/app", nil)
	s.served("own/team/other", "v1", m, layer)

	s.want(202, "DELETE", "/v2/own/team/app/manifests/v1", nil)
	s.want(404, "GET", "/v2/own/team/app/manifests/v1", nil)
	s.want(200, "GET", "/v2/own/team/app/manifests/"+m.Digest.String(), nil)
	s.want(202, "DELETE", "/v2/own/team/app/manifests/"+m.Digest.String(), nil)
	s.want(404, "GET", "/v2/own/team/app/manifests/"+m.Digest.String(), nil)
	s.want(202, "DELETE", "/v2/own/team/app/blobs/"+digest.FromBytes(layer).String(), nil)
	s.want(404, "GET", "/v2/own/team/app/blobs/"+digest.FromBytes(layer).String(), nil)
	s.refused(405, "UNSUPPORTED", "DELETE", "/v2/own/team/other/blobs/"+digest.FromBytes(layer).String(), nil)
	s.served("own/team/other", "v1", m, layer)
	s.askedNothing()
}

// cacheOf is a build cache of BuildKit with one layer: a manifest, or in the older form an index of
// layers.
func cacheOf(t testing.TB, index bool, layer []byte) *oci.Manifest {
	t.Helper()
	desc := func(mediaType string, p []byte) string {
		return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, mediaType, digest.FromBytes(p), len(p))
	}
	own, l := desc(oci.MediaTypeBuildKitCache, imageConfig), desc("application/vnd.oci.image.layer.v1.tar+zstd", layer)
	raw := `{"schemaVersion":2,"mediaType":"` + oci.MediaTypeOCIManifest + `","config":` + own + `,"layers":[` + l + `]}`
	if index {
		raw = `{"schemaVersion":2,"mediaType":"` + oci.MediaTypeOCIIndex + `","manifests":[` + l + `,` + own + `]}`
	}
	m, err := oci.ParseManifest("", []byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// A build cache that is pushed to ECR is kept here, found under its name, and never a reason to
// believe that ECR has its layers: an image that leaves one out gets it from here.
func TestBuildCacheKeptAside(t *testing.T) {
	for _, index := range []bool{false, true} {
		s := startStack(t, t.TempDir(), append(hosting(""), "push: true", "push: true\n  build_cache: {to: own}")...)
		layer := layerOf(1, 100_000)
		m := cacheOf(t, index, layer)
		put := func() {
			t.Helper()
			s.upload("team/cache", layer)
			s.upload("team/cache", imageConfig)
			s.want(201, "PUT", "/v2/team/cache/manifests/main", m.Raw, "Content-Type", m.MediaType)
		}
		put()
		s.served("team/cache", "main", m, layer)
		s.served("own/ecr/team/cache", "main", m, layer)
		// Nobody puts something there himself: it would be served in place of what ECR has, without its
		// rights and checks.
		s.refused(403, "DENIED", "POST", "/v2/own/ecr/team/app/blobs/uploads/", nil)
		s.refused(403, "DENIED", "PUT", "/v2/own/ecr/team/cache/manifests/other", m.Raw, "Content-Type", m.MediaType)
		if _, ok := s.ecr.Image("team/cache", "main"); ok {
			t.Error("the build cache is in ECR")
		}
		// ECR loses layers that no image needs. The client was told that it is there, and need not send
		// it again.
		s.want(200, "HEAD", "/v2/team/cache/blobs/"+digest.FromBytes(layer).String(), nil)
		img := imageOf(t, layer)
		s.want(201, "PUT", "/v2/team/cache/manifests/app", img.Raw, "Content-Type", img.MediaType)
		s.holds("team/cache", "app", img, layer)
		s.served("team/cache", "app", img, layer)
		// A later push to the tag replaces it, either way.
		s.want(201, "PUT", "/v2/team/cache/manifests/main", img.Raw, "Content-Type", img.MediaType)
		s.served("team/cache", "main", img, layer)
		put()
		s.served("team/cache", "main", m, layer)
		s.want(202, "DELETE", "/v2/own/ecr/team/cache/manifests/main", nil)
		s.served("team/cache", "main", img, layer)
		// A blob that no build cache needs any more is deleted under the name by which clients see it.
		s.want(202, "DELETE", "/v2/team/cache/manifests/"+m.Digest.String(), nil)
		s.want(202, "DELETE", "/v2/team/cache/blobs/"+digest.FromBytes(layer).String(), nil)
		s.want(404, "HEAD", "/v2/own/ecr/team/cache/blobs/"+digest.FromBytes(layer).String(), nil)
		s.served("team/cache", "main", img, layer)
		s.stop()
	}
}

// Layers that the client left out because ECR has them are fetched for a build cache that needs
// them; those that it has no claim to are not.
func TestBuildCacheOfLayersElsewhere(t *testing.T) {
	s := startStack(t, t.TempDir(), append(hosting(""), "push: true", "push: true\n  build_cache: {to: own}")...)
	layer, secret := layerOf(1, 50_000), layerOf(2, 50_000)
	pushDirectly(t, s.ecr, "team/cache", "old", layer)
	pushDirectly(t, s.ecr, "team/secret", "v1", secret)
	s.want(200, "HEAD", "/v2/team/cache/blobs/"+digest.FromBytes(layer).String(), nil)
	m := cacheOf(t, false, layer)
	s.want(201, "PUT", "/v2/team/cache/manifests/main", m.Raw, "Content-Type", m.MediaType)
	s.served("team/cache", "main", m, layer)
	s.want(200, "GET", "/v2/team/secret/blobs/"+digest.FromBytes(secret).String(), nil)
	m = cacheOf(t, false, secret)
	s.refused(400, "MANIFEST_BLOB_UNKNOWN", "PUT", "/v2/team/cache/manifests/steal", m.Raw, "Content-Type", m.MediaType)
}

// With write-back the build cache reaches ECR as well, after the client has been answered.
func TestBuildCacheWriteBack(t *testing.T) {
	s := startStack(t, t.TempDir(), append(hosting(""), "push: true", "push: true\n  build_cache: {to: own, write_back: async}")...)
	layer := layerOf(1, 100_000)
	m := cacheOf(t, false, layer)
	s.upload("team/cache", layer)
	s.upload("team/cache", imageConfig)
	s.want(201, "PUT", "/v2/team/cache/manifests/main", m.Raw, "Content-Type", m.MediaType)
	s.served("team/cache", "main", m, layer)
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if _, ok := s.ecr.Image("team/cache", "main"); ok {
			break
		}
	}
	s.holds("team/cache", "main", m, layer)
}

// ECR refuses the older form, and the text says what to set.
func TestBuildCacheRefusedByECR(t *testing.T) {
	s := startStack(t, t.TempDir())
	layer := layerOf(1, 1000)
	m := cacheOf(t, true, layer)
	s.upload("team/cache", layer)
	s.upload("team/cache", imageConfig)
	r := s.do("PUT", "/v2/team/cache/manifests/main", m.Raw, "Content-Type", m.MediaType)
	if r.StatusCode/100 != 4 || !strings.Contains(string(r.body), "image-manifest=true,oci-mediatypes=true") {
		t.Errorf("%s %s", r.Status, r.body)
	}
}

// A manifest is refused while something that it needs is missing, and the text says what.
func TestHostedRefusesHalfImages(t *testing.T) {
	s := startStack(t, t.TempDir(), hosting("")...)
	m := imageOf(t, layerOf(1, 100))
	s.upload("own/team/app", imageConfig)
	_, text := s.refused(400, "MANIFEST_BLOB_UNKNOWN", "PUT", "/v2/own/team/app/manifests/v1", m.Raw, "Content-Type", m.MediaType)
	if !strings.Contains(text, m.Layers[0].Digest.String()) {
		t.Errorf("the message is %q", text)
	}
	s.want(404, "GET", "/v2/own/team/app/manifests/v1", nil)
}

// Pulls that fill the cache evict nothing that is hosted.
func TestHostedIsNotEvicted(t *testing.T) {
	s := startStack(t, t.TempDir(), append(hosting("max_bytes: 4MiB"), "min_free_bytes: 0", "min_free_bytes: 0, max_bytes: 12MiB")...)
	layer := layerOf(1, 3<<20)
	m := s.push("own/team/app", "v1", layer)
	for i := range 6 {
		other := seed(t, s.hub, fmt.Sprintf("library/x%d", i), "v1", 3<<20)
		s.want(200, "GET", fmt.Sprintf("/v2/hub/x%d/manifests/v1", i), nil)
		s.want(200, "GET", fmt.Sprintf("/v2/hub/x%d/blobs/%s", i, other.layer), nil)
	}
	s.served("own/team/app", "v1", m, layer)
}

// A tag that expires is gone for clients at once, whatever was served before.
func TestHostedQuotaIsSeenByClients(t *testing.T) {
	s := startStack(t, t.TempDir(), hosting("max_bytes: 1MiB")...)
	s.push("own/a", "v1", layerOf(1, 600_000))
	s.want(200, "GET", "/v2/own/a/manifests/v1", nil)
	time.Sleep(1100 * time.Millisecond) // uses are told apart by the second
	m := s.push("own/b", "v1", layerOf(2, 600_000))
	s.served("own/b", "v1", m, layerOf(2, 600_000))
	s.want(404, "GET", "/v2/own/a/manifests/v1", nil)
	s.want(404, "HEAD", "/v2/own/a/blobs/"+digest.FromBytes(layerOf(1, 600_000)).String(), nil)
	big := layerOf(3, 1<<20)
	s.upload("own/c", big)
	s.upload("own/c", imageConfig)
	img := imageOf(t, big)
	if _, text := s.refused(http.StatusForbidden, "DENIED", "PUT", "/v2/own/c/manifests/v1", img.Raw, "Content-Type", img.MediaType); !strings.Contains(text, "quota of own") {
		t.Errorf("the message is %q", text)
	}
}
