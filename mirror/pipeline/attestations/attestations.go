// Package attestations judges the declarations of an image's makers: the provenance and the SBOM
// that BuildKit puts beside an image in the index that it pushes (docker buildx build --provenance
// --sbom).
//
// A declaration is no proof, because any client that pushes can write it. So findings say
// "declares". The stage cannot require signatures: it checks an image before the registry has it,
// and signers sign images that are already in a registry.
package attestations

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"dray/mirror/pattern"
	"dray/mirror/pipeline"
)

// Name of the stage.
const Name = "attestations"

// version is increased with every change of the data that the stage reads from attestations.
const version = 1

// Rules of the stage.
const (
	RuleProvenance = "provenance"
	RuleSBOM       = "sbom"
	RuleBuilder    = "builder"
	RuleSource     = "source"
)

// Config holds the requirements.
type Config struct {
	// Provenance requires every image to have provenance, and SBOM requires an SBOM.
	Provenance, SBOM bool
	// Builders and Sources are patterns in which * matches any characters. Each builder that the
	// provenance names must match one of Builders, and each source repository one of Sources. An empty
	// list requires nothing. A list that is not empty also requires provenance that names at least one
	// builder or source repository.
	Builders, Sources []string
}

// Stage judges declarations.
type Stage struct{ config Config }

var _ pipeline.ImageStage = (*Stage)(nil)

// New makes a stage.
func New(c Config) *Stage { return &Stage{c} }

// Name implements pipeline.Stage.
func (s *Stage) Name() string { return Name }

// Revision implements pipeline.Stage.
func (s *Stage) Revision() string { return pipeline.Revision(version, s.config) }

// CheckImage implements pipeline.ImageStage. It skips a manifest that waits for an index or a tag:
// the manifest is judged when that arrives, because only an index has the attestations.
func (s *Stage) CheckImage(_ context.Context, img *pipeline.Image) ([]pipeline.Finding, error) {
	if img.Part {
		return nil, nil
	}
	var found []pipeline.Finding
	for _, m := range img.Images() {
		found = append(found, s.judge(img.Place(m), About(img, m))...)
	}
	return found, nil
}

// Declared holds the declarations about one image.
type Declared struct {
	Provenance, SBOM bool
	// Builders and Sources are the builders and source repositories that the provenance names.
	Builders, Sources []string
	// Materials are the inputs of the build, as package URLs or as URLs.
	Materials []string
}

// About collects the declarations about an image of an index. A statement of an attestation counts
// if the index says that the attestation belongs to the image, and if the statement's list of
// subjects is empty or has the image.
func About(img *pipeline.Image, m *pipeline.Manifest) Declared {
	var d Declared
	for _, a := range img.Manifests {
		if a.Kind != pipeline.KindAttestation || a.DescriptorAnnotations["vnd.docker.reference.digest"] != m.Digest.String() {
			continue
		}
		for _, st := range a.Statements {
			if len(st.Subjects) > 0 && !slices.Contains(st.Subjects, m.Digest) {
				continue
			}
			d.add(st)
		}
	}
	return d
}

func (d *Declared) add(st pipeline.Statement) {
	switch {
	case strings.HasPrefix(st.PredicateType, "https://slsa.dev/provenance/"):
		d.Provenance = true
		var p predicate
		if json.Unmarshal(st.Predicate, &p) == nil {
			p.addTo(d)
		}
	case strings.HasPrefix(st.PredicateType, "https://spdx.dev/Document"), strings.HasPrefix(st.PredicateType, "https://cyclonedx.org/"):
		d.SBOM = true
	}
}

// predicate has the fields that are read: fields of SLSA provenance v0.2 and v1
// (slsa.dev/provenance), and fields that BuildKit adds to both.
type predicate struct {
	Builder    builder    `json:"builder"`
	Materials  []material `json:"materials"`
	Invocation struct {
		ConfigSource material `json:"configSource"`
	} `json:"invocation"`
	Metadata map[string]json.RawMessage `json:"metadata"`

	BuildDefinition struct {
		ExternalParameters struct {
			ConfigSource material `json:"configSource"`
		} `json:"externalParameters"`
		ResolvedDependencies []material `json:"resolvedDependencies"`
	} `json:"buildDefinition"`
	RunDetails struct {
		Builder  builder                    `json:"builder"`
		Metadata map[string]json.RawMessage `json:"metadata"`
	} `json:"runDetails"`
}

type builder struct {
	ID string `json:"id"`
}

type material struct {
	URI string `json:"uri"`
}

// buildkit is BuildKit's addition to the metadata: the repository of the build context.
type buildkit struct {
	VCS struct {
		Source string `json:"source"`
	} `json:"vcs"`
}

func (p predicate) addTo(d *Declared) {
	sources := []string{p.Invocation.ConfigSource.URI, p.BuildDefinition.ExternalParameters.ConfigSource.URI}
	for _, raw := range []json.RawMessage{p.Metadata["https://mobyproject.org/buildkit@v1#metadata"], p.RunDetails.Metadata["buildkit_metadata"]} {
		var b buildkit
		if json.Unmarshal(raw, &b) == nil {
			sources = append(sources, b.VCS.Source)
		}
	}
	for _, s := range sources {
		d.Sources = appendNew(d.Sources, s)
	}
	d.Builders = appendNew(appendNew(d.Builders, p.Builder.ID), p.RunDetails.Builder.ID)
	for _, m := range slices.Concat(p.Materials, p.BuildDefinition.ResolvedDependencies) {
		d.Materials = appendNew(d.Materials, m.URI)
	}
}

// appendNew appends a string unless it is empty or already in the list.
func appendNew(list []string, s string) []string {
	if s == "" || slices.Contains(list, s) {
		return list
	}
	return append(list, s)
}

func (s *Stage) judge(where pipeline.Place, d Declared) []pipeline.Finding {
	var found []pipeline.Finding
	add := func(rule, what, fix string) {
		found = append(found, pipeline.Finding{Rule: rule, What: what, Where: where, Fix: fix})
	}
	c := s.config
	const build = "build with docker buildx build %s, and push the resulting index"
	if !d.Provenance && (c.Provenance || len(c.Builders) > 0 || len(c.Sources) > 0) {
		add(RuleProvenance, "no provenance is declared", fmt.Sprintf(build, "--provenance=true"))
	}
	if !d.SBOM && c.SBOM {
		add(RuleSBOM, "no SBOM is declared", fmt.Sprintf(build, "--sbom=true"))
	}
	if d.Provenance {
		s.checkAll(RuleBuilder, "builder", c.Builders, d.Builders, add)
		s.checkAll(RuleSource, "source repository", c.Sources, d.Sources, add)
	}
	return found
}

// checkAll requires at least one declared name, and a matching pattern for every name. If there are
// no patterns, checkAll requires nothing.
func (s *Stage) checkAll(rule, what string, patterns, names []string, add func(rule, what, fix string)) {
	if len(patterns) == 0 {
		return
	}
	fix := "allowed are: " + strings.Join(patterns, ", ")
	if len(names) == 0 {
		add(rule, "the provenance declares no "+what, fix)
	}
	for _, n := range names {
		if !pattern.Any(patterns, n) {
			add(rule, fmt.Sprintf("the provenance declares the %s %q, which is not allowed", what, n), fix)
		}
	}
}
