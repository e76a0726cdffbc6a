package pipeline

import (
	"cmp"
	"regexp"
)

// RuleName returns the name of an external rule if the name is fit for a metric label: at most 40
// lower-case letters, digits, - and _. It returns "other" for any other name, and "refused" for an
// empty one.
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

// ExternalFinding is a finding in the JSON of a webhook's or a scanner's answer.
type ExternalFinding struct {
	Rule    string `json:"rule"`
	Message string `json:"message"`
	Path    string `json:"path"`
	Fix     string `json:"fix"`
}

// maxExternal bounds the findings that are read from one answer.
const maxExternal = 100

// FindingsOf converts external findings. A finding without a message gets the fallback.
func FindingsOf(external []ExternalFinding, fallback string) []Finding {
	var out []Finding
	for _, f := range external[:min(len(external), maxExternal)] {
		out = append(out, Finding{Rule: RuleName(f.Rule), What: cmp.Or(f.Message, fallback), Where: Place{Path: f.Path}, Fix: f.Fix})
	}
	if more := len(external) - maxExternal; more > 0 {
		out = append(out, MoreFindings(more, Place{}))
	}
	return out
}
