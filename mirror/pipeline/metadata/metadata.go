// Package metadata checks that images have the labels and annotations that an operator requires.
package metadata

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"time"

	"dray/mirror/pipeline"
)

// Name of the stage.
const Name = "metadata"

// version is increased with every change of the code that affects which images pass.
const version = 2

// Values of Requirement.In, which says where an image may have the required key.
const (
	// Label is a label in the configuration of the image.
	Label = "label"
	// Annotation is an annotation of the manifest, of the pushed index, or of the descriptor of the
	// manifest in its index.
	Annotation = "annotation"
	// Either is a label or an annotation, because some tools write labels and others annotations.
	Either = "either"
)

// Requirement is a key that each image must have.
type Requirement struct {
	// Key is the name of the label or annotation, such as org.opencontainers.image.source.
	Key string
	// In says where the value may be. Empty means Either.
	In string
	// Pattern is a regular expression that must match the whole value.
	Pattern string
	// Format is the format of the value: "url", "semver" or "time" (RFC 3339). Empty allows any.
	Format string
}

// Config lists the requirements.
type Config struct{ Required []Requirement }

// Stage implements [pipeline.ImageStage].
type Stage struct {
	config   Config
	patterns []*regexp.Regexp // nil for a requirement without a pattern
}

var _ pipeline.ImageStage = (*Stage)(nil)

// New compiles the requirements. The returned error joins all problems of the requirements.
func New(c Config) (*Stage, error) {
	s := &Stage{config: c, patterns: make([]*regexp.Regexp, len(c.Required))}
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf("metadata: "+format, args...)) }
	for i, r := range c.Required {
		if r.Key == "" {
			wrong("a requirement has no key")
		}
		if !slices.Contains([]string{"", Label, Annotation, Either}, r.In) {
			wrong("%s: %q is not one of label, annotation, either", r.Key, r.In)
		}
		if formats[r.Format] == nil {
			wrong("%s: %q is not one of url, semver, time", r.Key, r.Format)
		}
		if r.Pattern == "" {
			continue
		}
		var err error
		if s.patterns[i], err = pipeline.Whole(r.Pattern); err != nil {
			wrong("%s: %q is not a regular expression: %w", r.Key, r.Pattern, err)
		}
	}
	return s, errors.Join(errs...)
}

// Name implements pipeline.Stage.
func (*Stage) Name() string { return Name }

// Revision implements pipeline.Stage.
func (s *Stage) Revision() string { return pipeline.Revision(version, s.config) }

// CheckImage implements pipeline.ImageStage. The annotations of the pushed index apply to each of
// its images. While an image waits for its index, it may lack values that the index can add.
func (s *Stage) CheckImage(_ context.Context, img *pipeline.Image) ([]pipeline.Finding, error) {
	var found []pipeline.Finding
	for _, m := range img.Images() {
		for i, r := range s.config.Required {
			if what := s.problem(img, m, i); what != "" {
				found = append(found, pipeline.Finding{Rule: "required", What: what, Where: img.Place(m), Fix: fix(r)})
			}
		}
	}
	return found, nil
}

// problem describes how an image fails requirement i. It returns "" if the image has a valid value,
// or if it has no value yet, but may get one from its index.
func (s *Stage) problem(img *pipeline.Image, m *pipeline.Manifest, i int) string {
	r := s.config.Required[i]
	values := valuesOf(img, m, r)
	for _, v := range values {
		if formats[r.Format](v) && (s.patterns[i] == nil || s.patterns[i].MatchString(v)) {
			return ""
		}
	}
	switch {
	case len(values) > 0:
		return fmt.Sprintf("the value %q of %s is not allowed", values[0], r.Key)
	case img.Part && r.In != Label:
		return ""
	}
	return fmt.Sprintf("the %s %s is missing", noun(r.In), r.Key)
}

func valuesOf(img *pipeline.Image, m *pipeline.Manifest, r Requirement) (values []string) {
	add := func(in map[string]string) {
		if v := in[r.Key]; v != "" {
			values = append(values, v)
		}
	}
	if r.In != Annotation && m.Config != nil {
		add(m.Config.Config.Labels)
	}
	if r.In != Label {
		add(m.Annotations)
		add(m.DescriptorAnnotations)
		if root := img.Root(); root != m {
			add(root.Annotations)
		}
	}
	return values
}

func noun(in string) string {
	if in == "" || in == Either {
		return "label or annotation"
	}
	return in
}

func fix(r Requirement) string {
	text := "build with --label " + r.Key + "=…"
	if r.In == Annotation {
		text = "build with --annotation " + r.Key + "=…"
	}
	switch {
	case r.Pattern != "":
		text += " that fits " + r.Pattern
	case r.Format != "":
		text += ", in the form of a " + r.Format
	}
	return text
}

// formats holds a validator for each format of values.
var formats = map[string]func(string) bool{
	"":       func(string) bool { return true },
	"semver": pipeline.Semver,
	"url": func(v string) bool {
		u, err := url.Parse(v)
		return err == nil && u.Host != "" && slices.Contains([]string{"http", "https", "git", "ssh"}, u.Scheme)
	},
	"time": func(v string) bool {
		_, err := time.Parse(time.RFC3339, v)
		return err == nil
	},
}
