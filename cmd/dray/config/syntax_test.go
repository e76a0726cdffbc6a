package config

import (
	"fmt"
	"strings"
	"testing"
)

// A problem of a text that is no YAML has the line of the mistake, and says what to do.
func TestSyntax(t *testing.T) {
	many := strings.Repeat("  # a comment\n", 700)
	for _, c := range []struct {
		text string
		line int
		say  string
	}{
		{"cache:\n\tdirectory: /x\n", 2, "indent it with spaces"},
		{"cache:\n  directory: /x\n  \tmax_bytes: 1\n", 3, "indent it with spaces"},
		{"cache:\n  directory: /x\n    max_bytes: 1\n", 3, "look at the indentation"},
		{"cache:\n  directory: /x\n max_bytes: 1\nlog: {}\n", 3, "look at its indentation"},
		{"upstreams:\n  - name: a\n    url: a.example\n   push: true\nlog: {}\n", 4, "look at its indentation"},
		{"upstreams:\n  - name: a\n- name: b\n", 3, "look at its indentation"},
		{"upstreams:\n- name: a\nlog\ncache: {}\n", 3, "write it as key: value"},
		{"log:\n  level: info\n  access true\n  format: text\n", 3, "write it as key: value"},
		{"upstreams:\n- {name: a, url: b\n- {name: c}\n", 2, "that begins with { here is not closed"},
		{"log: {}\nlisteners: [a, b\ncache: {}\n", 2, "that begins with [ here is not closed"},
		{"log: {}\ncache: {directory: \"/x}\n" + many, 2, "quotation mark that opens here is not closed"},
		{"log: {}\ncache: {directory: '/x}\n", 2, "quotation mark that opens here is not closed"},
		{"log:\n  level: 'it's'\n", 2, "quotation marks within quoted values"},
		{"auth:\n- name: @team\n", 2, "put the value in quotes"},
		{"auth:\n- rules: [{users: [*]}]\n", 2, "in quotes"},
		{"auth:\n- name: *team\n", 2, "in quotes"},
		{"auth:\n- name: !team!x a\n", 2, "in quotes"},
		{"checks:\n- rules: {rules: [{message: a: b}]}\n", 2, "must be in quotes"},
		{"log: - a\n", 1, "in the line after its key"},
		{"log: {}\ncache: {directory: \"C:\\dray\"}\n", 2, "use single quotation marks"},
		{"log: {}\ncache: {directory: \xff}\n", 2, "UTF-8"},
		{"log: {}\ncache: {directory: \x01}\n", 2, "control character"},
		{"[", 1, "a value is missing"},
	} {
		d := decodeYAML("dray.yaml", []byte(c.text), new(Config))
		if len(d.problems) == 0 || d.problems[0].Origin != fmt.Sprintf("dray.yaml:%d", c.line) || !strings.Contains(d.problems[0].Message, c.say) {
			t.Errorf("%.80q: %v, want line %d: …%s…", c.text, d.problems, c.line, c.say)
		}
	}
}

// Whatever a file has, it is read, or the problem is in one of its lines.
func FuzzYAML(f *testing.F) {
	f.Add("log: {level: info}\ncache:\n  max_bytes: 1GiB\n")
	f.Add("listeners:\n- &a {address: x}\n- *a\n- *b\n")
	f.Add("a: [\n\tb\n'")
	f.Fuzz(func(t *testing.T, text string) {
		for _, p := range decodeYAML("f", []byte(text), new(Config)).problems {
			line := 0
			if _, err := fmt.Sscanf(p.Origin, "f:%d", &line); p.Origin != "f" && (err != nil || line < 1 || line > len(text)+1) || p.Message == "" {
				t.Errorf("%q: %+v", text, p)
			}
		}
	})
}
