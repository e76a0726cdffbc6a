package main

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/token"
	"go/types"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const logger = `(log/slog|\(\*log/slog\.Logger\))\.`

// textKinds are the kinds of texts that users read, in the order of the golden file. name matches
// the functions that such a text is passed to, and the fields that are set to it. A text that
// reaches none of these by itself is of the kind whose path matches its file.
var textKinds = []struct{ kind, name, path string }{
	{kind: "help", name: `^github\.com/spf13/cobra\.Command\.|^\(\*github\.com/spf13/pflag\.FlagSet\)\.`},
	{kind: "errors", name: `^errors\.New$|^fmt\.Errorf$`, path: `^cmd/dray/(config|certificates|routes)/|^upstream/|^cache/`},
	{kind: "notices", path: `^cmd/dray/config/notices`},
	{kind: "answers to clients", name: `^\(\*dray/upstream/oci\.Error\)\.With$|^dray/mirror/admin/api\.Errorf$`, path: `^mirror/`},
	{kind: "findings", path: `^mirror/pipeline/`},
	{kind: "output", name: `^fmt\.Fprint`, path: `^cmd/dray/([^/]*|(ctl|setup)/.*|directories/advice\.go)$`},
	{kind: "log debug", name: `^` + logger + `Debug`},
	{kind: "log info", name: `^` + logger + `Info`},
	{kind: "log warn", name: `^` + logger + `Warn`},
	{kind: "log error", name: `^` + logger + `Error`},
	{kind: "log", name: `^` + logger + `(Log|NewRecord)`},
	{kind: "metrics", name: `^github\.com/prometheus/client_golang/prometheus\.(NewDesc|\w+\.Help)$`, path: `/metrics\.go$|^upstream/quota\.go$`},
}

// ignoredTexts matches functions whose texts are not for people.
var ignoredTexts = regexp.MustCompile(`^regexp\.|^reflect\.|^dray/cache/meta\.|^\(\*?(os|net|net/http)\.`)

// phrase matches texts of two words, and message the functions whose first text may have one.
var (
	phrase  = regexp.MustCompile(`(?s)\pL.*\s.*\pL{2}|\pL{2}.*\s.*\pL`)
	message = regexp.MustCompile(`^errors\.New$|^` + logger + `(Debug|Info|Warn|Error|Log|NewRecord)`)
)

// TestTexts freezes the texts that users read, so that they can be read side by side. A text is
// a message of an error or of the log, and whatever else has two words.
func TestTexts(t *testing.T) {
	src := sourceFor(t)
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]map[string]bool{}
	for _, f := range src.files {
		file, err := filepath.Rel(root, src.set.File(f.Pos()).Name())
		if err != nil {
			t.Fatal(err)
		}
		if file == "mirror/repository/locate.go" || strings.HasSuffix(file, "_templ.go") {
			continue // the texts of its table are for a document; and templates can be read as they are
		}
		src.texts(f, func(names []string, text string) {
			if kind := kindOfText(file, names); kind != "" {
				at := kind + ": " + file[:strings.LastIndex(file, "/")]
				if found[at] == nil {
					found[at] = map[string]bool{}
				}
				found[at][strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n    ")] = true
			}
		})
	}
	var b strings.Builder
	for _, k := range textKinds {
		for _, at := range slices.Sorted(maps.Keys(found)) {
			if strings.HasPrefix(at, k.kind+":") {
				fmt.Fprintf(&b, "# %s\n%s\n", at, lineEach(found[at], "%s"))
			}
		}
	}
	goldenWords(t, "testdata/texts.golden", b.String())
}

// kindOfText is the kind of a text in a file: that of the innermost of the functions and fields it
// goes to that have one, or else that of the file.
func kindOfText(file string, names []string) (kind string) {
	for _, name := range slices.Backward(names) {
		for _, k := range textKinds {
			if k.name != "" && regexp.MustCompile(k.name).MatchString(name) {
				return k.kind
			}
		}
		if ignoredTexts.MatchString(name) {
			return ""
		}
	}
	for _, k := range textKinds { // the longest path comes last
		if k.path != "" && regexp.MustCompile(k.path).MatchString(file) {
			kind = k.kind
		}
	}
	return kind
}

// texts calls each for every phrase in a file, with the names of the functions and fields that it
// goes to, the innermost one last. Parts that are not constant are written as {}.
func (s *source) texts(file *ast.File, each func(names []string, text string)) {
	ast.PreorderStack(file, nil, func(n ast.Node, stack []ast.Node) bool {
		e, ok := n.(ast.Expr)
		if !ok || !s.isText(e) {
			return true
		}
		switch parent := stack[len(stack)-1].(type) {
		case *ast.BinaryExpr:
			if s.isText(parent) || parent.Op != token.ADD {
				return true // a part of a text, or compared with one
			}
		case *ast.Field, *ast.ImportSpec:
			return true
		}
		first := false // text of a message
		if call, ok := stack[len(stack)-1].(*ast.CallExpr); ok {
			f, ok := s.object(call.Fun).(*types.Func)
			first = ok && message.MatchString(f.FullName()) && e == call.Args[slices.IndexFunc(call.Args, s.isText)]
		}
		if text := s.text(e); first || phrase.MatchString(text) {
			each(s.names(stack), text)
		}
		return true
	})
}

func (s *source) isText(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.BasicLit:
		return e.Kind == token.STRING
	case *ast.BinaryExpr:
		basic, ok := s.TypeOf(e).Underlying().(*types.Basic)
		return ok && basic.Info()&types.IsString != 0
	}
	return false
}

func (s *source) text(e ast.Expr) string {
	if v := s.Types[e].Value; v != nil {
		return constant.StringVal(v)
	}
	if sum, ok := e.(*ast.BinaryExpr); ok {
		return s.text(sum.X) + s.text(sum.Y)
	}
	return "{}"
}

// names are those of the functions that are called, and of the fields that are set, on the way to a
// node within a function.
func (s *source) names(stack []ast.Node) (names []string) {
	for i, n := range stack {
		switch n := n.(type) {
		case *ast.FuncLit:
			names = nil
		case *ast.CallExpr:
			if f, ok := s.object(n.Fun).(*types.Func); ok {
				names = append(names, f.FullName())
			}
		case *ast.KeyValueExpr:
			if lit, ok := stack[i-1].(*ast.CompositeLit); ok {
				if key, ok := n.Key.(*ast.Ident); ok {
					names = append(names, strings.TrimPrefix(types.TypeString(s.TypeOf(lit), nil), "*")+"."+key.Name)
				}
			}
		}
	}
	return names
}
