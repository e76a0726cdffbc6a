package pipeline

import (
	"regexp"
	"regexp/syntax"
)

// Whole compiles an expression that matches only whole texts. The expression has to be complete by
// itself: if Whole added the anchors to its text as it is, "a)|(?:b" would get around them.
func Whole(text string) (*regexp.Regexp, error) {
	parsed, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return nil, err
	}
	return regexp.Compile("^(?:" + parsed.String() + ")$")
}

// semver is the pattern that semver.org suggests for version 2.0.0, with an optional v in front,
// because release tags often have one.
var semver = regexp.MustCompile(`^v?(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)` +
	`(?:-(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?` +
	`(?:\+[0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*)?$`)

// Semver reports whether a version is a semantic version, with or without a leading v.
func Semver(version string) bool { return semver.MatchString(version) }
