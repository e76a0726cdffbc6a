package main

import (
	"bytes"
	"encoding/json"
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
