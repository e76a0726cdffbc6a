package attestations

import (
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"dray/mirror/pipeline"
)

const (
	v02 = `{"builder":{"id":"https://ci.example.com/runner"},"invocation":{"configSource":{"uri":"https://git.example.com/team/app.git#refs/heads/main"}},
	  "materials":[{"uri":"pkg:docker/alpine@3.20"}],"metadata":{"https://mobyproject.org/buildkit@v1#metadata":{"vcs":{"source":"https://git.example.com/team/app.git"}}}}`
	v1 = `{"buildDefinition":{"externalParameters":{"configSource":{"uri":"https://git.example.com/team/app.git"}},"resolvedDependencies":[{"uri":"pkg:docker/alpine@3.20"}]},
	  "runDetails":{"builder":{"id":"https://ci.example.com/runner"},"metadata":{"buildkit_metadata":{"vcs":{"source":"https://git.example.com/team/app.git"}}}}}`
	spdx = "https://spdx.dev/Document"
)

var (
	amd = digest.FromString("amd64")
	arm = digest.FromString("arm64")
)

// index has an image for two platforms, and attestations.
func index(as ...*pipeline.Manifest) *pipeline.Image {
	return &pipeline.Image{Tag: "1", Manifests: append([]*pipeline.Manifest{
		{Kind: pipeline.KindIndex}, {Kind: pipeline.KindImage, Digest: amd, Platform: "linux/amd64"}, {Kind: pipeline.KindImage, Digest: arm, Platform: "linux/arm64"},
	}, as...)}
}

func about(d digest.Digest, ss ...pipeline.Statement) *pipeline.Manifest {
	return &pipeline.Manifest{Kind: pipeline.KindAttestation, DescriptorAnnotations: map[string]string{"vnd.docker.reference.digest": d.String()}, Statements: ss}
}

func provenance(version, predicate string, subjects ...digest.Digest) pipeline.Statement {
	return pipeline.Statement{PredicateType: "https://slsa.dev/provenance/" + version, Subjects: subjects, Predicate: []byte(predicate)}
}

func TestAttestations(t *testing.T) {
	sbom := pipeline.Statement{PredicateType: spdx}
	both := index(about(amd, provenance("v0.2", v02, amd), sbom), about(arm, provenance("v1", v1), sbom))
	part := index()
	part.Part = true
	for name, c := range map[string]struct {
		config Config
		img    *pipeline.Image
		want   []string // rule@platform
	}{
		"all there":              {Config{Provenance: true, SBOM: true}, both, nil},
		"nothing asked for":      {Config{}, index(), nil},
		"nothing there":          {Config{Provenance: true, SBOM: true}, index(), []string{"provenance@linux/amd64", "sbom@linux/amd64", "provenance@linux/arm64", "sbom@linux/arm64"}},
		"for one platform alone": {Config{Provenance: true}, index(about(amd, provenance("v1", v1))), []string{"provenance@linux/arm64"}},
		"about something else":   {Config{Provenance: true}, index(about(amd, provenance("v1", v1, arm)), about(arm, provenance("v1", v1))), []string{"provenance@linux/amd64"}},
		"a part of an index":     {Config{Provenance: true}, part, nil},
		"the right builder":      {Config{Builders: []string{"https://ci.example.com/*"}}, both, nil},
		"another builder":        {Config{Builders: []string{"https://build.example.com/*"}}, both, []string{"builder@linux/amd64", "builder@linux/arm64"}},
		"no builder":             {Config{Builders: []string{"*"}}, index(about(amd, provenance("v1", `{}`)), about(arm, provenance("v1", `[]`))), []string{"builder@linux/amd64", "builder@linux/arm64"}},
		"builder, no provenance": {Config{Builders: []string{"*"}}, index(), []string{"provenance@linux/amd64", "provenance@linux/arm64"}},
		"the right source":       {Config{Sources: []string{"https://git.example.com/team/app.git*"}}, both, nil},
		"one source of two":      {Config{Sources: []string{"https://git.example.com/team/app.git"}}, both, []string{"source@linux/amd64"}},
	} {
		t.Run(name, func(t *testing.T) {
			found, err := New(c.config).CheckImage(t.Context(), c.img)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range found {
				got = append(got, f.Rule+"@"+f.Where.Platform)
				if strings.Contains(f.What, "proven ") {
					t.Errorf("claims a proof: %s", f.What)
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("found %v, want %v", got, c.want)
			}
		})
	}
	if got := About(both, both.Manifests[1]).Materials; !slices.Equal(got, []string{"pkg:docker/alpine@3.20"}) {
		t.Errorf("materials %v", got)
	}
}
