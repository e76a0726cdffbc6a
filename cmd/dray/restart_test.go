package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"

	"dray/upstream/ecrtest"
	"dray/upstream/oci"
)

// A restart on the same directory costs the upstream nothing: bytes and facts are all there.
func TestRestartKeepsTheCache(t *testing.T) {
	dir := t.TempDir()
	s := startStack(t, dir)
	img := seed(t, s.ecr, "team/app", "v1", 2<<20)
	layer := layerOf(1, 100_000)
	s.want(200, "GET", "/v2/team/app/manifests/v1", nil)
	s.want(200, "GET", "/v2/team/app/blobs/"+img.layer.String(), nil)
	pushed := s.push("team/app", "pushed", layer)
	s.stop()
	s.ecr.ResetCounters()
	s = startBefore(t, s.ecr, s.hub, dir)
	for range 2 {
		if r := s.want(200, "GET", "/v2/team/app/manifests/v1", nil); !bytes.Equal(r.body, img.manifest.Raw) {
			t.Error("another manifest")
		}
		if r := s.want(200, "GET", "/v2/team/app/blobs/"+img.layer.String(), nil); digest.FromBytes(r.body) != img.layer {
			t.Error("another blob")
		}
		if r := s.want(200, "GET", "/v2/team/app/manifests/pushed", nil, "Accept", oci.MediaTypeOCIManifest); !bytes.Equal(r.body, pushed.Raw) {
			t.Error("another pushed manifest")
		}
		if r := s.want(200, "GET", "/v2/team/app/blobs/"+digest.FromBytes(layer).String(), nil); !bytes.Equal(r.body, layer) {
			t.Error("another pushed blob")
		}
	}
	if asked := s.ecr.Sequence("registry", "objects"); len(asked) > 0 { // a token is got ahead of need
		t.Errorf("the upstream got %v", asked)
	}
}

// Facts may be lost at any time: then dray asks again, but fetches no blob that it holds.
func TestRestartWithoutFacts(t *testing.T) {
	for name, lose := range map[string]func(path string) error{
		"removed": os.Remove,
		"damaged": func(path string) error { return os.WriteFile(path, bytes.Repeat([]byte("no database "), 5000), 0o600) },
		"cut":     func(path string) error { return os.Truncate(path, 100) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := startStack(t, dir)
			img := seed(t, s.ecr, "team/app", "v1", 2<<20)
			s.want(200, "GET", "/v2/team/app/manifests/v1", nil)
			s.want(200, "GET", "/v2/team/app/blobs/"+img.layer.String(), nil)
			s.stop()
			if err := lose(filepath.Join(dir, "facts.db")); err != nil {
				t.Fatal(err)
			}
			s.ecr.ResetCounters()
			s = startBefore(t, s.ecr, s.hub, dir)
			// A client that knows only the layer's digest: the upstream confirms it.
			if r := s.want(200, "GET", "/v2/team/app/blobs/"+img.layer.String(), nil); digest.FromBytes(r.body) != img.layer {
				t.Error("another blob")
			}
			s.want(200, "GET", "/v2/team/app/manifests/v1", nil)
			s.want(200, "GET", "/v2/team/app/blobs/"+img.layer.String(), nil)
			if asked := s.ecr.Sequence("registry", "objects"); len(asked) != 2 || s.ecr.Count(ecrtest.KindBlobHead) != 1 || s.ecr.Count(ecrtest.KindManifestGet) != 1 {
				t.Errorf("the upstream got %v", asked)
			}
			// A repository without the blob does not get it for that.
			s.ecr.CreateRepository("team/other")
			s.want(404, "GET", "/v2/team/other/blobs/"+img.layer.String(), nil)
		})
	}
}

// An upload outlives the process, and so does a layer whose manifest has not come yet: the client
// goes on where it was, and what a former process received is sent on without it.
func TestRestartContinuesUploads(t *testing.T) {
	dir := t.TempDir()
	s := startStack(t, dir)
	s.ecr.CreateRepository("team/app")
	first, second, third := layerOf(1, 6<<20), layerOf(2, 300_000), layerOf(3, 70_000)
	s.ecr.SetDenials(ecrtest.Denial{Action: "ecr:InitiateLayerUpload"}) // nothing arrives before the restart
	s.upload("team/app", second)
	at, whole, gone := s.start("team/app"), s.start("team/app"), s.start("team/app")
	s.want(202, "PATCH", at, first[:2<<20])
	s.want(202, "PATCH", whole, third)
	s.want(202, "PATCH", gone, third)
	s.want(204, "DELETE", gone, nil)
	s.stop()
	s.ecr.SetDenials()
	s = startBefore(t, s.ecr, s.hub, dir)
	s.header(s.want(204, "GET", at, nil), "Range", fmt.Sprintf("0-%d", 2<<20-1))
	s.refused(416, "RANGE_INVALID", "PATCH", at, first[:100], "Content-Range", "0-99")
	s.want(202, "PATCH", at, first[2<<20:4<<20])
	s.want(201, "PUT", at+"?digest="+digest.FromBytes(first).String(), first[4<<20:])
	s.want(201, "PUT", whole+"?digest="+digest.FromBytes(third).String(), nil)
	s.refused(404, "BLOB_UPLOAD_UNKNOWN", "GET", gone, nil)
	s.want(200, "HEAD", "/v2/team/app/blobs/"+digest.FromBytes(second).String(), nil)
	s.upload("team/app", imageConfig)
	m := imageOf(t, first, second, third)
	s.want(201, "PUT", "/v2/team/app/manifests/v1", m.Raw, "Content-Type", m.MediaType)
	s.holds("team/app", "v1", m, first, second, third)
	// Once the image is forwarded, nothing is retained for it.
	if left, err := os.ReadDir(filepath.Join(dir, "content", "ingest")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// Bytes that dray received before a restart count towards the limits after it.
func TestRestartKeepsLimits(t *testing.T) {
	dir := t.TempDir()
	const limits = "\nlimits: {max_uploads_per_client: 2, max_upload_bytes_per_client: 200000}"
	s := startStack(t, dir, "min_free_bytes: 0}", "min_free_bytes: 0}"+limits)
	s.ecr.CreateRepository("team/app")
	blob, at := layerOf(1, 150_000), s.start("team/app")
	s.want(202, "PATCH", at, blob)
	other := s.start("team/app")
	for range 2 {
		s.refused(429, "TOOMANYREQUESTS", "POST", "/v2/team/app/blobs/uploads/", nil)
		s.refused(429, "TOOMANYREQUESTS", "PATCH", other, layerOf(2, 60_000))
		s.refused(413, "SIZE_INVALID", "PATCH", at, layerOf(2, 60_000)) // alone it is too large already
		s.stop()
		s = startBefore(t, s.ecr, s.hub, dir, "min_free_bytes: 0}", "min_free_bytes: 0}"+limits)
	}
	s.want(201, "PUT", at+"?digest="+digest.FromBytes(blob).String(), nil)
	s.want(204, "DELETE", other, nil)
	s.refused(429, "TOOMANYREQUESTS", "PUT", s.start("team/app")+"?digest="+digest.FromBytes(blob).String(), blob) // it is kept for its manifest
	s.upload("team/app", imageConfig)
	m := imageOf(t, blob)
	s.want(201, "PUT", "/v2/team/app/manifests/v1", m.Raw, "Content-Type", m.MediaType)
	s.push("team/app", "v2", layerOf(3, 190_000))
}
