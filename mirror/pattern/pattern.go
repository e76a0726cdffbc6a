package pattern

import (
	"slices"
	"strings"
)

// Match reports whether a pattern matches a name.
func Match(pattern, name string) bool {
	piece, rest, open := strings.Cut(pattern, "*")
	if !open {
		return name == pattern
	}
	name, ok := strings.CutPrefix(name, piece)
	for ok {
		if piece, rest, open = strings.Cut(rest, "*"); !open {
			return strings.HasSuffix(name, piece)
		}
		_, name, ok = strings.Cut(name, piece) // the first match leaves the longest rest
	}
	return false
}

// Any reports whether one of the patterns matches a name.
func Any(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return Match(p, name) })
}
