// Package names checks the repository and the tag of a push. When an upload starts, it checks the
// repository. When the manifest arrives, it also checks the tag, and whether the push may move the
// tag.
package names

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"dray/mirror/pattern"
	"dray/mirror/pipeline"
	"dray/upstream/oci"
)

// Name of the stage.
const Name = "names"

// version is increased with every change of the code that affects which names pass.
const version = 2

// Config holds the allowed names. In patterns of tags, * matches any characters. A regular
// expression must match the whole name. Tags that tools derive from a digest ([oci.DerivedTag]) are
// not checked.
type Config struct {
	// Repositories are regular expressions. A repository must match one of them. An empty list allows
	// all.
	Repositories []string
	// Tags are regular expressions. A tag must match one of them. An empty list allows all.
	Tags []string
	// Semver requires tags that are semantic versions, with or without a leading v. Such a tag has no
	// build metadata, because a tag cannot contain a plus sign.
	Semver bool
	// Forbidden are patterns of tags that are refused.
	Forbidden []string
	// Immutable are patterns of tags that must not be moved to another image. Tags that match Except
	// may be moved anyway.
	Immutable, Except []string
}

// Stage implements [pipeline.NameStage].
type Stage struct {
	config       Config
	repositories []*regexp.Regexp
	tags         []*regexp.Regexp
}

var _ pipeline.NameStage = (*Stage)(nil)

// New compiles the expressions. The error joins all problems with them.
func New(c Config) (*Stage, error) {
	s := &Stage{config: c}
	var errs []error
	compile := func(list []string) (out []*regexp.Regexp) {
		for _, text := range list {
			r, err := pipeline.Whole(text)
			if err != nil {
				errs = append(errs, fmt.Errorf("names: %q is not a regular expression: %w", text, err))
				continue
			}
			out = append(out, r)
		}
		return out
	}
	s.repositories, s.tags = compile(c.Repositories), compile(c.Tags)
	return s, errors.Join(errs...)
}

// Name implements pipeline.Stage.
func (*Stage) Name() string { return Name }

// Revision implements pipeline.Stage.
func (s *Stage) Revision() string { return pipeline.Revision(version, s.config) }

// CheckName implements pipeline.NameStage.
func (s *Stage) CheckName(ctx context.Context, n pipeline.Name) ([]pipeline.Finding, error) {
	var found []pipeline.Finding
	if !fits(s.repositories, n.Repository) {
		found = append(found, pipeline.Finding{Rule: "repository", What: fmt.Sprintf("the repository name %s is not allowed", n.Repository), Fix: "push to a name that matches " + alternatives(s.config.Repositories)})
	}
	if n.Tag == "" || oci.DerivedTag(n.Tag) {
		return found, nil
	}
	found = append(found, s.checkTag(n.Tag)...)
	f, err := s.checkMove(ctx, n)
	return append(found, f...), err
}

func (s *Stage) checkTag(tag string) (found []pipeline.Finding) {
	switch {
	case pattern.Any(s.config.Forbidden, tag):
		found = append(found, pipeline.Finding{Rule: "forbidden-tag", What: fmt.Sprintf("the tag %s is forbidden", tag), Fix: "use a tag that names one version"})
	case s.config.Semver && !pipeline.Semver(tag):
		found = append(found, pipeline.Finding{Rule: "semver", What: fmt.Sprintf("the tag %s is not a semantic version", tag), Fix: "use a tag such as 1.4.2 or v1.4.2-rc.1"})
	}
	if !fits(s.tags, tag) {
		found = append(found, pipeline.Finding{Rule: "tag", What: fmt.Sprintf("the tag %s is not allowed", tag), Fix: "use a tag that matches " + alternatives(s.config.Tags)})
	}
	return found
}

// checkMove returns a finding if the push would move an immutable tag.
func (s *Stage) checkMove(ctx context.Context, n pipeline.Name) ([]pipeline.Finding, error) {
	if n.Current == nil || !pattern.Any(s.config.Immutable, n.Tag) || pattern.Any(s.config.Except, n.Tag) {
		return nil, nil
	}
	now, err := n.Current(ctx)
	if err != nil {
		return nil, fmt.Errorf("look up the tag: %w", err)
	}
	if now == "" || now == n.Digest {
		return nil, nil
	}
	return []pipeline.Finding{{Rule: "immutable", What: fmt.Sprintf("the tag %s already points to %s and must not be moved", n.Tag, oci.Short(now)), Fix: "push with a new tag"}}, nil
}

func fits(list []*regexp.Regexp, name string) bool {
	return len(list) == 0 || slices.ContainsFunc(list, func(r *regexp.Regexp) bool { return r.MatchString(name) })
}

// alternatives describes expressions for people.
func alternatives(list []string) string {
	if len(list) > 3 {
		return fmt.Sprintf("one of %d rules, such as %s", len(list), list[0])
	}
	return strings.Join(list, " or ")
}
