package main

import (
	"encoding"
	"fmt"
	"go/ast"
	"go/constant"
	"go/types"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"dray/cmd/dray/config"
)

// The words that users' dashboards, alerts, scripts and configurations depend on. The golden files
// do not name the place of a word in the code, so that code can move. A change of a golden file
// needs a line in the changelog. The tests find values of labels and computed keys by following
// constants through the code, so a change of these may come from the code alone and be invisible to
// users.

func lineEach(words map[string]bool, format string) string {
	var b strings.Builder
	for _, w := range slices.Sorted(maps.Keys(words)) {
		fmt.Fprintf(&b, format+"\n", w)
	}
	return b.String()
}

// goldenWords compares lines with a file, or writes the file with -update.
func goldenWords(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		golden(t, path, got)
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("%s: a word or text of users is lost, changed or new (go test ./cmd/dray -run 'Words|Texts' -update writes it):\n%s", path, diff)
	}
}

func sourceFor(t *testing.T) *source {
	t.Helper()
	src, err := productSource()
	if err != nil {
		t.Fatal(err)
	}
	return src
}

// TestMetricWords: names of metrics with their labels, the series that are there from the start,
// and every value that the code gives to labels.
func TestMetricWords(t *testing.T) {
	s := startStack(t, t.TempDir(), described...)
	var b strings.Builder
	b.WriteString("# metrics and their labels\n")
	rows := metricsOf(t, s.metrics)
	for _, name := range slices.Sorted(maps.Keys(rows)) {
		_, labels, _ := strings.Cut(strings.TrimPrefix(rows[name], "| "), " | ")
		labels, _, _ = strings.Cut(labels, " | ")
		fmt.Fprintf(&b, "%s %s\n", name, labels)
	}
	b.WriteString("\n# series that are there before anything happens\n")
	families, err := s.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	series := map[string]bool{}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "dray_") || f.GetName() == "dray_ecr_token_calls_total" { // the first token may be here already, or not
			continue
		}
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				value := l.GetValue()
				if f.GetName() == "dray_build_info" || strings.Contains(value, "127.0.0.1:") {
					value = "..." // of this machine, or of this run
				}
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), value))
			}
			series[fmt.Sprintf("%s %s {%s}", f.GetName(), strings.ToLower(f.GetType().String()), strings.Join(labels, ","))] = true
		}
	}
	b.WriteString(lineEach(series, "%s"))
	b.WriteString("\n# values of labels in the code\n")
	values, src := map[string]bool{}, sourceFor(t)
	src.calls(func(name string, call *ast.CallExpr) {
		if strings.HasPrefix(name, "(*github.com/prometheus/client_golang/prometheus.") && strings.HasSuffix(name, ").WithLabelValues") {
			labels := src.labels(call.Fun.(*ast.SelectorExpr).X)
			for i, arg := range call.Args {
				if i >= len(labels) || !slices.Contains([]string{"upstream", "repository", "image"}, labels[i]) { // names that users give
					src.words(arg, values)
				}
			}
		}
		if name == "github.com/prometheus/client_golang/prometheus.MustNewConstMetric" {
			for _, arg := range call.Args[3:] {
				src.words(arg, values)
			}
		}
	})
	b.WriteString(lineEach(values, "%q"))
	goldenWords(t, "testdata/words/metrics.golden", b.String())
}

// labels are the names of the labels of a metric, where they are written down with it.
func (s *source) labels(metric ast.Expr) (names []string) {
	for _, from := range s.flows[s.object(metric)] {
		call, ok := from.(*ast.CallExpr)
		if !ok || len(call.Args) != 2 {
			continue
		}
		if list, ok := call.Args[1].(*ast.CompositeLit); ok {
			for _, e := range list.Elts {
				if v := s.Types[e].Value; v != nil && v.Kind() == constant.String {
					names = append(names, constant.StringVal(v))
				}
			}
		}
	}
	return names
}

// TestLogWords: all keys of the log. TestTexts has its messages.
func TestLogWords(t *testing.T) {
	src := sourceFor(t)
	keys := map[string]bool{}
	pairs := func(call *ast.CallExpr, from int) {
		args := call.Args[from:]
		for i := 0; i < len(args); i++ {
			switch { // what is an attribute is found where it is made
			case call.Ellipsis.IsValid() && i == len(args)-1:
				src.spread(args[i], keys, map[ast.Expr]bool{})
			case types.Identical(src.TypeOf(args[i]).Underlying(), types.Typ[types.String]), src.Types[args[i]].Value != nil:
				src.words(args[i], keys)
				i++
			}
		}
	}
	src.calls(func(name string, call *ast.CallExpr) {
		function, method := strings.CutPrefix(name, "log/slog.")
		if !method {
			if function, method = strings.CutPrefix(name, "(*log/slog.Logger)."); !method {
				return
			}
		}
		at := 0
		short, context := strings.CutSuffix(function, "Context")
		if context {
			at = 1
		}
		switch short {
		case "Debug", "Info", "Warn", "Error":
			pairs(call, at+1)
		case "Log", "LogAttrs":
			pairs(call, 3)
		case "With":
			pairs(call, 0)
		case "String", "Int", "Int64", "Uint64", "Float64", "Bool", "Duration", "Time", "Any", "Group", "WithGroup":
			src.words(call.Args[0], keys)
		case "New", "NewTextHandler", "NewJSONHandler", "NewLogLogger", "NewRecord", "Enabled", "Handler", "StringValue":
		default:
			t.Errorf("%s logs in a way that this test does not know", name)
		}
	})
	goldenWords(t, "testdata/words/log.golden", lineEach(keys, "%s"))
}

// spread finds the keys in a slice of keys and values.
func (s *source) spread(e ast.Expr, keys map[string]bool, seen map[ast.Expr]bool) {
	if seen[e] {
		return
	}
	seen[e] = true
	elements := func(of []ast.Expr) {
		for i := 0; i < len(of); i += 2 {
			if s.Types[of[i]].Value == nil {
				continue
			}
			s.words(of[i], keys)
		}
	}
	switch e := e.(type) {
	case *ast.CompositeLit:
		elements(e.Elts)
	case *ast.CallExpr:
		if s.Types[e.Fun].IsBuiltin() {
			s.spread(e.Args[0], keys, seen)
			if !e.Ellipsis.IsValid() {
				elements(e.Args[1:])
			}
			return
		}
		for _, from := range s.flows[s.object(e.Fun)] {
			s.spread(from, keys, seen)
		}
	case *ast.Ident, *ast.SelectorExpr:
		for _, from := range s.flows[s.object(e)] {
			s.spread(from, keys, seen)
		}
	}
}

// TestConfigurationWords: every path of the file with the words that it takes where these are few,
// and the variables of the environment.
func TestConfigurationWords(t *testing.T) {
	var b strings.Builder
	b.WriteString("# file\n")
	b.WriteString(lineEach(configPaths(reflect.TypeFor[config.Config](), "yaml"), "%s"))
	b.WriteString("\n# files of dray policy test\n")
	b.WriteString(lineEach(configPaths(reflect.TypeFor[policyFile](), "yaml"), "%s"))
	b.WriteString("\n# environment\n")
	b.WriteString(lineEach(configPaths(reflect.TypeFor[config.Environment](), "env"), "%s"))
	goldenWords(t, "testdata/words/configuration.golden", b.String())
}

func join(path, key string) string { return strings.TrimPrefix(path+"."+key, ".") }

func configPaths(of reflect.Type, tag string) map[string]bool {
	found := map[string]bool{}
	var walk func(of reflect.Type, at string)
	walk = func(of reflect.Type, at string) {
		for of.Kind() == reflect.Pointer {
			of = of.Elem()
		}
		_, reads := reflect.New(of).Interface().(encoding.TextUnmarshaler)
		words := config.Words(of)
		switch {
		case words != nil:
			found[at+": "+strings.Join(words, ", ")] = true
		case reads:
			found[at] = true
		case of.Kind() == reflect.Struct:
			for i := range of.NumField() {
				name, options, _ := strings.Cut(of.Field(i).Tag.Get(tag), ",")
				switch {
				case strings.Contains(options, "inline"):
					walk(of.Field(i).Type, at)
				case name != "" && name != "-":
					walk(of.Field(i).Type, join(at, name))
				}
			}
		case of.Kind() == reflect.Slice:
			walk(of.Elem(), at+"[]")
		case of.Kind() == reflect.Map:
			walk(of.Elem(), at+".*")
		default:
			found[at] = true
		}
	}
	walk(of, "")
	return found
}

// TestJSONWords: paths, methods, parameters, and members of what the API takes and answers; then
// the members of all other JSON that the program reads or writes, for others and for itself.
func TestJSONWords(t *testing.T) {
	src := sourceFor(t)
	endpoints := map[string]bool{}
	src.calls(func(name string, call *ast.CallExpr) {
		made, ok := strings.CutPrefix(name, "dray/mirror/admin.")
		method := map[string]string{"Query": "GET", "List": "GET", "Watch": "GET", "Change": "POST"}[made]
		if !ok || method == "" {
			return
		}
		fun := call.Fun
		if i, ok := fun.(*ast.IndexExpr); ok {
			fun = i.X
		}
		instance := src.Instances[fun.(*ast.SelectorExpr).Sel]
		path := map[string]bool{}
		src.words(call.Args[0], path)
		for p := range path {
			end := fmt.Sprintf("%-4s %s", method, p)
			endpoints[end] = true
			forms := []string{"answer"}
			switch made {
			case "Change":
				forms = []string{"request", "answer"}
			case "List", "Watch":
				forms = []string{"item"}
			}
			for i, form := range forms {
				for _, member := range members(instance.TypeArgs.At(i), "", nil) {
					endpoints[end+" "+form+" "+member] = true
				}
			}
		}
	})
	if len(endpoints) < 30 {
		t.Errorf("only %d words of the API were found", len(endpoints))
	}
	parameters, patterns := map[string]bool{}, map[string]bool{}
	src.calls(func(name string, call *ast.CallExpr) {
		if name == "(*net/http.ServeMux).Handle" || name == "(*net/http.ServeMux).HandleFunc" {
			src.words(call.Args[0], patterns)
		}
		if name == "(net/url.Values).Get" || name == "(net/url.Values).Has" {
			src.words(call.Args[0], parameters)
		}
	})
	all := map[string]bool{}
	src.each(func(n ast.Node) {
		if f, ok := n.(*ast.StructType); ok {
			for _, field := range f.Fields.List {
				if field.Tag != nil {
					if name, _, _ := strings.Cut(reflect.StructTag(strings.Trim(field.Tag.Value, "`")).Get("json"), ","); name != "" {
						all[name] = true
					}
				}
			}
		}
	})
	goldenWords(t, "testdata/words/json.golden", "# the API of the admin listener\n"+lineEach(endpoints, "%s")+"\n# what it serves beside the API\n"+lineEach(patterns, "%s")+"\n# parameters of queries\n"+lineEach(parameters, "%s")+
		"\n# members of any JSON\n"+lineEach(all, "%s"))
}

// members are the paths of the members that a type has in JSON.
func members(of types.Type, at string, within []types.Type) []string {
	of = types.Unalias(of)
	if slices.Contains(within, of) {
		return []string{at + " ..."}
	}
	within = append(slices.Clip(within), of)
	if p, ok := of.(*types.Pointer); ok {
		return members(p.Elem(), at, within)
	}
	for _, m := range []string{"MarshalJSON", "MarshalText"} {
		if o, _, _ := types.LookupFieldOrMethod(of, true, nil, m); o != nil {
			return []string{at + " text"}
		}
	}
	switch u := of.Underlying().(type) {
	case *types.Struct:
		var found []string
		for i := range u.NumFields() {
			name, _, _ := strings.Cut(reflect.StructTag(u.Tag(i)).Get("json"), ",")
			switch f := u.Field(i); {
			case f.Embedded() && name == "":
				found = append(found, members(f.Type(), at, within)...)
			case f.Exported() && name != "-":
				if name == "" {
					name = f.Name()
				}
				found = append(found, members(f.Type(), join(at, name), within)...)
			}
		}
		return found
	case *types.Slice:
		return members(u.Elem(), at+"[]", within)
	case *types.Map:
		return members(u.Elem(), at+".*", within)
	default:
		return []string{at + " " + u.String()}
	}
}

var defaultPattern = regexp.MustCompile(` \(default ["\[0-9].*\)`)

// TestCommandWords: the subcommands with their arguments and flags, and how each ends.
func TestCommandWords(t *testing.T) {
	var b strings.Builder
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		fmt.Fprintf(&b, "%s\n", strings.TrimSuffix(c.UseLine(), " [flags]"))
		for flag := range strings.Lines(c.LocalFlags().FlagUsages()) {
			words, _, _ := strings.Cut(strings.TrimSpace(flag), "   ") // and then the prose
			fmt.Fprintf(&b, "  %s%s\n", words, defaultPattern.FindString(flag))
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(rootCommand(&invocation{}))

	b.WriteString("\n# exit codes\n")
	s := startStack(t, t.TempDir(), described...)
	dir := t.TempDir()
	nobody := deaf(t)
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := file("good.yaml", "cache: {directory: "+filepath.Join(dir, "cache")+"}\nupstreams: [{url: ghcr.io}]\nchecks: [{name: gate, metadata: {mode: enforce, required: [{key: owner}]}}]\n")
	bad := file("bad.yaml", "cash: 1\n")
	file("bare.json", `{"manifests": [{"kind": "image"}]}`)
	pass := file("pass.yaml", "tests: [{image: bare.json, findings: [metadata/required]}]\n")
	fail := file("fail.yaml", "tests: [{image: bare.json}]\n")
	for _, c := range []string{
		"", "--help", "--bogus", "bogus",
		"serve one", "serve --config ABSENT", "serve --config BAD",
		"check --config GOOD", "check --config BAD", "check --config ABSENT", "check one",
		"check-image", "check-image oci:ABSENT --config GOOD", "check-image oci:ABSENT --config BAD",
		"policy", "policy test", "policy test ABSENT --config GOOD", "policy test PASS --config GOOD", "policy test FAIL --config GOOD", "policy test PASS --config BAD",
		"cert --out-cert DIR/cert --out-key DIR/key", "cert --out-cert DIR/cert --out-key DIR/key", "cert one", "cert --host a/b --out-cert DIR/c --out-key DIR/k",
		"setup", "setup one", "setup docker --url http://localhost", "setup docker --url nonsense", "setup docker --config BAD", "setup docker --write --undo", "setup nodes", "setup nodes --hold one",
		"config", "config reference", "config example", "config schema", "config one",
		"version", "version one",
		"ls --admin DRAY", "ls --admin NOBODY", "ls --admin nonsense", "ls none/* --admin DRAY", "ls one two", "ls one --blobs", "ls --config BAD",
		"purge --admin DRAY", "purge none:1 --admin DRAY", "purge none:1 --admin NOBODY", "purge --repository none/* --admin DRAY",
		"pin --admin DRAY", "pin none:1 --admin DRAY", "pin none:1 --admin NOBODY", "pin one two",
		"unpin", "unpin none:1 --admin DRAY", "unpin none:1 --admin NOBODY",
		"evict --admin DRAY", "evict --dry-run --admin DRAY", "evict --bytes much --admin DRAY", "evict --bytes 1B --admin DRAY", "evict --dry-run --admin NOBODY",
		"queue --admin DRAY", "queue --admin NOBODY", "queue one", "queue retry", "queue retry x", "queue retry 1 --admin DRAY", "queue retry 1 --admin NOBODY",
		"queue drop", "queue drop x", "queue drop 1 --admin DRAY", "queue drop 1 --admin NOBODY",
		"stats --admin DRAY", "stats --admin NOBODY", "stats one", "stats --config BAD",
		"backup", "backup DIR/backup --config GOOD", "backup DIR/absent/backup --config GOOD", "restore DIR/absent --config GOOD", "restore", "restore DIR/good.yaml --config GOOD",
		"health --admin DRAY", "health --admin NOBODY", "health --admin DRAY --timeout 1ns", "health one",
		"warm --admin DRAY", "warm none:1 --admin DRAY", "warm none:1 --admin NOBODY", "warm a --platform a/b/c/d --admin DRAY", "warm -f ABSENT --admin DRAY", "warm -f BAD --admin DRAY",
	} {
		args := strings.Fields(strings.NewReplacer("DRAY", s.admin(), "NOBODY", nobody, "ABSENT", filepath.Join(dir, "absent"), "GOOD", good, "BAD", bad,
			"PASS", pass, "FAIL", fail, "DIR", dir).Replace(c))
		code, _, stderr := runDray(t, nil, args...)
		if code > 0 && stderr == "" && code != exitRejected {
			t.Errorf("dray %s ends with %d and says nothing", c, code)
		}
		fmt.Fprintf(&b, "%d  dray %s\n", code, c)
	}
	goldenWords(t, "testdata/words/commands.golden", b.String())
}
