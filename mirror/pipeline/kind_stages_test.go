package pipeline_test

import (
	"slices"
	"testing"

	"dray/mirror/pipeline"
	"dray/mirror/pipeline/attestations"
	"dray/mirror/pipeline/base"
	"dray/mirror/pipeline/local"
	"dray/mirror/pipeline/metadata"
	"dray/mirror/pipeline/rules"
	"dray/mirror/pipeline/runtime"
	"dray/mirror/pipeline/shape"
	"dray/upstream/oci"
)

// Every stage that judges images judges all that run, and nothing else: no image of the table obeys
// its rule, and neither does any artifact.
func TestStagesJudgeWhatRuns(t *testing.T) {
	labels, err1 := metadata.New(metadata.Config{Required: []metadata.Requirement{{Key: "owner", In: "label"}}})
	user, err2 := runtime.New(runtime.Config{NonRoot: true})
	bases, err3 := base.New(base.Config{Allowed: []string{"docker.io/library/good:*"}}, nil)
	own, err4 := rules.New([]rules.Rule{{Name: "never", Expression: "false", Each: "manifest"}})
	for _, err := range []error{err1, err2, err3, err4} {
		if err != nil {
			t.Fatal(err)
		}
	}
	stages := []pipeline.Stage{shape.New(shape.Config{Required: []string{"linux/s390x"}}), labels, user, bases, attestations.New(attestations.Config{Provenance: true}), own}
	var options pipeline.Options
	for _, s := range stages {
		options.Steps = append(options.Steps, pipeline.Step{Stage: s})
	}
	p, err := pipeline.New(options)
	if err != nil {
		t.Fatal(err)
	}
	pipeline.EachManifest(t, func(t *testing.T, pushed *oci.Manifest, from pipeline.Contents, kind string) {
		r, err := p.Judge(t.Context(), pipeline.Subject{Manifest: pushed}, local.Contents{Blobs: from, Pipeline: p})
		if err != nil {
			t.Fatal(err)
		}
		if kind != pipeline.KindImage {
			if len(r.Findings)+len(r.Unknowns) > 0 {
				t.Errorf("an %s has %v", kind, r.Broken())
			}
			return
		}
		for _, s := range stages {
			if !slices.ContainsFunc(r.Findings, func(f pipeline.Finding) bool { return f.Stage == s.Name() && f.Rejects() }) {
				t.Errorf("%s says nothing of it: %v, %+v", s.Name(), r.Broken(), r.Unknowns)
			}
		}
	})
}
