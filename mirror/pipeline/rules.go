package pipeline

// RuleName makes a rule that somebody else named fit to label metrics: at most 40 lower-case letters, digits, - and _. Anything else
// is "other", and nothing is "refused".
func RuleName(s string) string {
	if s == "" {
		return "refused"
	}
	if len(s) > 40 {
		return "other"
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return "other"
		}
	}
	return s
}
