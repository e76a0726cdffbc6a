package base

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"dray/mirror/pipeline"
)

// shelf is a catalogue.
type shelf []kept

type kept struct{ upstream, name, layers string }

func (s shelf) Named(_ context.Context, layers []digest.Digest) ([]Known, error) {
	if layers[0] == id("unreadable") {
		return nil, errors.New("catalogue is gone")
	}
	var out []Known
	for _, k := range s {
		if slices.Equal(ids(k.layers), layers) {
			out = append(out, Known{Name: k.name, Upstream: k.upstream})
		}
	}
	return out, nil
}

func id(s string) digest.Digest { return digest.FromString(s) }

func ids(names string) []digest.Digest {
	var out []digest.Digest
	for _, n := range strings.Fields(names) {
		out = append(out, id(n))
	}
	return out
}

func image(layers string, annotations map[string]string, provenance string) *pipeline.Image {
	c := &pipeline.Config{}
	c.RootFS = v1.RootFS{Type: "layers", DiffIDs: ids(layers)}
	m := &pipeline.Manifest{Kind: pipeline.KindImage, Digest: id("manifest"), Annotations: annotations, Config: c}
	for _, d := range c.RootFS.DiffIDs {
		m.Layers = append(m.Layers, &pipeline.LayerView{Seen: true, Archive: pipeline.Archive{DiffID: d}})
	}
	img := &pipeline.Image{Upstream: "ecr", Manifests: []*pipeline.Manifest{m}}
	if provenance != "" {
		img.Manifests = append(img.Manifests, &pipeline.Manifest{
			Kind: pipeline.KindAttestation, DescriptorAnnotations: map[string]string{"vnd.docker.reference.digest": id("manifest").String()},
			Statements: []pipeline.Statement{{PredicateType: "https://slsa.dev/provenance/v0.2", Predicate: []byte(provenance)}},
		})
	}
	return img
}

func TestBases(t *testing.T) {
	known := shelf{
		{"hub", "docker.io/library/debian:bookworm", "deb"},
		{"hub", "docker.io/library/python:3", "deb py1 py2"},
		{"ecr", "registry.example.com/golden/python:3", "deb py1 py2"},
		{"hub", "docker.io/somebody/python:3", "deb py1 evil"},
		{"hub", "docker.io/library/alpine:3", "alp"},
		{"ecr", "registry.example.com/team/app:1", "deb own"},
	}
	allow := func(patterns ...string) Config { return Config{Allowed: patterns} }
	annotated := map[string]string{v1.AnnotationBaseImageName: "alpine:3"}
	const built = `{"materials":[{"uri":"pkg:docker/golang@1.26?platform=linux%2Famd64"},{"uri":"pkg:docker/ghcr.io/o/r@sha256:aa"},{"uri":"https://git.example.com/x"}]}`
	for name, c := range map[string]struct {
		config Config
		img    *pipeline.Image
		want   string // rule and part of the text, of each finding
	}{
		"allowed":                              {allow("docker.io/library/debian:*"), image("deb own", nil, ""), ""},
		"forbidden":                            {allow("docker.io/library/debian:*"), image("alp own", nil, ""), "forbidden docker.io/library/alpine:3"},
		"the longest one counts":               {allow("docker.io/library/debian:*"), image("deb py1 evil own", nil, ""), "forbidden docker.io/somebody/python:3"},
		"one name of several is enough":        {allow("registry.example.com/golden/*"), image("deb py1 py2 own", nil, ""), ""},
		"part of another image is that much":   {allow("docker.io/library/debian:*"), image("deb py1 own", nil, ""), ""},
		"the image itself":                     {allow("docker.io/library/alpine:*"), image("alp", nil, ""), ""},
		"unknown":                              {allow("*"), image("own", nil, ""), "unknown unknown base image"},
		"unknown, let pass":                    {Config{Allowed: []string{"x"}, Unknown: true}, image("own", nil, ""), ""},
		"from scratch":                         {Config{Allowed: []string{"x"}, Scratch: 1}, image("own", nil, ""), ""},
		"from scratch, with too many layers":   {Config{Allowed: []string{"x"}, Scratch: 1}, image("own more", nil, ""), "unknown unknown base image"},
		"the same image, pushed before":        {allow("docker.io/library/debian:*"), image("deb own", nil, ""), ""},
		"built on one that was pushed":         {allow("docker.io/library/debian:*"), image("deb own more", nil, ""), "forbidden registry.example.com/team/app:1"},
		"another's image, pushed as it is":     {allow("docker.io/library/debian:*"), image("deb py1 evil", nil, ""), "forbidden docker.io/somebody/python:3"},
		"listed":                               {Config{Allowed: []string{"quay.io/*"}, Images: []Image{{"quay.io/o/r:1", ids("quay")}}}, image("quay own", nil, ""), ""},
		"listed and forbidden":                 {Config{Allowed: []string{"quay.io/*"}, Images: []Image{{"slim", ids("slim")}}}, image("slim own", nil, ""), "forbidden docker.io/library/slim:latest"},
		"without layers":                       {allow("x"), image("", nil, ""), ""},
		"declared":                             {allow("docker.io/library/debian:*"), image("deb own", annotated, ""), "declared docker.io/library/alpine:3"},
		"declared and allowed":                 {allow("docker.io/library/alpine:*"), image("alp own", annotated, ""), ""},
		"made from":                            {Config{Unknown: true, Materials: []string{"docker.io/library/golang:*"}}, image("own", nil, built), "material ghcr.io/o/r@sha256:aa"},
		"made from what may be":                {Config{Unknown: true, Materials: []string{"docker.io/library/golang:*", "ghcr.io/o/*"}}, image("own", nil, built), ""},
		"made from anything where not limited": {Config{Allowed: []string{"x"}, Unknown: true}, image("own", nil, built), ""},
	} {
		t.Run(name, func(t *testing.T) {
			stage, err := New(c.config, known)
			if err != nil {
				t.Fatal(err)
			}
			found, err := stage.CheckImage(t.Context(), c.img)
			if err != nil {
				t.Fatal(err)
			}
			rule, text, _ := strings.Cut(c.want, " ")
			if c.want == "" && len(found) > 0 || c.want != "" && (len(found) != 1 || found[0].Rule != rule || !strings.Contains(found[0].What, text)) {
				t.Errorf("found %+v, want %q", found, c.want)
			}
		})
	}
	stage, err := New(allow("*"), known)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stage.CheckImage(t.Context(), image("unreadable", nil, "")); err == nil {
		t.Error("a catalogue that fails has judged")
	}
	for name, tc := range map[string]struct {
		stated string // in the configuration
		layers int
		number int // of the layer that is named; 0: the image
	}{
		"no layer of many":        {"deb own", 0, 0},
		"no layer of one":         {"deb", 0, 0},
		"fewer layers":            {"deb own", 1, 0},
		"more layers":             {"deb", 2, 2},
		"nothing of the layers":   {"", 2, 1},
		"neither layers nor list": {"", 0, -1},
	} {
		img := image("deb own", nil, "")
		m := img.Manifests[0]
		m.Layers, m.Config.RootFS.DiffIDs = m.Layers[:tc.layers], ids(tc.stated)
		found, err := stage.CheckImage(t.Context(), img)
		if tc.number < 0 && err == nil && len(found) == 0 {
			continue
		}
		if err != nil || len(found) != 1 || found[0].Rule != RuleUnknown || found[0].Where.Number != tc.number {
			t.Errorf("%s: %+v, %v", name, found, err)
		}
	}
	lying := image("deb own", nil, "")
	lying.Manifests[0].Layers[1].DiffID = id("other")
	if found, err := stage.CheckImage(t.Context(), lying); err != nil || len(found) != 1 || found[0].Rule != RuleUnknown || found[0].Where.Number != 2 {
		t.Errorf("of layers that are not what they are said to be: %+v, %v", found, err)
	}
	partial := image("deb own", nil, "")
	partial.Manifests[0].Layers[0].Archive = pipeline.Archive{Format: pipeline.FormatGzip, Entries: 1}
	if found, err := stage.CheckImage(t.Context(), partial); err != nil || len(found) != 1 || found[0].Rule != RuleUnknown || found[0].Where.Number != 1 || !strings.Contains(found[0].What, "whole layer") {
		t.Errorf("of a layer that was not read to its end: %+v, %v", found, err)
	}
	alone, err := New(allow("*"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if found, err := alone.CheckImage(t.Context(), image("deb own", nil, "")); err != nil || len(found) != 1 || found[0].Rule != RuleUnknown {
		t.Errorf("without a catalogue: %+v, %v", found, err)
	}
}

func TestRefusesConfigurations(t *testing.T) {
	for name, c := range map[string]Config{
		"nothing allowed": {},
		"no name":         {Allowed: []string{"*"}, Images: []Image{{"Not A Name", ids("a")}}},
		"no layers":       {Allowed: []string{"*"}, Images: []Image{{Name: "a"}}},
		"no digest":       {Allowed: []string{"*"}, Images: []Image{{"a", []digest.Digest{"sha256:1"}}}},
		"negative":        {Allowed: []string{"*"}, Scratch: -1},
	} {
		if _, err := New(c, nil); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestMaterials(t *testing.T) {
	got := materials([]string{"pkg:docker/alpine", "pkg:docker/a%2Fb@1", "pkg:docker/docker/dockerfile@1.7?x", "pkg:golang/x", "pkg:docker/%zz@1", "pkg:docker/q.io:5000/x/y@v%2B1"})
	want := []string{"docker.io/library/alpine:latest", "docker.io/a/b:1", "docker.io/docker/dockerfile:1.7", "q.io:5000/x/y:v+1"}
	if !slices.Equal(got, want) {
		t.Error(fmt.Sprintln(got, want))
	}
}
