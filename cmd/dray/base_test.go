package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"dray/upstream/ecrtest"
)

// builtOn is an image whose configuration names the layers of a base before its own.
func builtOn(t testing.TB, base image, own ...string) image {
	t.Helper()
	var config v1.Image
	if err := json.Unmarshal([]byte(base.config), &config); err != nil {
		t.Fatal(err)
	}
	layers := base.layers
	for _, content := range own {
		tar := tarOf(t, "app/file", content)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromBytes(tar))
		layers = append(layers[:len(layers):len(layers)], gzipOf(t, tar))
	}
	text, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	return newImage(t, string(text), layers...)
}

// pullBase pulls an image of Docker Hub through dray as a client would, and returns it.
func (s *stack) pullBase(repo, tag string) image {
	s.Helper()
	m := seed(s, s.hub, repo, tag, 10_000).manifest
	s.want(200, "HEAD", "/hub/v2/"+repo+"/manifests/"+tag, nil)
	s.want(200, "GET", "/hub/v2/"+repo+"/manifests/"+m.Digest.String(), nil)
	img := image{config: string(s.want(200, "GET", "/hub/v2/"+repo+"/blobs/"+m.Config.Digest.String(), nil).body), man: m}
	for _, l := range m.Layers {
		img.layers = append(img.layers, s.want(200, "GET", "/hub/v2/"+repo+"/blobs/"+l.Digest.String(), nil).body)
	}
	return img
}

// recordedBaseImages waits until want base images are recorded.
func (s *stack) recordedBaseImages(want float64) {
	s.Helper()
	for end := time.Now().Add(time.Minute); s.metric("dray_base_images_recorded_total") < want; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			s.Fatalf("%v images were learnt, want %v", s.metric("dray_base_images_recorded_total"), want)
		}
	}
}

// dray knows base images from pulls: it rejects a forbidden base by its name and passes an allowed
// one; an unknown base has an outcome of its own.
func TestBasesAreLearnt(t *testing.T) {
	s := startStack(t, t.TempDir(), checked("  base: {mode: enforce, allowed: ['docker.io/library/good:*']}")...)
	s.ecr.CreateRepository("team/app")
	good, evil := s.pullBase("library/good", "12"), s.pullBase("somebody/evil", "1")
	s.recordedBaseImages(4) // by tag and by digest
	s.hub.ResetCounters()

	bad := builtOn(t, evil, "one", "two")
	msg := s.message(s.pushImage("team/app", "v1", bad))
	for _, want := range []string{"[base/forbidden]", "docker.io/somebody/evil:1", "allowed are: docker.io/library/good:*"} {
		if !strings.Contains(msg, want) {
			t.Errorf("%q is not in the message:\n%s", want, msg)
		}
	}
	s.nothingStored("team/app", bad)
	unknown := builtOn(t, newImage(t, plainConfig), "three")
	if msg := s.message(s.pushImage("team/app", "v1", unknown)); !strings.Contains(msg, "[base/unknown]") {
		t.Errorf("of an unknown base:\n%s", msg)
	}
	s.nothingStored("team/app", unknown)
	lying := builtOn(t, good, "one")
	lying.layers[0] = gzipOf(t, tarOf(t, "other", "content"))
	if msg := s.message(s.pushImage("team/app", "v1", newImage(t, lying.config, lying.layers...))); !strings.Contains(msg, "layer 1 of 2") {
		t.Errorf("of layers that are not the base's:\n%s", msg)
	}

	clean := builtOn(t, good, "one", "two")
	for range 2 { // also when it is known itself
		if r := s.pushImage("team/app", "v1", clean); r.StatusCode != http.StatusCreated {
			t.Fatalf("an allowed base: %s %s", r.Status, r.body)
		}
		s.recordedBaseImages(5)
	}
	above := builtOn(t, clean, "three")
	if msg := s.message(s.pushImage("team/other", "v1", above)); !strings.Contains(msg, "/team/app:v1, which is not allowed") {
		t.Errorf("of an image that was pushed:\n%s", msg)
	}
	spent(t, s.hub, map[ecrtest.Kind]int64{})
}

// Images below an index are known by the tag of the index, also after a restart, and images can be
// listed.
func TestBasesOfAnIndexAndAList(t *testing.T) {
	dir := t.TempDir()
	listed := builtOn(t, newImage(t, plainConfig), "listed")
	var config v1.Image
	if err := json.Unmarshal([]byte(listed.config), &config); err != nil {
		t.Fatal(err)
	}
	edits := checked("  base: {mode: enforce, allowed: ['quay.io/*'], images: [{name: 'quay.io/o/golden:1', diff_ids: ['" + config.RootFS.DiffIDs[0].String() + "']}]}")
	plain := startStack(t, t.TempDir())
	plain.ecr.CreateRepository("golden/base")
	child := builtOn(t, newImage(t, plainConfig), "base")
	plain.pushImage("golden/base", "", child)
	if r := plain.putManifest("golden/base", "multi", indexOf(t, child.man)); r.StatusCode != http.StatusCreated {
		t.Fatalf("an index: %s %s", r.Status, r.body)
	}
	plain.stop()

	s := startBefore(t, plain.ecr, plain.hub, dir, edits...)
	s.want(200, "GET", "/v2/golden/base/manifests/multi", nil)
	s.want(200, "GET", "/v2/golden/base/manifests/"+child.man.Digest.String(), nil)
	s.want(200, "GET", "/v2/golden/base/blobs/"+child.man.Config.Digest.String(), nil)
	s.recordedBaseImages(1)
	s.stop()

	again := startBefore(t, s.ecr, s.hub, dir, edits...)
	again.ecr.CreateRepository("team/app")
	if msg := again.message(again.pushImage("team/app", "v1", builtOn(t, child, "own"))); !strings.Contains(msg, "/golden/base:multi, which is not allowed") {
		t.Errorf("of a child of an index:\n%s", msg)
	}
	if r := again.pushImage("team/app", "v1", builtOn(t, listed, "own")); r.StatusCode != http.StatusCreated {
		t.Errorf("built on an image that is listed: %s %s", r.Status, r.body)
	}
}
