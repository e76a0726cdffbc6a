package edit

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

func TestPrependJSON(t *testing.T) {
	for name, tc := range map[string]struct{ old, want, err string }{
		"no file":        {"", "{\n  \"k\": [\"x\"]\n}\n", ""},
		"empty object":   {"{}", "{\n  \"k\": [\"x\"]\n}", ""},
		"empty, spread":  {"{\n}\n", "{\n  \"k\": [\"x\"]\n}\n", ""},
		"another member": {"{\n    \"b\": {\"k\": 1}\n}\n", "{\n    \"k\": [\"x\"],\n    \"b\": {\"k\": 1}\n}\n", ""},
		"tabs":           {"{\n\t\"b\": 1.50\n}\n", "{\n\t\"k\": [\"x\"],\n\t\"b\": 1.50\n}\n", ""},
		"on one line":    {`{"b": 1}`, "{\n  \"k\": [\"x\"],\"b\": 1}", ""},
		"a list":         {`{"b": [], "k": ["y"]}`, `{"b": [], "k": ["x", "y"]}`, ""},
		"an empty list":  {`{"k": []}`, `{"k": ["x"]}`, ""},
		"there already":  {`{ "k":["y","x"] }`, `{ "k":["y","x"] }`, ""},
		"in other words": {`{"k": ["X"]}`, `{"k": ["X"]}`, ""},
		"another form":   {`{"k": "y"}`, "", `"k" is not a list of strings`},
		"numbers":        {`{"k": [1]}`, "", `"k" is not a list of strings`},
		"no object":      {`[]`, "", "not a JSON object"},
		"null":           {`null`, "", "without touching the rest"},
		"null as a list": {`{"k": null}`, "", "without touching the rest"},
		"cut":            {`{"k": [`, "", "not a JSON object"},
		"a comment":      {"{ // why\n}", "", "not a JSON object"},
		"twice":          {`{"k": ["y"], "k": ["z"]}`, "", "without touching the rest"},
	} {
		got, err := PrependJSON([]byte(tc.old), "k", "x", strings.EqualFold)
		check(t, name, string(got), err, tc.want, tc.err)
	}
}

// check compares what a change made with what it should have made.
func check(t *testing.T, name, got string, err error, want, wantErr string) {
	t.Helper()
	if wantErr != "" {
		if err == nil || !strings.Contains(err.Error(), wantErr) {
			t.Errorf("%s: error %v, want %q", name, err, wantErr)
		}
		return
	}
	if err != nil {
		t.Errorf("%s: %v", name, err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s:\n%s", name, diff)
	}
}

const section = "[host.\"https://m\"]\n  capabilities = [\"pull\"]\n"

func TestTOML(t *testing.T) {
	insert := func(f *TOML) error { return f.Insert(section, "host") }
	server := func(f *TOML) error { return f.Set(nil, "server", "https://o") }
	path := func(f *TOML) error { return f.Set([]string{"plugins", "io.x.y", "registry"}, "config_path", "/etc") }
	mirror := func(f *TOML) error { return f.Prepend([]string{"registry", "docker.io"}, "mirrors", "m/hub") }
	for name, tc := range map[string]struct {
		change         func(f *TOML) error
		old, want, err string
	}{
		"a section, no file":      {insert, "", section, ""},
		"before another host":     {insert, "# mine\nserver = \"s\" # why\n\n# backup\n[host.\"https://b\"]\n  ca = 'x'\n", "# mine\nserver = \"s\" # why\n\n" + section + "\n# backup\n[host.\"https://b\"]\n  ca = 'x'\n", ""},
		"after keys":              {insert, "server = \"s\"", "server = \"s\"\n\n" + section, ""},
		"a bracket in a text":     {insert, "a = \"\"\"\n[host.x]\n\"\"\"\n", "a = \"\"\"\n[host.x]\n\"\"\"\n\n" + section, ""},
		"hosts on one line":       {insert, "host = { b = {} }\n", "", "without touching the rest"},
		"the section twice":       {insert, section, "", "without touching the rest"},
		"a key at the top":        {server, "# first\n[a]\nserver = 1\n", "# first\nserver = \"https://o\"\n\n[a]\nserver = 1\n", ""},
		"a key, comments alone":   {server, "# first\n", "server = \"https://o\"\n\n# first\n", ""},
		"a key that exists":       {server, "a = 1\nserver = 'x' # y\n", "a = 1\nserver = \"https://o\" # y\n", ""},
		"a key of a long form":    {server, "server = [1,\n 2]\n", "", "without touching the rest"},
		"a table, no file":        {path, "", "[plugins.\"io.x.y\".registry]\n  config_path = \"/etc\"\n", ""},
		"a table that exists":     {path, "  [plugins.\"io.x.y\".registry]\n    a = 1\n", "  [plugins.\"io.x.y\".registry]\n    config_path = \"/etc\"\n    a = 1\n", ""},
		"a value that exists":     {path, "[plugins]\n[plugins.\"io.x.y\"]\n[plugins.'io.x.y'.registry]\nconfig_path = '' # none\nb = 2\n", "[plugins]\n[plugins.\"io.x.y\"]\n[plugins.'io.x.y'.registry]\nconfig_path = \"/etc\" # none\nb = 2\n", ""},
		"a table inside of one":   {path, "[plugins]\n\"io.x.y\" = { registry = {} }\n", "", "without touching the rest"},
		"a value in place of one": {path, "plugins = 1\n", "", "plugins is not a table"},
		"a list, no file":         {mirror, "", "[registry.\"docker.io\"]\n  mirrors = [\"m/hub\"]\n", ""},
		"a list that exists":      {mirror, "[registry.\"docker.io\"]\n  mirrors = [ # best first\n    \"a\",\n  ]\n", "[registry.\"docker.io\"]\n  mirrors = [\"m/hub\",  # best first\n    \"a\",\n  ]\n", ""},
		"an empty list":           {mirror, "[registry.\"docker.io\"]\nmirrors = []\n", "[registry.\"docker.io\"]\nmirrors = [\"m/hub\"]\n", ""},
		"a list with the element": {mirror, "[registry.\"docker.io\"]\nmirrors = ['m/hub']\n", "[registry.\"docker.io\"]\nmirrors = ['m/hub']\n", ""},
		"a table without a list":  {mirror, "[registry.\"docker.io\"]\n  http = true", "[registry.\"docker.io\"]\n  mirrors = [\"m/hub\"]\n  http = true", ""},
		"dotted keys":             {mirror, "registry.\"docker.io\".http = true\n", "", "without touching the rest"},
		"dotted keys with a list": {mirror, "registry.\"docker.io\".mirrors = [\"a\"]\n", "registry.\"docker.io\".mirrors = [\"m/hub\", \"a\"]\n", ""},
		"no list":                 {mirror, "[registry.\"docker.io\"]\nmirrors = 'a'\n", "", "not a list of strings"},
	} {
		f, err := ParseTOML([]byte(tc.old))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		err = tc.change(f)
		check(t, name, string(f.Text()), err, tc.want, tc.err)
		if tc.err != "" && string(f.Text()) != tc.old {
			t.Errorf("%s: the text has changed:\n%s", name, f.Text())
		}
	}
	if _, err := ParseTOML([]byte("a = \n")); err == nil {
		t.Error("a file that is not TOML was read")
	}
}

func TestYAML(t *testing.T) {
	add := func(root *yaml.Node) (bool, error) {
		a, err := Child(root, "a", yaml.MappingNode)
		if err != nil {
			return false, err
		}
		list, err := Child(a, "b", yaml.SequenceNode)
		if err != nil {
			return false, err
		}
		if len(list.Content) > 0 && list.Content[0].Value == "x" {
			return false, nil
		}
		list.Content = append([]*yaml.Node{Scalar("x")}, list.Content...)
		return true, nil
	}
	for name, tc := range map[string]struct{ old, want, err string }{
		"no file":       {"", "a:\n  b:\n    - x\n", ""},
		"comments":      {"# top\na: # of a\n  # of b\n  b:\n    - y # last\nc: 010\n", "# top\na: # of a\n  # of b\n  b:\n    - x\n    - y # last\nc: 010\n", ""},
		"comments only": {"# top\n", "# top\n\na:\n  b:\n    - x\n", ""},
		"no value":      {"a:\n", "a:\n  b:\n    - x\n", ""},
		"there already": {"a:   {b: [x]}\n\n\n", "a:   {b: [x]}\n\n\n", ""},
		"one document":  {"---\nc: 1\n", "c: 1\na:\n  b:\n    - x\n", ""},
		"two documents": {"c: 1\n---\nd: 2\n", "", "line 2: it has a second YAML document; leave only one"},
		"bad document":  {"c: 1\n---\nd: [\n", "", "not YAML"},
		"no mapping":    {"c: 1\na: 5\n", "", "line 2: the value of a must be a mapping"},
		"no list":       {"a:\n  b: {c: 1}\n", "", "line 2: the value of b must be a list"},
		"a list":        {"- 1\n", "", "not a mapping"},
		"cut":           {"a: [", "", "not YAML"},
	} {
		got, err := YAML([]byte(tc.old), add)
		check(t, name, string(got), err, tc.want, tc.err)
	}
}
