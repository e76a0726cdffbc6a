package main

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"dray/cmd/dray/config"
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
		if _, err := load(path, nil); err != nil {
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
func keysOfChecks() (keys []string) {
	for _, f := range reflect.VisibleFields(reflect.TypeFor[config.Checks]()) {
		section := f.Type
		if section.Kind() == reflect.Slice {
			section = section.Elem()
		}
		if section.Kind() != reflect.Struct {
			continue
		}
		if _, isStage := section.FieldByName("OnError"); isStage {
			name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
			keys = append(keys, name)
		}
	}
	return keys
}
