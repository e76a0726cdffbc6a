package main

import (
	"bytes"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/mirror/admin/api"
	"dray/upstream/ecrtest"
	"dray/upstream/oci"
)

// foreignTypes are media types of layers that a registry need not hold.
var foreignTypes = []string{"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"}

// windows is the manifest of an image with a foreign layer.
func windows(t testing.TB, mediaType string, foreign []byte, layers ...[]byte) *oci.Manifest {
	t.Helper()
	raw := imageOf(t, layers...).Raw
	layer := fmt.Sprintf(`"layers":[{"mediaType":%q,"digest":%q,"size":%d,"urls":["https://layers.example/x"]},`, mediaType, digest.FromBytes(foreign), len(foreign))
	m, err := oci.ParseManifest(oci.MediaTypeOCIManifest, bytes.Replace(raw, []byte(`"layers":[`), []byte(layer), 1))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// shows holds dray to serving a blob to clients of a repository, by HEAD and GET.
func (s *stack) shows(repo string, blob []byte) {
	s.Helper()
	path := "/v2/" + repo + "/blobs/" + digest.FromBytes(blob).String()
	s.want(200, "HEAD", path, nil)
	if r := s.want(200, "GET", path, nil); !bytes.Equal(r.body, blob) {
		s.Error("other bytes")
	}
}

// A foreign layer that the client has sent is at ECR before the push is acknowledged, however slow
// ECR is, and is served afterwards, after a kill as well. One that it has not sent is nobody's
// concern.
func TestPushedForeignLayer(t *testing.T) {
	for _, mediaType := range foreignTypes {
		s := startStack(t, t.TempDir())
		s.ecr.CreateRepository("win/app")
		big, small := noise(1, 3<<20), noise(2, 10_000)
		for _, b := range [][]byte{small, imageConfig} {
			s.upload("win/app", b)
		}
		s.ecr.SetBandwidth(ecrtest.Bandwidth{PerConnection: 4 << 20})
		s.upload("win/app", big)
		m := windows(t, mediaType, big, small)
		s.want(201, "PUT", "/v2/win/app/manifests/v1", m.Raw, "Content-Type", m.MediaType)
		if !s.ecr.HasBlob("win/app", digest.FromBytes(big)) {
			t.Error("the push is acknowledged, and ECR does not have the foreign layer")
		}
		s.ecr.SetBandwidth(ecrtest.Bandwidth{})
		s.shows("win/app", big)
		if n, put := s.pushAsking("win/app", "v2", m, imageConfig, small, big); n != 0 || put.StatusCode != http.StatusCreated {
			t.Errorf("%d blobs sent again, %s", n, put.Status)
		}
		spentBefore := s.ecr.Count(ecrtest.KindBlobHead)
		never := windows(t, mediaType, []byte("never sent"), small)
		s.want(201, "PUT", "/v2/win/app/manifests/v3", never.Raw, "Content-Type", never.MediaType)
		if n := s.ecr.Count(ecrtest.KindBlobHead); n != spentBefore {
			t.Errorf("%d questions about a layer that was not sent", n-spentBefore)
		}

		// ECR loses everything, and the image is pushed again.
		s.lose("win/app", m, never)
		if n, put := s.pushAsking("win/app", "v1", m, imageConfig, small, big); n != 0 || put.StatusCode != http.StatusCreated {
			t.Errorf("%d blobs sent again, %s", n, put.Status)
		}
		s.shows("win/app", big)
	}
}

// With acknowledge: local the foreign layer that was sent is in the queue, and reaches ECR after a
// restart.
func TestForeignLayerIsQueued(t *testing.T) {
	dir := t.TempDir()
	s := startStack(t, dir, acknowledging...)
	s.ecr.CreateRepository("win/app")
	s.outage()
	foreign, layer := noise(1, 2<<20), noise(2, 10_000)
	for _, b := range [][]byte{foreign, layer, imageConfig} {
		s.upload("win/app", b)
	}
	m := windows(t, foreignTypes[0], foreign, layer)
	s.want(201, "PUT", "/v2/win/app/manifests/v1", m.Raw, "Content-Type", m.MediaType)
	s.shows("win/app", foreign)
	s.stop()
	s.ecr.ClearFaults()
	s = startBefore(t, s.ecr, s.hub, dir, acknowledging...)
	s.shows("win/app", foreign)
	s.forwarded()
	if !s.ecr.HasBlob("win/app", digest.FromBytes(foreign)) {
		t.Error("ECR does not have the foreign layer")
	}
	s.shows("win/app", foreign)
}

// Behind checks a foreign layer that was sent is forwarded with its image, and an operator's purge
// takes it away with that.
func TestForeignLayerBehindChecks(t *testing.T) {
	s := startStack(t, t.TempDir(), checked("  names: {mode: enforce, forbidden_tags: [latest]}")...)
	s.ecr.CreateRepository("win/app")
	foreign, layer := gzipOf(t, tarOf(t, "a", "b")), gzipOf(t, tarOf(t, "c", "d"))
	s.ecr.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindUploadPatch}, Latency: 300 * time.Millisecond, Count: -1})
	for _, b := range [][]byte{foreign, layer, imageConfig} {
		s.upload("win/app", b)
	}
	m := windows(t, foreignTypes[0], foreign, layer)
	s.want(201, "PUT", "/v2/win/app/manifests/v1", m.Raw, "Content-Type", m.MediaType)
	if !s.ecr.HasBlob("win/app", digest.FromBytes(foreign)) {
		t.Error("ECR does not have the foreign layer")
	}
	s.shows("win/app", foreign)
	s.idle()
	operated[api.Purged](s, "purge", "win/app:v1")
	if _, held := s.disk.Lookup(digest.FromBytes(foreign)); held {
		t.Error("the foreign layer is held after its image was purged")
	}
}
