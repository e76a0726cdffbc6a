package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dray/upstream/ecrtest"
	"dray/upstream/oci"

	"github.com/opencontainers/go-digest"
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
			// A client that knows only the layer's digest: the upstream vouches.
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

// Uploads do not outlive the process, and leave nothing on disk: the client starts again.
func TestRestartEndsUploads(t *testing.T) {
	dir := t.TempDir()
	s := startStack(t, dir)
	s.ecr.CreateRepository("team/app")
	blob := layerOf(1, 300_000)
	at := s.start("team/app")
	s.want(202, "PATCH", at, blob)
	s.stop()
	if n, names := usage(t, dir); n >= int64(len(blob)) {
		t.Errorf("%d bytes are left: %v", n, names)
	}
	s = startBefore(t, s.ecr, s.hub, dir)
	s.refused(404, "BLOB_UPLOAD_UNKNOWN", "PATCH", at, blob)
	s.refused(404, "BLOB_UPLOAD_UNKNOWN", "PUT", at+"?digest="+digest.FromBytes(blob).String(), nil)
	s.push("team/app", "v1", blob)
}

// usage adds up the files of a cache directory but for its database.
func usage(t *testing.T, dir string) (n int64, names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, ".db") {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		n += info.Size()
		names = append(names, fmt.Sprintf("%s: %d", path, info.Size()))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n, names
}
