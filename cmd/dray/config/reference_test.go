package config

import (
	"encoding"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"dray/cmd/dray/config/changes"
	"dray/upstream/auth"
)

var update = flag.Bool("update", false, "write the generated pages anew")

// golden compares got with a file, or writes the file with -update.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s is not current (go generate writes it anew):\n%s", path, diff)
	}
}

// TestGenerated compares the embedded pages and docs/config.md with the types of the configuration
// and their comments. With the flag -update, which go generate sets, it writes these files.
func TestGenerated(t *testing.T) {
	all := proseOf(t)
	reference := all.reference(t)
	golden(t, "reference.md", reference)
	golden(t, "../../../docs/config.md", reference)
	golden(t, "example.yaml", all.example(t))
	golden(t, "schema.json", all.schema(t))
}

// TestReferenceIsComplete: every key has prose, and every string type has a list of its values.
func TestReferenceIsComplete(t *testing.T) {
	all := proseOf(t)
	var look func(section reflect.Type, tag string)
	look = func(section reflect.Type, tag string) {
		for _, k := range all.keys(t, section, tag) {
			if k.name == "" || !isProse(k.doc) {
				t.Errorf("%s: key %q has the prose %q", section.Name(), k.name, k.doc)
			}
			if own := k.typ.Kind() == reflect.String && k.typ != reflect.TypeFor[string](); own && Words(k.typ) == nil && !isText(k.typ) {
				t.Errorf("%s: any text is taken for the type %s of %s", section.Name(), k.typ, k.name)
			}
			if inner, ok := sectionOf(k.typ); ok {
				look(inner, tag)
			}
		}
	}
	look(reflect.TypeFor[Config](), "yaml")
	look(reflect.TypeFor[Environment](), "env")
}

// TestIsProse: fragments are refused, sentences are not.
func TestIsProse(t *testing.T) {
	for text, want := range map[string]bool{
		"This section bounds what clients may use.": true,
		"`opa` is a form.":                          true,
		"The name. Default: the host.":              true,
		"The tag. Who pushes may move it.":          false,
		"How much is stored.":                       false,
		"What is stored.":                           false,
		"Whether clients may push.":                 false,
		"Where the service is.":                     false,
		"Most bytes on disk.":                       false,
		"the name.":                                 false,
		"The name":                                  false,
		"":                                          false,
	} {
		if isProse(text) != want {
			t.Errorf("%q: prose %v", text, !want)
		}
	}
}

// TestExampleIsTheDefault: the example changes nothing.
func TestExampleIsTheDefault(t *testing.T) {
	plain, err := Load("", nil)
	if err != nil {
		t.Fatal(err)
	}
	read, err := Load(write(t, "dray.yaml", Example), nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(plain, read); diff != "" {
		t.Error(diff)
	}
	for _, prose := range []string{"# The addresses on which dray serves clients.", "  # The address to listen on,"} {
		if !strings.Contains(Example, prose) {
			t.Errorf("the keys are not explained: no %q", prose)
		}
	}
}

// prose has the comments of the package: those of types under their names, those of fields under
// "Type.Field", and those of the keys of inlined structs under "Type.Field.key".
type prose map[string]string

// keyedLine begins the prose of a key in the comment of an embedded struct.
var keyedLine = regexp.MustCompile(`^([a-z_]+): (.*)`)

// proseOf reads the comments of the types in this directory.
func proseOf(t *testing.T) prose {
	t.Helper()
	all := prose{}
	for _, name := range goFiles(t) {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			general, ok := decl.(*ast.GenDecl)
			if !ok || general.Tok != token.TYPE {
				continue
			}
			for _, spec := range general.Specs {
				named := spec.(*ast.TypeSpec)
				all[named.Name.Name] = paragraph(general.Doc)
				structure, ok := named.Type.(*ast.StructType)
				if !ok {
					continue
				}
				for _, f := range structure.Fields.List {
					for _, n := range f.Names {
						all[named.Name.Name+"."+n.Name] = paragraph(f.Doc)
					}
					if embedded, ok := f.Type.(*ast.Ident); ok && len(f.Names) == 0 {
						at := ""
						for line := range strings.Lines(f.Doc.Text()) {
							if m := keyedLine.FindStringSubmatch(line); m != nil {
								at = named.Name.Name + "." + embedded.Name + "." + m[1]
								line = m[2]
							}
							all[at] = strings.TrimSpace(all[at] + " " + strings.TrimSpace(line))
						}
					}
				}
			}
		}
	}
	return all
}

// goFiles are the files of this directory that are not tests.
func goFiles(t *testing.T) []string {
	t.Helper()
	all, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(all, func(name string) bool { return strings.HasSuffix(name, "_test.go") })
}

// paragraph is a comment as one paragraph.
func paragraph(c *ast.CommentGroup) string { return strings.Join(strings.Fields(c.Text()), " ") }

// key is one field of a section.
type key struct {
	name string // in YAML, or of the variable
	doc  string
	typ  reflect.Type
}

// keys returns the fields of a section, in their order, including the fields of inlined structs.
// Their names come from the given tag. A line "name: prose" in the comment of an inlined struct
// replaces the prose of that field.
func (p prose) keys(t *testing.T, section reflect.Type, tag string) (keys []key) {
	t.Helper()
	for i := range section.NumField() {
		f := section.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get(tag), ",")
		doc := section.Name() + "." + f.Name
		if options != "inline" {
			keys = append(keys, key{name: name, doc: p[doc], typ: f.Type})
			continue
		}
		for _, k := range p.keys(t, f.Type, tag) {
			if own := p[doc+"."+k.name]; own != "" {
				k.doc = own
			}
			keys = append(keys, k)
		}
	}
	return keys
}

// sectionOf returns the struct type of a key of type t, or of the elements of its list.
func sectionOf(t reflect.Type) (section reflect.Type, ok bool) {
	if t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	return t, t.Kind() == reflect.Struct && !isText(t)
}

func isText(t reflect.Type) bool {
	return reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

// typeWords says in words what a key of type typ takes.
func typeWords(t *testing.T, typ reflect.Type) string {
	t.Helper()
	_, isSection := sectionOf(typ)
	special := map[reflect.Type]string{
		reflect.TypeFor[Bytes](): "size", reflect.TypeFor[Duration](): "duration", reflect.TypeFor[Date](): "day", reflect.TypeFor[auth.Secret](): "secret",
	}
	switch kind := typ.Kind(); {
	case kind == reflect.Pointer:
		return typeWords(t, typ.Elem())
	case special[typ] != "":
		return special[typ]
	case isSection && kind == reflect.Slice && reflect.PointerTo(typ.Elem()).Implements(reflect.TypeFor[shorthand]()):
		return "list of sections or texts"
	case isSection && kind == reflect.Slice:
		return "list of sections"
	case isSection:
		return "section"
	case kind == reflect.Slice && (typ.Elem().Kind() == reflect.String || isText(typ.Elem())):
		return "list of texts"
	case kind == reflect.String:
		return "text"
	case kind == reflect.Bool:
		return "true or false"
	case kind == reflect.Int, kind == reflect.Uint16, kind == reflect.Float64:
		return "number"
	case kind == reflect.Map && typ.Elem().Kind() == reflect.String:
		return "names and texts"
	case kind == reflect.Map && typ.Elem().Kind() == reflect.Float64:
		return "names and numbers"
	}
	t.Errorf("there are no words for the type %s", typ)
	return ""
}

const referenceHead = `# Configuration

This page is generated from the comments of the program. ` + "`dray config reference`" + ` prints it.

dray starts without any configuration. To change what it does, set environment variables, or write a
YAML file and name it with ` + "`--config` or `DRAY_CONFIG`" + `. The environment overrides the file. dray
refuses keys that are not listed here. ` + "`dray check`" + ` prints the effective configuration with secrets
redacted, or all errors in it. ` + "`dray config example`" + ` prints an example file.
` + "`dray config schema > dray.schema.json`" + ` writes a JSON Schema, with which editors explain keys and
find mistakes. Editors with yaml-language-server use the schema if the configuration file begins
with the line ` + "`# yaml-language-server: $schema=dray.schema.json`" + `.

A **size** is a whole number of bytes, with an optional unit: ` + "`200GiB`, `500MB`, `4096`" + `. A
**duration** is written as ` + "`90s`, `10m`, `1h30m` or `7d`" + `. A **secret** is never in the
configuration file itself: write it to another file or an environment variable.

The column **Changes** says when dray applies a changed value: at a **reload**, by ` + "`dray reload`" + `
or SIGHUP, or only at a **restart**. For a list of sections, it says when dray applies added and
removed entries.

## Environment
`

// reference is the Markdown page.
func (p prose) reference(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	b.WriteString(referenceHead + "\n" + p.introduction(t, "The environment", reflect.TypeFor[Environment]()))
	b.WriteString("\n\n| Variable | Takes | Meaning |\n|---|---|---|\n")
	for _, k := range p.keys(t, reflect.TypeFor[Environment](), "env") {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", k.name, typeWords(t, k.typ), k.doc)
	}
	b.WriteString("\n## File\n\n" + p.introduction(t, "The file", reflect.TypeFor[Config]()) + "\n")
	p.section(t, &b, "", reflect.TypeFor[Config]())
	return b.String()
}

// section writes the table of one section, and then its sections, depth first, in the order of the
// file.
func (p prose) section(t *testing.T, b *strings.Builder, path string, section reflect.Type) {
	t.Helper()
	b.WriteString("\n| Key | Takes | Changes | Meaning |\n|---|---|---|---|\n")
	keys := p.keys(t, section, "yaml")
	for _, k := range keys {
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", k.name, typeWords(t, k.typ), whenChanged(join(path, k.name), k.typ), k.doc)
	}
	for _, k := range keys {
		inner, ok := sectionOf(k.typ)
		if !ok {
			continue
		}
		at, subject := join(path, k.name), "This section"
		switch {
		case k.typ.Kind() == reflect.Slice:
			at, subject = at+"[]", "Each entry"
		case strings.HasSuffix(inner.Name(), "Check"):
			subject = "This stage"
		}
		fmt.Fprintf(b, "\n### `%s`\n\n%s\n", at, p.introduction(t, subject, inner))
		p.section(t, b, at, inner)
	}
}

// whenChanged says when a new value of a key applies. It returns "" for a section, because each of
// its keys has its own answer.
func whenChanged(key string, typ reflect.Type) string {
	_, isSection := sectionOf(typ)
	switch {
	case isSection && typ.Kind() != reflect.Slice:
		return ""
	case changes.AtOnce(key):
		return "reload"
	}
	return "restart"
}

// introduction returns the comment of a type as the introduction of its section. It replaces the
// name of the type, with which the comment begins, by subject. If the result is no sentence, the
// test fails.
func (p prose) introduction(t *testing.T, subject string, section reflect.Type) string {
	t.Helper()
	rest, ok := strings.CutPrefix(p[section.Name()], section.Name()+" ")
	text := subject + " " + rest
	if !ok || !verbFirst.MatchString(rest) || !isProse(text) {
		t.Errorf("the comment of %s makes no introduction; write its name, a verb in the third person, and whole sentences:\n%s",
			section.Name(), p[section.Name()])
	}
	return wrap(text, "", pageWidth)
}

var (
	verbFirst = regexp.MustCompile(`^[a-z]+s `)
	headless  = regexp.MustCompile(`^(Where|When|Why|Most|Least|Longest) |(^|[.] )(What|Who|Whether|How) `)
)

// isProse reports whether a text begins with a capital letter or with a literal, ends with a full
// stop, and has no sentence that begins with a question word in place of a subject.
func isProse(text string) bool {
	first, _ := utf8.DecodeRuneInString(text)
	return (unicode.IsUpper(first) || first == '`') && strings.HasSuffix(text, ".") && !headless.MatchString(text)
}

const pageWidth = 100

const exampleHead = `# This file changes nothing: it sets each key to its default. It leaves out keys whose default
# is empty; "dray config reference" prints all keys.

`

// example returns a configuration file that changes nothing. It has each key that has a default,
// with the prose of the key above it.
func (p prose) example(t *testing.T) string {
	t.Helper()
	cfg := Default(nil)
	u := hub()
	u.complete()
	cfg.Upstreams = []Upstream{u}
	cfg.Listeners = []Listener{{}}
	cfg.Listeners[0].complete(cfg.Upstreams)

	var node yaml.Node
	if err := node.Encode(cfg); err != nil {
		t.Fatal(err)
	}
	p.annotate(t, &node, reflect.TypeFor[Config]())
	var b strings.Builder
	out := yaml.NewEncoder(&b)
	out.SetIndent(2)
	out.CompactSeqIndent()
	if err := out.Encode(&node); err != nil {
		t.Fatal(err)
	}
	return exampleHead + b.String()
}

// annotate puts the prose of each key above it.
func (p prose) annotate(t *testing.T, n *yaml.Node, section reflect.Type) {
	t.Helper()
	if n.Kind == yaml.SequenceNode {
		for _, element := range n.Content {
			p.annotate(t, element, section)
		}
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		for _, k := range p.keys(t, section, "yaml") {
			if k.name != n.Content[i].Value {
				continue
			}
			n.Content[i].HeadComment = wrap(k.doc, "# ", pageWidth)
			if inner, ok := sectionOf(k.typ); ok {
				p.annotate(t, n.Content[i+1], inner)
			}
		}
	}
}

// wrap breaks a paragraph into lines that begin with prefix.
func wrap(text, prefix string, width int) string {
	var b strings.Builder
	column := 0
	for _, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case column == 0:
			b.WriteString(prefix)
			column = len(prefix)
		case column+1+n > width:
			b.WriteString("\n" + prefix)
			column = len(prefix)
		default:
			b.WriteString(" ")
			column++
		}
		b.WriteString(word)
		column += n
	}
	return b.String()
}
