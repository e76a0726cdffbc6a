package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"dray/cmd/dray/config"
)

// schemaOf compiles what dray config schema prints, which also holds it to the schema of schemas.
func schemaOf(t *testing.T) *jsonschema.Schema {
	t.Helper()
	code, text, stderr := runDray(t, nil, "config", "schema")
	if code != 0 {
		t.Fatal(stderr)
	}
	parsed, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("dray.schema.json", parsed); err != nil {
		t.Fatal(err)
	}
	return c.MustCompile("dray.schema.json")
}

// document is a YAML document as an editor sees it: a time is a text.
func document(n *yaml.Node) any {
	switch n.Kind {
	case yaml.DocumentNode:
		return document(n.Content[0])
	case yaml.AliasNode:
		return document(n.Alias)
	case yaml.SequenceNode:
		list := make([]any, 0, len(n.Content))
		for _, e := range n.Content {
			list = append(list, document(e))
		}
		return list
	case yaml.MappingNode:
		object := map[string]any{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			object[n.Content[i].Value] = document(n.Content[i+1])
		}
		return object
	}
	var value any
	if err := n.Decode(&value); err != nil || n.Tag == "!!timestamp" {
		return n.Value
	}
	return value
}

func parseYAML(t *testing.T, text string) *yaml.Node {
	t.Helper()
	var n yaml.Node
	if err := yaml.Unmarshal([]byte(text), &n); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return &n
}

// yamlBlock is a block of YAML in a document.
var yamlBlock = regexp.MustCompile("(?s)```yaml\n(.*?)```")

// configurations are the configurations of dray in the documents, the packages and the tests.
func configurations(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{"dray config example": config.Example}
	for _, name := range []string{"testdata/full.yaml", "../../deploy/dray.yaml", "../../deploy/debian/dray.yaml"} {
		all[name] = read(t, name)
	}
	pages := []string{"../../README.md", "../../deploy/README.md"}
	more, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range append(pages, more...) {
		for i, m := range yamlBlock.FindAllStringSubmatch(read(t, page), -1) {
			text := m[1]
			if filepath.Base(page) == "pipeline.md" && !strings.HasPrefix(text, "checks:") { // a stage
				text = "checks:\n- name: example\n  " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n  ")
			}
			if isOurs(parseYAML(t, text)) {
				all[page+", block "+strconv.Itoa(i+1)] = text
			}
		}
	}
	return all
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// isOurs reports whether a document is a configuration of dray, and not of another program: all its
// sections are known.
func isOurs(doc *yaml.Node) bool {
	if doc.Content[0].Kind != yaml.MappingNode {
		return false
	}
	for i := 0; i < len(doc.Content[0].Content); i += 2 {
		known := strings.Contains("\n"+config.Example+"\nchecks:\nnotifications:\nauth:", "\n"+doc.Content[0].Content[i].Value+":")
		if key := doc.Content[0].Content[i+1].Content; !known || len(key) > 0 && key[0].Value == "annotations" {
			return false
		}
	}
	return true
}

// TestSchemaOfConfigurations: each configuration that stands in the documents is one by the schema.
func TestSchemaOfConfigurations(t *testing.T) {
	schema, all := schemaOf(t), configurations(t)
	for name, text := range all {
		if err := schema.Validate(document(parseYAML(t, text))); err != nil {
			t.Errorf("%s: %v\n%s", name, err, text)
		}
	}
	if len(all) < 20 {
		t.Errorf("only %d configurations were found", len(all))
	}
}

// place is a value in a document, and its path as dray writes it.
type place struct {
	path   string
	parent *yaml.Node // of a key
	at     int        // index of the key in the parent
	value  *yaml.Node
}

// places are the values below n. Maps whose keys are not those of dray are values themselves.
func places(n *yaml.Node, path string) (all []place) {
	switch n.Kind {
	case yaml.DocumentNode:
		return places(n.Content[0], path)
	case yaml.SequenceNode:
		for i, e := range n.Content {
			at := fmt.Sprintf("%s[%d]", path, i)
			all = append(append(all, place{path: at, value: e}), places(e, at)...)
		}
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			at := strings.TrimPrefix(path+"."+n.Content[i].Value, ".")
			all = append(append(all, place{path: at, parent: n, at: i, value: n.Content[i+1]}), places(n.Content[i+1], at)...)
		}
	}
	return all
}

// namesAndValues matches the paths of maps whose keys are not those of dray.
var namesAndValues = regexp.MustCompile(`\.(rates|headers|create_repositories\.tags)$`)

// TestSchemaRefuses: an unknown key anywhere, and a value of another type anywhere, are refused.
func TestSchemaRefuses(t *testing.T) {
	schema := schemaOf(t)
	doc := parseYAML(t, read(t, "testdata/full.yaml"))
	refused := func(path, what string) {
		if schema.Validate(document(doc)) == nil {
			t.Errorf("%s at %s is accepted", what, path)
		}
	}
	mutations := 0
	for _, p := range append(places(doc, ""), place{path: "the file", value: doc.Content[0]}) {
		was := *p.value
		if was.Kind == yaml.MappingNode && !namesAndValues.MatchString(p.path) {
			p.value.Content = append(slices.Clone(was.Content), parseYAML(t, "unheard_of: 1").Content[0].Content...)
			refused(p.path, "an unknown key")
		}
		*p.value = *parseYAML(t, "[[a]]").Content[0]
		refused(p.path, "a list of lists")
		*p.value = *parseYAML(t, "{unheard_of: {b: 1}}").Content[0]
		refused(p.path, "a section of another sort")
		if was.Kind == yaml.ScalarNode && was.Tag != "!!bool" {
			*p.value = *parseYAML(t, "true").Content[0]
			refused(p.path, "true")
		} else {
			*p.value = *parseYAML(t, "12").Content[0]
			refused(p.path, "12")
		}
		*p.value = was
		mutations++
	}
	if mutations < 150 {
		t.Errorf("only %d places were tried", mutations)
	}
	for _, text := range []string{
		"cache: {max_bytes: 5 gigabytes}", "cache: {max_bytes: -1}", "cache: {stall_timeout: 5}", "cache: {stall_timeout: -1s}", "cache: {stall_timeout: 1w}",
		"listeners: [{role: proxy}]", "listeners: [{trusted_proxies: 10.0.0.0/8}]", "upstreams: [{name: x}]", "upstreams: [{kind: local}]",
		"auth: [{name: x, rules: [{users: [a], actions: [fetch]}]}]", "metadata: {password: x}", "upstreams: [{url: quay.io, push: maybe}]",
	} {
		if schema.Validate(document(parseYAML(t, text))) == nil {
			t.Errorf("%s is accepted", text)
		}
	}
}

// TestSchemaAsDray: dray accepts what the schema accepts of sizes and durations, and no section is
// right for one of them without a key that is missing to the other.
func TestSchemaAsDray(t *testing.T) {
	schema := schemaOf(t)
	for _, tc := range []struct{ key, values string }{
		{"max_bytes", "0 4096 200GiB 500MB 1kB 7TB 3TiB 1B 1.5GiB 5gb GiB 200Gi -1"},
		{"stall_timeout", "0 0s 90s 1h30m 7d 1.5h .5s 100ms 5µs 5 d 1.5d 1w -1s s 7d1h"},
	} {
		for value := range strings.FieldsSeq(tc.values) {
			text := "cache: {" + tc.key + ": " + value + "}"
			bySchema := schema.Validate(document(parseYAML(t, text)))
			if byDray := config.ReadYAML("dray.yaml", []byte(text), new(config.Config)); (byDray == nil) != (bySchema == nil) {
				t.Errorf("%s:\ndray: %v\nschema: %v", text, byDray, bySchema)
			}
		}
	}
	full, _ := fullConfiguration(t)
	doc := parseYAML(t, full)
	environ := []string{"QUAY_PASSWORD=x"}
	for _, p := range places(doc, "") {
		if p.parent == nil {
			continue
		}
		was := p.parent.Content
		p.parent.Content = slices.Delete(slices.Clone(was), p.at, p.at+2)
		text, err := yaml.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		bySchema := schema.Validate(document(doc))
		_, byDray := load(write(t, "dray.yaml", string(text)), environ)
		p.parent.Content = was
		if byDray == nil && bySchema != nil {
			t.Errorf("dray does not need %s: %v", p.path, bySchema)
		}
		if byDray != nil && strings.Contains(byDray.Error(), p.path+": is missing") && bySchema == nil {
			t.Errorf("the schema does not need %s: %v", p.path, byDray)
		}
	}
}
