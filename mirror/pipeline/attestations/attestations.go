// Package attestations judges what the makers of an image declare about it: the provenance and the
// SBOM that BuildKit puts beside an image in the index that is pushed (docker buildx build
// --provenance --sbom).
//
// What is declared is not proven: whoever pushes can write it. Signatures cannot be asked for here,
// because signers sign what is already in a registry. Findings therefore say "declares".
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

// version goes up with every change of what is read from attestations.
const version = 1

// Rules of the stage.
const (
	RuleProvenance = "provenance"
	RuleSBOM       = "sbom"
	RuleBuilder    = "builder"
	RuleSource     = "source"
)

// Config says what is asked for.
type Config struct {
	// Provenance and SBOM must be there for every image.
	Provenance, SBOM bool
	// Builders and Sources are patterns, with * for any characters, one of which the provenance's
	// builder and source repository must match. Empty asks for none; otherwise provenance must be
	// there.
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

// CheckImage implements pipeline.ImageStage. A part of an index is judged with its index, in which
// the attestations are.
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

// Declared is what attestations say about one image.
type Declared struct {
	Provenance, SBOM bool
	// Builders and Sources are those that provenance names.
	Builders, Sources []string
	// Materials are what it was built from, as package URLs or as URLs.
	Materials []string
}

// About collects what the attestations in an index declare about an image of it. One counts where
// the index says that it is about the image, and where its own subjects, if it has any, do not deny
// it.
func About(img *pipeline.Image, m *pipeline.Manifest) Declared {
	var d Declared
	for _, a := range img.Manifests {
		if a.Kind != pipeline.KindAttestation || a.Given["vnd.docker.reference.digest"] != m.Digest.String() {
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
			p.into(d)
		}
	case strings.HasPrefix(st.PredicateType, "https://spdx.dev/Document"), strings.HasPrefix(st.PredicateType, "https://cyclonedx.org/"):
		d.SBOM = true
	}
}

// predicate has what is read of SLSA provenance v0.2 and v1 (slsa.dev/provenance), and of
// BuildKit's additions to both.
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

// buildkit is what BuildKit adds to the metadata: the repository that the build context came from.
type buildkit struct {
	VCS struct {
		Source string `json:"source"`
	} `json:"vcs"`
}

func (p predicate) into(d *Declared) {
	sources := []string{p.Invocation.ConfigSource.URI, p.BuildDefinition.ExternalParameters.ConfigSource.URI}
	for _, raw := range []json.RawMessage{p.Metadata["https://mobyproject.org/buildkit@v1#metadata"], p.RunDetails.Metadata["buildkit_metadata"]} {
		var b buildkit
		if json.Unmarshal(raw, &b) == nil {
			sources = append(sources, b.VCS.Source)
		}
	}
	for _, s := range sources {
		d.Sources = put(d.Sources, s)
	}
	d.Builders = put(put(d.Builders, p.Builder.ID), p.RunDetails.Builder.ID)
	for _, m := range slices.Concat(p.Materials, p.BuildDefinition.ResolvedDependencies) {
		d.Materials = put(d.Materials, m.URI)
	}
}

// put appends what is there and new.
func put(list []string, s string) []string {
	if s == "" || slices.Contains(list, s) {
		return list
	}
	return append(list, s)
}

func (s *Stage) judge(where pipeline.Place, d Declared) []pipeline.Finding {
	var found []pipeline.Finding
	say := func(rule, what, fix string) {
		found = append(found, pipeline.Finding{Rule: rule, What: what, Where: where, Fix: fix})
	}
	c := s.config
	const build = "build with docker buildx build %s, and push the index that it makes"
	if !d.Provenance && (c.Provenance || len(c.Builders) > 0 || len(c.Sources) > 0) {
		say(RuleProvenance, "no provenance is declared", fmt.Sprintf(build, "--provenance=true"))
	}
	if !d.SBOM && c.SBOM {
		say(RuleSBOM, "no SBOM is declared", fmt.Sprintf(build, "--sbom=true"))
	}
	if d.Provenance {
		s.compare(RuleBuilder, "builder", c.Builders, d.Builders, say)
		s.compare(RuleSource, "source repository", c.Sources, d.Sources, say)
	}
	return found
}

// compare wants every name that is declared to fit a pattern, and one name at least.
func (s *Stage) compare(rule, what string, patterns, names []string, say func(rule, what, fix string)) {
	if len(patterns) == 0 {
		return
	}
	fix := "allowed are: " + strings.Join(patterns, ", ")
	if len(names) == 0 {
		say(rule, "the provenance declares no "+what, fix)
	}
	for _, n := range names {
		if !pattern.Any(patterns, n) {
			say(rule, fmt.Sprintf("the provenance declares the %s %q, which is not allowed", what, n), fix)
		}
	}
}
