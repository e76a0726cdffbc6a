package pipeline

import (
	"fmt"
	"strings"
	"testing"
)

// The message of a rejection says how many findings it leaves out: those that do not fit, and those
// that the report leaves out.
func TestMessageCountsTheRest(t *testing.T) {
	for _, tc := range []struct {
		findings, more int
		all            bool // nothing is left out
	}{{1, 0, true}, {1, 7, false}, {3, 0, true}, {3, 7, false}, {20, 0, false}, {20, 7, false}} {
		for _, url := range []string{"", "https://dray.example.com/v2/_dray/reports/1234"} {
			r := &Report{Repository: "team/app", More: tc.more}
			for i := range tc.findings {
				r.Findings = append(r.Findings, Finding{Stage: "notes", Rule: "key", Mode: Enforce, What: fmt.Sprintf("%-40d", i)})
			}
			text := strings.TrimSuffix(r.Message(url), "\nreport: "+url)
			lines := strings.Split(text, "\n")
			last, shown := lines[len(lines)-1], len(lines)-1
			counted := strings.HasPrefix(last, "and ")
			if counted {
				shown--
			}
			rest := fmt.Sprintf("and %d more", tc.findings-shown+tc.more)
			if len(r.Message(url)) > MaxMessage || counted == tc.all || counted && last != rest || tc.findings < 20 && shown != tc.findings {
				t.Errorf("%d findings, %d more, %q: %s", tc.findings, tc.more, url, text)
			}
		}
	}
}
