package pipeline

import (
	"cmp"
	"regexp"
)

// RuleName makes a rule that somebody else named fit to label metrics: at most 40 lower-case
// letters, digits, - and _. Anything else is "other", and nothing is "refused".
func RuleName(s string) string {
	switch {
	case s == "":
		return "refused"
	case !ruleName.MatchString(s):
		return "other"
	}
	return s
}

var ruleName = regexp.MustCompile(`^[a-z0-9_-]{1,40}$`)

// ExternalFinding is a finding as a service or a program writes it.
type ExternalFinding struct {
	Rule    string `json:"rule"`
	Message string `json:"message"`
	Path    string `json:"path"`
	Fix     string `json:"fix"`
}

// maxExternal bounds how many findings of one answer are looked at.
const maxExternal = 100

// FindingsOf makes findings of what was told. One without a message gets the given one.
func FindingsOf(told []ExternalFinding, unsaid string) []Finding {
	var out []Finding
	for _, f := range told[:min(len(told), maxExternal)] {
		out = append(out, Finding{Rule: RuleName(f.Rule), What: cmp.Or(f.Message, unsaid), Where: Place{Path: f.Path}, Fix: f.Fix})
	}
	if more := len(told) - maxExternal; more > 0 {
		out = append(out, Further(more, Place{}))
	}
	return out
}
