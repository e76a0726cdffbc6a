package main

import (
	"bytes"
	"path/filepath"
	"testing"

	"dray/upstream/ecrtest"
	"dray/upstream/oci"
)

// heldBack pushes two images by digest to a dray with checks, and a description of the first one.
// All three wait. Then it starts another dray with the given checks on the same directory.
func heldBack(t *testing.T, dir string, edits []string) (s *stack, good, fine image, about *oci.Manifest) {
	t.Helper()
	s = startStack(t, dir, checked("")...)
	s.ecr.CreateRepository("team/app")
	good = newImage(t, plainConfig, gzipOf(t, tarOf(t, "a", "good")))
	fine = newImage(t, plainConfig+" ", gzipOf(t, tarOf(t, "a", "fine")))
	for range 2 { // the second push replaces the first
		for _, img := range []image{good, fine} {
			if r := s.pushImage("team/app", "", img); r.StatusCode != 201 {
				t.Fatalf("an image: %s %s", r.Status, r.body)
			}
		}
	}
	s.upload("team/app", imageConfig)
	about = referrer(t, good.man, "application/vnd.example.sbom")
	if r := s.putManifest("team/app", "", about); r.StatusCode != 201 {
		t.Fatalf("what describes the image: %s %s", r.Status, r.body)
	}
	if n := len(s.ecr.Images()); n != 0 {
		t.Errorf("ECR has %d images", n)
	}
	s.stop()
	return startBefore(t, s.ecr, s.hub, dir, edits...), good, fine, about
}

// leftIn lists what a dray has left in a directory for the next one.
func leftIn(t *testing.T, dir string) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, "content", "ingest", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Manifests that wait for their index outlive dray: the next process serves them, and forwards them
// with the index. Nothing of them is left then.
func TestHeldBackOutlivesDray(t *testing.T) {
	dir := t.TempDir()
	s, good, fine, about := heldBack(t, dir, checked(""))
	for _, man := range []*oci.Manifest{good.man, fine.man} {
		if r := s.want(200, "GET", "/v2/team/app/manifests/"+man.Digest.String(), nil); !bytes.Equal(r.body, man.Raw) || r.Header.Get("Content-Type") != man.MediaType {
			t.Errorf("another manifest of the type %s", r.Header.Get("Content-Type"))
		}
	}
	s.until(func() bool {
		return s.do("GET", "/v2/team/app/manifests/"+about.Digest.String(), nil).StatusCode == 200
	})
	if r := s.putManifest("team/app", "v1", indexOf(t, good.man, fine.man)); r.StatusCode != 201 {
		t.Fatalf("the index: %s %s", r.Status, r.body)
	}
	s.holds("team/app", good.man.Digest.String(), good.man, good.layers...)
	s.holds("team/app", fine.man.Digest.String(), fine.man, fine.layers...)
	for _, ref := range []string{"v1", about.Digest.String()} {
		if _, ok := s.ecr.Image("team/app", ref); !ok {
			t.Errorf("ECR lacks %s", ref)
		}
	}
	if left := leftIn(t, dir); len(left) > 0 {
		t.Errorf("left are %q", left)
	}
}

// The next process judges what it takes over by its own checks.
func TestHeldBackIsJudgedAgain(t *testing.T) {
	s, good, fine, about := heldBack(t, t.TempDir(), checked("  shape: {mode: enforce, max_manifest_bytes: 10B}"))
	s.message(s.putManifest("team/app", "v1", indexOf(t, good.man, fine.man)))
	s.message(s.putManifest("team/app", "v1", good.man))
	s.until(func() bool {
		return s.do("GET", "/v2/team/app/manifests/"+about.Digest.String(), nil).StatusCode == 404
	})
	<-s.ecr.Idle()
	if n := s.ecr.Count(ecrtest.KindManifestPut); n != 0 {
		t.Errorf("%d manifests were put", n)
	}
}

// Without checks, nothing waits.
func TestHeldBackIsForwarded(t *testing.T) {
	dir := t.TempDir()
	s, good, fine, about := heldBack(t, dir, nil)
	s.until(func() bool { return len(s.ecr.Images()) == 3 && len(leftIn(t, dir)) == 0 })
	s.holds("team/app", good.man.Digest.String(), good.man, good.layers...)
	s.holds("team/app", fine.man.Digest.String(), fine.man, fine.layers...)
	if _, ok := s.ecr.Image("team/app", about.Digest.String()); !ok {
		t.Error("ECR lacks what describes the image")
	}
}
