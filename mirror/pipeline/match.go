package pipeline

import "strings"

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
