package metadata

import (
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"dray/mirror/pipeline"
)

const source = "org.opencontainers.image.source"

// labelled makes an image with labels and annotations; index and given are those of an index
// and of its descriptor.
func labelled(labels, annotations, index, given map[string]string) *pipeline.Image {
	m := &pipeline.Manifest{
		Kind: pipeline.KindImage, Platform: "linux/amd64", Annotations: annotations, DescriptorAnnotations: given,
		Config: &pipeline.Config{Image: v1.Image{Config: v1.ImageConfig{Labels: labels}}},
	}
	if index == nil {
		return &pipeline.Image{Manifests: []*pipeline.Manifest{m}}
	}
	return &pipeline.Image{Manifests: []*pipeline.Manifest{{Kind: pipeline.KindIndex, Annotations: index}, m}}
}

func TestRequired(t *testing.T) {
	ok := map[string]string{source: "https://example.com/a"}
	for name, tc := range map[string]struct {
		r    Requirement
		img  *pipeline.Image
		want string
	}{
		"label":                     {Requirement{Key: source}, labelled(ok, nil, nil, nil), ""},
		"annotation":                {Requirement{Key: source}, labelled(nil, ok, nil, nil), ""},
		"index":                     {Requirement{Key: source}, labelled(nil, nil, ok, nil), ""},
		"descriptor":                {Requirement{Key: source}, labelled(nil, nil, map[string]string{}, ok), ""},
		"nothing":                   {Requirement{Key: source}, labelled(nil, nil, nil, nil), "the label or annotation " + source + " is missing"},
		"empty":                     {Requirement{Key: source}, labelled(map[string]string{source: ""}, nil, nil, nil), "the label or annotation " + source + " is missing"},
		"label where annotation":    {Requirement{Key: source, In: Annotation}, labelled(ok, nil, nil, nil), "the annotation " + source + " is missing"},
		"annotation where label":    {Requirement{Key: source, In: Label}, labelled(nil, ok, ok, ok), "the label " + source + " is missing"},
		"pattern":                   {Requirement{Key: source, Pattern: `https://example\.com/.*`}, labelled(ok, nil, nil, nil), ""},
		"pattern fits only a part":  {Requirement{Key: source, Pattern: `example|b`}, labelled(ok, nil, nil, nil), `the value "https://example.com/a" of ` + source + " is not allowed"},
		"one right value is enough": {Requirement{Key: source, Format: "url"}, labelled(map[string]string{source: "no"}, ok, nil, nil), ""},
		"url":                       {Requirement{Key: "k", Format: "url"}, labelled(map[string]string{"k": "example.com/a"}, nil, nil, nil), `the value "example.com/a" of k is not allowed`},
		"semver":                    {Requirement{Key: "k", Format: "semver"}, labelled(map[string]string{"k": "1.2.3+build.5"}, nil, nil, nil), ""},
		"no semver":                 {Requirement{Key: "k", Format: "semver"}, labelled(map[string]string{"k": "one"}, nil, nil, nil), `the value "one" of k is not allowed`},
		"time":                      {Requirement{Key: "k", Format: "time"}, labelled(map[string]string{"k": "2026-11-25T10:00:00Z"}, nil, nil, nil), ""},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := New(Config{[]Requirement{tc.r}})
			if err != nil {
				t.Fatal(err)
			}
			found, err := s.CheckImage(t.Context(), tc.img)
			got := ""
			if len(found) == 1 {
				got = found[0].What
			}
			if err != nil || got != tc.want || len(found) > 1 {
				t.Errorf("%v, %v; want %q", found, err, tc.want)
			}
		})
	}
}

// Annotations that an index may add are required when it arrives. Labels, which only the image
// can have, are required at once.
func TestPartsAreAskedForWhatIsTheirs(t *testing.T) {
	s, err := New(Config{[]Requirement{{Key: "a"}, {Key: "l", In: Label}}})
	if err != nil {
		t.Fatal(err)
	}
	img := labelled(nil, nil, nil, nil)
	img.Part = true
	if found, _ := s.CheckImage(t.Context(), img); len(found) != 1 || !strings.Contains(found[0].What, "label l ") {
		t.Errorf("%v", found)
	}
}

func TestBadRequirements(t *testing.T) {
	_, err := New(Config{[]Requirement{{}, {Key: "a", In: "b"}, {Key: "a", Format: "b"}, {Key: "a", Pattern: "("}}})
	if err == nil || strings.Count(err.Error(), "metadata: ") != 4 {
		t.Errorf("%v", err)
	}
}
