package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"

	"dray/upstream/ecrtest"
	"dray/upstream/oci"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

const variants = "dray_zstd_variants_total"

// of reads a manifest that ECR has under a reference.
func (s *stack) of(repo, ref string) *oci.Manifest {
	s.Helper()
	img, ok := s.ecr.Image(repo, ref)
	if !ok {
		s.Fatalf("ECR has no %s of %s", ref, repo)
	}
	m, err := oci.ParseManifest(img.MediaType, img.Raw)
	if err != nil {
		s.Fatal(err)
	}
	return m
}

// A pushed image gets a second tag with its layers as zstd: the same content, configuration and annotations under another digest, while the image
// stays what it was. It costs each layer one upload in all, and pushing again costs none.
func TestZstdVariant(t *testing.T) {
	for name, edits := range map[string][]string{
		"forwarded":    nil,
		"acknowledged": {"  keep_alive: 0s\n", "  keep_alive: 0s\n  acknowledge: local\n"},
	} {
		t.Run(name, func(t *testing.T) {
			s := startStack(t, t.TempDir(), append([]string{"  push: true\n", "  push: true\n  zstd: {tag_suffix: -zstd, repositories: [\"team/*\"]}\n"}, edits...)...)
			s.ecr.CreateRepository("team/app")
			s.ecr.CreateRepository("other/app")
			shared := string(bytes.Repeat([]byte("shared "), 20_000))
			one := builtOn(t, newImage(t, plainConfig), shared, "one")
			two := builtOn(t, newImage(t, plainConfig), shared, "two")
			s.pushImage("team/app", "", one)
			s.pushImage("team/app", "", two)
			index := indexOf(t, one.man, two.man)
			if r := s.putManifest("team/app", "v1", index); r.StatusCode != http.StatusCreated {
				t.Fatalf("%s %s", r.Status, r.body)
			}
			s.becomes(variants, 1)

			if got := s.of("team/app", "v1"); got.Digest != index.Digest {
				t.Errorf("the image has become %s", got.Digest)
			}
			other := s.of("team/app", "v1-zstd")
			if other.MediaType != oci.MediaTypeOCIIndex || len(other.Manifests) != 2 || other.Manifests[0].Platform == nil || other.Manifests[0].Platform.Architecture != "arch0" {
				t.Fatalf("the variant is %s", other.Raw)
			}
			first := s.of("team/app", other.Manifests[0].Digest.String())
			if first.Config.Digest != one.man.Config.Digest || len(first.Layers) != 2 {
				t.Fatalf("its first image is %s", first.Raw)
			}
			var config v1.Image
			if err := json.Unmarshal([]byte(one.config), &config); err != nil {
				t.Fatal(err)
			}
			for i, l := range first.Layers {
				blob := s.want(200, "GET", "/v2/team/app/blobs/"+l.Digest.String(), nil).body
				if got := digest.FromBytes(unzstd(t, blob)); l.MediaType != "application/vnd.oci.image.layer.v1.tar+zstd" || got != config.RootFS.DiffIDs[i] || l.Size != int64(len(blob)) {
					t.Errorf("layer %d is %s of type %s", i+1, got, l.MediaType)
				}
			}
			if second := s.of("team/app", other.Manifests[1].Digest.String()); second.Layers[0].Digest != first.Layers[0].Digest {
				t.Error("the layer that both have was made twice")
			}

			<-s.ecr.Idle()
			s.ecr.ResetCounters()
			s.putManifest("team/app", "v1", index) // again
			s.becomes(variants, 2)
			if n := s.ecr.Count(ecrtest.KindUploadStart); n != 0 {
				t.Errorf("%d uploads of what was there", n)
			}
			s.pushImage("other/app", "v1", one) // has no variants
			s.pushImage("team/app", "v2-zstd", one)
			<-s.ecr.Idle()
			if _, there := s.ecr.Image("other/app", "v1-zstd"); there || s.metric(variants) != 2 {
				t.Error("a variant that nobody wanted")
			}
			if n := len(s.ecr.Images()); n < 6 || s.of("team/app", "v1-zstd").Digest != other.Digest {
				t.Errorf("ECR has %d images, and the variant has become another one", n)
			}
		})
	}
}

// A layer that is not what its configuration says has no variant, and a registry that refuses one costs nobody a push.
func TestNoVariant(t *testing.T) {
	s := startStack(t, t.TempDir(), "  push: true\n", "  push: true\n  zstd: {tag_suffix: -zstd}\n")
	s.ecr.CreateRepository("team/app")
	good := builtOn(t, newImage(t, plainConfig), "one")
	if r := s.pushImage("team/app", "v1", newImage(t, good.config, gzipOf(t, tarOf(t, "another", "file")))); r.StatusCode != http.StatusCreated {
		t.Fatalf("%s %s", r.Status, r.body)
	}
	s.becomes(variants, 1)
	s.ecr.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindManifestPut}, Path: "-zstd", Count: -1, Status: 400, Code: "MANIFEST_INVALID"})
	if r := s.pushImage("team/app", "v2", good); r.StatusCode != http.StatusCreated {
		t.Fatalf("%s %s", r.Status, r.body)
	}
	s.becomes(variants, 2)
	if n := len(s.ecr.Images()); n != 2 {
		t.Errorf("ECR has %d images, want 2", n)
	}
}

// A variant goes with its image, by tag or by digest; what somebody else has put under such a tag stays, and so does the variant of the image that a tag has now.
func TestZstdVariantIsDeletedWithItsImage(t *testing.T) {
	s := startStack(t, t.TempDir(), "  push: true\n", "  push: true\n  delete: true\n  zstd: {tag_suffix: -zstd}\n")
	s.ecr.CreateRepository("team/app")
	first, second := builtOn(t, newImage(t, plainConfig), "one"), builtOn(t, newImage(t, plainConfig), "two")
	has := func(tag string) bool { _, ok := s.ecr.Image("team/app", tag); return ok }
	made := 0.
	push := func(tag string, img image) {
		s.pushImage("team/app", tag, img)
		made++
		s.becomes(variants, made)
	}
	for _, tag := range []string{"v1", "v2", "v3"} {
		push(tag, first)
	}
	push("v3", second)
	s.pushImage("team/app", "v4-zstd", second) // by hand
	s.pushImage("team/app", "v5-zstd", first)
	s.want(200, "GET", "/v2/team/app/manifests/v1-zstd", nil)

	s.want(202, "DELETE", "/v2/team/app/manifests/v1", nil)
	s.want(404, "GET", "/v2/team/app/manifests/v1-zstd", nil)
	if has("v1-zstd") || !has("v2") || !has("v2-zstd") {
		t.Error("the variant of the tag is there, or that of another one has gone")
	}
	if r := s.do("DELETE", "/v2/team/app/manifests/v5", nil); r.StatusCode != http.StatusNotFound || !has("v5-zstd") {
		t.Errorf("of a tag that was never there: %s", r.Status)
	}
	s.want(202, "DELETE", "/v2/team/app/manifests/"+first.man.Digest.String(), nil)
	if has("v2") || has("v2-zstd") {
		t.Error("what was deleted by digest is there, or its variant is")
	}
	if !has("v3") || !has("v3-zstd") || !has("v4-zstd") {
		t.Error("more was deleted than the image")
	}
}

// What is still to be made of an image is not made once that is deleted: its variant, and the verdict beside it.
func TestNothingIsMadeOfDeletedImage(t *testing.T) {
	edits := checked("  attach: true\n  names: {mode: enforce, forbidden_tags: [latest]}")
	s := startStack(t, t.TempDir(), append(edits, "  keep_alive: 0s\n", "  keep_alive: 0s\n  delete: true\n  acknowledge: local\n  zstd: {tag_suffix: -zstd}\n")...)
	s.ecr.CreateRepository("team/app")
	s.refuseManifests()
	gone, stays := builtOn(t, newImage(t, plainConfig), "one"), builtOn(t, newImage(t, plainConfig), "two")
	for i, img := range []image{gone, stays} { // one after the other, as they would be made
		if r := s.pushImage("team/app", fmt.Sprintf("v%d", i+1), img); r.StatusCode != http.StatusCreated {
			t.Fatalf("%s %s", r.Status, r.body)
		}
	}
	s.want(202, "DELETE", "/v2/team/app/manifests/v1", nil)
	s.arrives()
	s.becomes(variants, 1)
	s.becomes("dray_verdicts_attached_total", 1)
	for _, tag := range []string{"v1", "v1-zstd"} {
		if _, ok := s.ecr.Image("team/app", tag); ok {
			t.Errorf("ECR has %s", tag)
		}
	}
	if n := len(s.attachedTo("team/app", gone.man.Digest)); n != 0 {
		t.Errorf("%d verdicts beside an image that is not there", n)
	}
}

func unzstd(t testing.TB, p []byte) []byte {
	t.Helper()
	d, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	out, err := d.DecodeAll(p, nil)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
