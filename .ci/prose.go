// Prose reports the lines of comments, documents and imports that break the rules of this
// repository.
//
//	go run .ci/prose.go
package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

const maxColumns = 100 // a tab counts as one

// The names of the rules.
const (
	ruleHeadless = "headless" // no sentence of a comment or document begins with Who or What, except questions
	ruleWords    = "words"    // comments, documents, names and string literals have no unwanted word
	ruleImports  = "imports"  // the standard library, then other modules, then dray/..., each group in its own block
	ruleWidth    = "width"    // comments, and prose in documents, have at most 100 columns
)

// A problem is a line that breaks a rule.
type problem struct {
	rule, path string
	line       int
	text       string
}

// line is one line of prose, with its number in the file.
type line struct {
	number int
	text   string
}

func main() {
	found, err := checkAll()
	for _, p := range found {
		fmt.Printf("%s:%d: %s: %s\n", p.path, p.line, p.rule, p.text)
	}
	if err == nil && len(found) > 0 {
		err = fmt.Errorf("%d lines break a rule", len(found))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "prose:", err)
		os.Exit(1)
	}
}

func checkAll() ([]problem, error) {
	paths, err := files()
	if err != nil {
		return nil, err
	}
	var found []problem
	for _, path := range paths {
		more, err := check(path)
		if err != nil {
			return nil, err
		}
		found = append(found, more...)
	}
	return found, nil
}

// files lists the documents and the Go files of the working tree, except files in testdata
// directories.
func files() ([]string, error) {
	out, err := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.go", "*.md").Output()
	if err != nil {
		return nil, fmt.Errorf("git ls-files: %w", err)
	}
	var paths []string
	for path := range strings.SplitSeq(strings.Trim(string(out), "\x00"), "\x00") {
		data := slices.Contains(strings.Split(filepath.ToSlash(path), "/"), "testdata")
		if _, err := os.Stat(path); err == nil && !data && path != ".ci/prose.go" { // this file lists the unwanted words
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths), nil
}

func check(path string) ([]problem, error) {
	source, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(path, ".md") {
		return checkDocument(path, string(source)), nil
	}
	return checkGo(path, source)
}

func checkDocument(path, source string) []problem {
	var found []problem
	var prose []line
	fenced := false
	lines := strings.Split(source, "\n")
	for i, text := range lines {
		if strings.HasPrefix(strings.TrimSpace(text), "```") {
			fenced = !fenced
			continue
		}
		if fenced {
			continue
		}
		if strings.HasPrefix(text, "#") || i+1 < len(lines) && strings.HasPrefix(lines[i+1], "|--") {
			found = append(found, checkWords(path, line{i + 1, text})...)
			continue // the heading of a section or a table may begin with Who or What, and may be wide
		}
		prose = append(prose, line{i + 1, text})
		table, link := strings.HasPrefix(text, "|"), !strings.Contains(strings.TrimSpace(text), " ")
		if utf8.RuneCountInString(text) > maxColumns && !table && !link {
			found = append(found, problem{ruleWidth, path, i + 1, text})
		}
	}
	return append(found, checkProse(path, prose)...)
}

func checkGo(path string, source []byte) ([]problem, error) {
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, path, source, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	if ast.IsGenerated(file) {
		return nil, nil
	}
	found := checkImports(path, set, file)
	for _, group := range file.Comments {
		var prose []line
		for _, comment := range group.List {
			at := set.Position(comment.Pos())
			for i, text := range strings.Split(comment.Text, "\n") {
				prose = append(prose, line{at.Line + i, strings.TrimLeft(text, "/* \t")})
			}
			if directive(comment.Text) {
				continue
			}
			whole := strings.Split(string(source), "\n")[at.Line-1]
			if code := strings.TrimSpace(whole); !strings.HasPrefix(code, "//") {
				continue // beside code, the width is not bounded
			}
			if utf8.RuneCountInString(whole) > maxColumns {
				found = append(found, problem{ruleWidth, path, at.Line, whole})
			}
		}
		found = append(found, checkProse(path, prose)...)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.Ident:
			found = append(found, checkWords(path, line{set.Position(n.Pos()).Line, spaced(n.Name)})...)
		case *ast.BasicLit:
			if n.Kind == token.STRING {
				found = append(found, checkWords(path, line{set.Position(n.Pos()).Line, n.Value})...)
			}
		}
		return true
	})
	return found, nil
}

func directive(comment string) bool {
	return regexp.MustCompile(`^//([a-z]+:| ?https?://\S+$)`).MatchString(comment)
}

// headless matches the beginning of a sentence whose first word is Who or What.
var headless = regexp.MustCompile(`(?:^|[.:;] |[-*|] |\*\*)(?:Who|What) `)

func checkProse(path string, prose []line) []problem {
	var found []problem
	for _, l := range prose {
		found = append(found, checkWords(path, l)...)
		if headless.MatchString(l.text) && !strings.Contains(l.text, "?") {
			found = append(found, problem{ruleHeadless, path, l.number, l.text})
		}
	}
	return found
}

var unwanted = regexp.MustCompile(`(?i)\b(settle[srd]?|settling|pleas?|alight(s|ed)?|doom(s|ed)?|touchers?|unlearnt|` +
	`lessons?|chores?|amid|all the same|to be had)\b`)

func checkWords(path string, l line) []problem {
	if word := unwanted.FindString(l.text); word != "" {
		return []problem{{ruleWords, path, l.number, word}}
	}
	return nil
}

// spaced puts a space between the words of an identifier.
func spaced(name string) string {
	return regexp.MustCompile(`([a-z0-9])([A-Z])`).ReplaceAllString(strings.ReplaceAll(name, "_", " "), "$1 $2")
}

// checkImports reports the first import that is out of order, or that begins a group without an
// empty line before it.
func checkImports(path string, set *token.FileSet, file *ast.File) []problem {
	group, end := 0, 0
	for _, spec := range file.Imports {
		name, at := strings.Trim(spec.Path.Value, `"`), set.Position(spec.Pos()).Line
		if spec.Doc != nil {
			at = set.Position(spec.Doc.Pos()).Line
		}
		next := 1
		switch {
		case name == "dray" || strings.HasPrefix(name, "dray/"):
			next = 3
		case strings.Contains(strings.Split(name, "/")[0], "."):
			next = 2
		}
		if next < group || next > group && group > 0 && at == end+1 {
			return []problem{{ruleImports, path, at, spec.Path.Value}}
		}
		group, end = next, set.Position(spec.End()).Line
	}
	return nil
}
