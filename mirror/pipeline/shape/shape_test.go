package shape

import (
	"strings"
	"testing"

	"dray/mirror/pipeline"
)

// twoPlatforms is an index of two images, the second of which has a large and a foreign layer.
func twoPlatforms() *pipeline.Image {
	return &pipeline.Image{Tag: "v1", Manifests: []*pipeline.Manifest{
		{Kind: pipeline.KindIndex, MediaType: "application/vnd.oci.image.index.v1+json", Size: 700, Digest: "sha256:index"},
		{Kind: pipeline.KindImage, MediaType: "application/vnd.oci.image.manifest.v1+json", Platform: "linux/amd64", Size: 500, TotalSize: 30 << 20, Layers: []*pipeline.LayerView{
			{MediaType: "application/vnd.oci.image.layer.v1.tar+gzip", Size: 30 << 20, Seen: true, Archive: pipeline.Archive{Uncompressed: 60 << 20}},
		}},
		{Kind: pipeline.KindImage, MediaType: "application/vnd.oci.image.manifest.v1+json", Platform: "linux/arm/v7", Size: 600, TotalSize: 5 << 30, Layers: []*pipeline.LayerView{
			{MediaType: "application/vnd.oci.image.layer.v1.tar+zstd", Size: 5 << 30, Seen: true, Archive: pipeline.Archive{Uncompressed: 9 << 30}},
			{MediaType: "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", Size: 10, Foreign: true, URLs: []string{"https://example.com"}},
		}},
		{Kind: pipeline.KindAttestation, MediaType: "application/vnd.oci.image.manifest.v1+json", Size: 500, Layers: []*pipeline.LayerView{{MediaType: "application/vnd.in-toto+json", Size: 10}}},
	}}
}

func TestRules(t *testing.T) {
	for _, tc := range []struct {
		c    Config
		want string // rule@place
	}{
		{Config{Foreign: true}, ""},
		{Config{}, "foreign@linux/arm/v7, layer 2 of 2"},
		{Config{Foreign: true, MaxBytes: 1 << 30}, "size@linux/arm/v7"},
		{Config{Foreign: true, MaxLayerBytes: 1 << 30}, "layer-size@linux/arm/v7, layer 1 of 2"},
		{Config{Foreign: true, MaxUncompressed: 1 << 30}, "uncompressed@linux/arm/v7"},
		{Config{Foreign: true, MaxLayers: 1}, "layers@linux/arm/v7"},
		{Config{Foreign: true, MaxManifestBytes: 650}, "manifest-size@"},
		{Config{Foreign: true, Required: []string{"linux/amd64", "linux/arm"}}, ""},
		{Config{Foreign: true, Required: []string{"linux/arm/v6", "linux/arm64"}}, "required-platform@ required-platform@"},
		{Config{Foreign: true, Platforms: []string{"linux/amd64", "linux/arm64"}}, "platform@linux/arm/v7"},
		{Config{Foreign: true, MediaTypes: []string{"application/vnd.oci.*", "application/vnd.in-toto*"}}, "media-type@linux/arm/v7, layer 2 of 2"},
	} {
		found, err := New(tc.c).CheckImage(t.Context(), twoPlatforms())
		if err != nil {
			t.Errorf("%+v: %v", tc.c, err)
		}
		var got []string
		for _, f := range found {
			if f.What == "" || f.Fix == "" {
				t.Errorf("%+v says too little", f)
			}
			got = append(got, f.Rule+"@"+f.Where.String())
		}
		if s := strings.Join(got, " "); s != tc.want {
			t.Errorf("%+v: %q, want %q", tc.c, s, tc.want)
		}
	}
}

// TestOverLimit: a size and its limit do not read the same.
func TestOverLimit(t *testing.T) {
	for _, tc := range []struct {
		size, limit int64
		want        string
	}{
		{2 << 30, 1 << 30, "2.0 GiB, and the limit is 1.0 GiB"},
		{1<<30 + 1, 1 << 30, "1073741825 bytes, and the limit is 1073741824 bytes"},
		{2, 1, "2 bytes, and the limit is 1 bytes"},
	} {
		if got := over(tc.size, tc.limit); got != tc.want {
			t.Errorf("%s, want %s", got, tc.want)
		}
	}
}

// A manifest that is pushed before its index has one platform, so the others are not required
// of it.
func TestPartsNeedNotHaveEveryPlatform(t *testing.T) {
	img := twoPlatforms()
	img.Manifests = img.Manifests[1:2]
	s := New(Config{Required: []string{"linux/arm"}})
	if found, _ := s.CheckImage(t.Context(), img); len(found) != 1 {
		t.Errorf("alone: %v", found)
	}
	img.Part = true
	if found, _ := s.CheckImage(t.Context(), img); len(found) != 0 {
		t.Errorf("as a part: %v", found)
	}
}

func TestUnseenLayersHaveNoKnownSize(t *testing.T) {
	img := twoPlatforms()
	img.Manifests[1].Layers[0].Seen = false
	if _, err := New(Config{MaxUncompressed: 1 << 40, Foreign: true}).CheckImage(t.Context(), img); err == nil {
		t.Error("no error")
	}
}
