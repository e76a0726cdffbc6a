package main

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"dray/mirror/pipeline/secrets"
)

// Every example of docs/pipeline.md is a configuration that dray takes.
func TestPipelineExamples(t *testing.T) {
	page, err := os.ReadFile("../../docs/pipeline.md")
	if err != nil {
		t.Fatal(err)
	}
	var stages []string
	for _, m := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(page), -1) {
		text := m[1]
		key, _, _ := strings.Cut(text, ":")
		if key != "checks" {
			stages = append(stages, key)
			text = "checks:\n- name: example\n  " + strings.TrimRight(strings.ReplaceAll(text, "\n", "\n  "), " ") + "\n"
		}
		path := filepath.Join(t.TempDir(), "dray.yaml")
		if err := os.WriteFile(path, []byte(text+"cache: {directory: "+t.TempDir()+"}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path, nil); err != nil {
			t.Errorf("the example of %s: %v\n%s", key, err, text)
		}
	}
	slices.Sort(stages)
	for _, s := range keysOfChecks() {
		if _, there := slices.BinarySearch(stages, s); !there {
			t.Errorf("there is no example of the stage %s", s)
		}
	}
	for _, r := range secrets.Rules() {
		if !strings.Contains(string(page), "`"+r.ID+"`") {
			t.Errorf("the rule %s is not on the page", r.ID)
		}
	}
	for _, r := range secrets.PathRules() {
		if !strings.Contains(string(page), "`"+r.ID+"`") {
			t.Errorf("the rule %s is not on the page", r.ID)
		}
	}
}

// keysOfChecks are the sections of checks that are stages.
func keysOfChecks() []string {
	var out []string
	for name, i := range keysOf(reflect.TypeFor[Checks]()) {
		if section, ok := sectionOf(reflect.TypeFor[Checks]().Field(i).Type); ok {
			if _, isStage := keysOf(section)["on_error"]; isStage {
				out = append(out, name)
			}
		}
	}
	return out
}
