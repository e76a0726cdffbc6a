package pipeline

import "regexp"

// RuleName makes a rule that somebody else named fit to label metrics: at most 40 lower-case letters, digits, - and _. Anything else
// is "other", and nothing is "refused".
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
