package pipeline

import (
	"regexp"
	"strings"
)

// Matches reports whether a name is what a pattern says, in which "*" stands for any
// characters, slashes included.
func Matches(pattern, name string) bool {
	piece, rest, open := strings.Cut(pattern, "*")
	if !open {
		return name == pattern
	}
	name, ok := strings.CutPrefix(name, piece)
	for ok {
		if piece, rest, open = strings.Cut(rest, "*"); !open {
			return strings.HasSuffix(name, piece)
		}
		_, name, ok = strings.Cut(name, piece) // the first place leaves the most
	}
	return false
}

// semver is the pattern that semver.org suggests for version 2.0.0, with the v that tags of releases begin with.
var semver = regexp.MustCompile(`^v?(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)` +
	`(?:-(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?` +
	`(?:\+[0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*)?$`)

// Semver reports whether a version is a semantic one, with or without a v before it.
func Semver(version string) bool { return semver.MatchString(version) }
