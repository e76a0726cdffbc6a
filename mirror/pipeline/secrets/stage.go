package secrets

import (
	"context"
	"fmt"
	"slices"

	"dray/mirror/pipeline"
)

// Name of the stage.
const Name = "secrets"

// version is increased with every change of the built-in rules.
const version = 6

// Config configures the search.
type Config struct {
	// Without has the IDs of disabled built-in rules, both for contents and for paths.
	Without []string
	// MaxFileBytes is the number of bytes that are searched at the start of each file. 0 searches
	// whole files, but at most maxWhole bytes of a blob that is no archive.
	MaxFileBytes int64
}

// Stage looks for credentials in layers, configurations and manifests. It also reports a secret
// that a later layer deletes, because clients download each layer.
type Stage struct {
	config Config
	engine *Engine
	paths  []PathRule
}

var (
	_ pipeline.LayerStage = (*Stage)(nil)
	_ pipeline.ImageStage = (*Stage)(nil)
)

// New makes a stage. It returns an error if c.Without names a rule that does not exist.
func New(c Config) (*Stage, error) {
	s := &Stage{config: c}
	left := slices.Clone(c.Without)
	drop := func(id string) bool {
		before := len(left)
		left = slices.DeleteFunc(left, func(other string) bool { return other == id })
		return len(left) < before
	}
	s.engine = NewEngine(slices.DeleteFunc(Rules(), func(r *Rule) bool { return drop(r.ID) }))
	s.paths = slices.DeleteFunc(PathRules(), func(r PathRule) bool { return drop(r.ID) })
	if len(left) > 0 {
		return nil, fmt.Errorf("secrets: there is no rule named %q", left[0])
	}
	return s, nil
}

// Name implements pipeline.Stage.
func (s *Stage) Name() string { return Name }

// Revision implements pipeline.Stage.
func (s *Stage) Revision() string { return pipeline.Revision(version, s.config) }

// Open implements pipeline.LayerStage.
func (s *Stage) Open(context.Context, pipeline.Layer) (pipeline.Visitor, error) {
	v := &visitor{stage: s}
	v.scanner = s.engine.NewScanner(v.found)
	return v, nil
}

// maxWhole bounds the bytes that are searched in a blob that is no archive, such as the weights of
// a model.
const maxWhole = 1 << 30

// visitor searches one layer.
type visitor struct {
	stage   *Stage
	scanner *Scanner
	path    string
	left    int64 // bytes of the file that are still to be searched
	result  pipeline.LayerResult
}

// Begin implements pipeline.Visitor.
func (v *visitor) Begin(e *pipeline.Entry) (bool, error) {
	if !e.Regular() || e.Size == 0 {
		return false, nil
	}
	for _, r := range v.stage.paths {
		if r.Match(e.Path) {
			v.add(r.finding(pipeline.Place{Path: e.Path}))
		}
	}
	v.path, v.left = e.Path, e.Size
	if e.Whole {
		v.left = maxWhole
	}
	if most := v.stage.config.MaxFileBytes; most > 0 {
		v.left = min(v.left, most)
	}
	v.scanner.Reset()
	return true, nil
}

// Data implements pipeline.Visitor.
func (v *visitor) Data(p []byte) error {
	p = p[:min(int64(len(p)), v.left)]
	v.left -= int64(len(p))
	_, err := v.scanner.Write(p)
	return err
}

// End implements pipeline.Visitor.
func (v *visitor) End() error {
	v.scanner.End()
	return nil
}

// Close implements pipeline.Visitor.
func (v *visitor) Close(bool) (pipeline.LayerResult, error) { return v.result, nil }

// revoke is the advice about a credential.
const revoke = "revoke it, because everyone with the image has it, and pass it to the build as a secret mount or to the container at run time"

// finding returns the finding about a file that the rule matches.
func (r PathRule) finding(where pipeline.Place) pipeline.Finding {
	return pipeline.Finding{
		Rule: r.ID, What: "the image contains " + r.What, Where: where,
		Fix: "exclude the file from the build (.dockerignore), and use a secret mount if a build step needs it; deleting it in a later layer does not remove it",
	}
}

func (v *visitor) found(m Match) {
	v.add(pipeline.Finding{
		Rule: m.Rule.ID, What: fmt.Sprintf("%s in line %d, fingerprint %s", m.Rule.What, m.Line, m.Fingerprint),
		Where: pipeline.Place{Path: v.path}, Fingerprint: m.Fingerprint,
		Fix: revoke,
	})
}

func (v *visitor) add(f pipeline.Finding) {
	if len(v.result.Findings) >= pipeline.MaxLayerFindings {
		v.result.More++
		return
	}
	v.result.Findings = append(v.result.Findings, f)
}
