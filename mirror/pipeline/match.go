package pipeline

import (
	"regexp"
)

// Whole compiles an expression that matches only whole texts. The expression has to be complete by
// itself: between the anchors, "a)|(?:b" would compile, and get around them.
func Whole(text string) (*regexp.Regexp, error) {
	if _, err := regexp.Compile(text); err != nil {
		return nil, err
	}
	return regexp.Compile("^(?:" + text + ")$")
}

// semver is the pattern that semver.org suggests for version 2.0.0, with an optional v in front,
// because release tags often have one.
var semver = regexp.MustCompile(`^v?(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)` +
	`(?:-(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?` +
	`(?:\+[0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*)?$`)

// Semver reports whether a version is a semantic version, with or without a leading v.
func Semver(version string) bool { return semver.MatchString(version) }
