package pipeline

import (
	"fmt"
	"slices"
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

// A message that would be too long has every finding first, and each different advice once. A short
// one has the advice beside the finding.
func TestMessagePutsFindingsFirst(t *testing.T) {
	const fix = "revoke it, because everyone who has the image has it, and give it to the container when it starts"
	finding := func(stage, rule, path, fix string) Finding {
		return Finding{Stage: stage, Rule: rule, Mode: Enforce, Where: Place{Path: path}, What: "a credential", Fix: fix}
	}
	short := &Report{Repository: "team/app", Findings: []Finding{finding("secrets", "key", "a", fix), finding("runtime", "user", "b", "set USER")}}
	if want := "2 checks of team/app failed, so the image was not stored\n- [secrets/key] /a: a credential; " + fix + "\n- [runtime/user] /b: a credential; set USER"; short.Message("") != want {
		t.Errorf("short: %s", short.Message(""))
	}
	long := &Report{Repository: "team/app"}
	for i := range 9 {
		long.Findings = append(long.Findings, finding("secrets", []string{"key", "token"}[i%2], fmt.Sprint("f", i), fix))
	}
	long.Findings = append(long.Findings, finding("runtime", "user", "x", "set USER"), finding("shape", "size", "y", strings.Repeat("long ", 100)))
	long.Unknowns = []Unknown{{Stage: "clamd", Why: "no connection"}}
	lines := strings.Split(long.Message("https://dray.example.com/r"), "\n")
	var want []string
	for _, f := range long.Findings {
		want = append(want, f.line())
	}
	want = append(want, "- [clamd] no result: no connection", "what to do about secrets/key, secrets/token: "+fix, "what to do about runtime/user: set USER", "report: https://dray.example.com/r")
	if lines[0] != "3 checks of team/app failed, so the image was not stored (11 findings)" || !slices.Equal(lines[1:], want) {
		t.Errorf("long: %q", lines)
	}
}

// TestUndecidedChecks: several layers that one check could not read are one check.
func TestUndecidedChecks(t *testing.T) {
	r := &Report{Repository: "team/app", Unknowns: []Unknown{{Stage: "secrets", Why: "a"}, {Stage: "secrets", Why: "b"}, {Stage: "files", Why: "c"}}}
	head, _, _ := strings.Cut(r.Message(""), "\n")
	if want := "2 checks of team/app could not be completed, so the image was not stored"; head != want {
		t.Errorf("%q, want %q", head, want)
	}
}
