package pattern

import (
	"regexp"
	"strings"
	"testing"
)

// All short patterns on all short names mean what the expression with .* would.
func TestPatternsOfAllShapes(t *testing.T) {
	patterns := []string{""}
	for i := 0; len(patterns[i]) < 5; i++ {
		for _, letter := range []string{"a", "b", "*"} {
			patterns = append(patterns, patterns[i]+letter)
		}
	}
	for _, p := range patterns {
		expression := regexp.MustCompile("^(?:" + strings.ReplaceAll(p, "*", ".*") + ")$")
		for _, name := range patterns {
			if strings.Contains(name, "*") {
				continue
			}
			if got := Match(p, name); got != expression.MatchString(name) {
				t.Errorf("%q on %q: %t", p, name, got)
			}
		}
	}
}
