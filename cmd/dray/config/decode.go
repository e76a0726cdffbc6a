package config

import (
	"cmp"
	"encoding"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"dray/upstream/auth"
)

// decoder fills a configuration from YAML nodes. It sets each field on its own, because the YAML
// package would stop at the first bad value of some types. That package also does not report the
// path of a problem or the line of each value.
type decoder struct {
	file     string
	origins  map[string]string // path → "file:line"
	problems Problems
}

// defaulted is implemented by types of list elements that have defaults other than zero values.
type defaulted interface{ setDefaults() }

// shorthand is implemented by sections that a file can also give as a single text.
type shorthand interface{ setText(text string) }

// ReadYAML reads the text of a file with one YAML document into a struct. dst is a pointer to the
// struct. ReadYAML returns all problems. A key that the struct does not have is also a problem.
func ReadYAML(file string, text []byte, dst any) error {
	return decodeYAML(file, text, dst).problems.err()
}

// decodeYAML does the work of ReadYAML. If there are problems, the struct still gets all values
// that could be read. The returned decoder has the problems, and the origins of the values.
func decodeYAML(file string, text []byte, dst any) *decoder {
	d := &decoder{file: file, origins: map[string]string{}}
	lines := &lineReader{rest: text}
	source := yaml.NewDecoder(lines)
	var doc yaml.Node
	switch err := source.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return d // an empty file changes nothing
	case err != nil:
		d.problems = append(d.problems, syntaxProblem(file, text, lines.read, err))
		return d
	}
	d.value("", doc.Content[0], reflect.ValueOf(dst).Elem())
	if err := source.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		d.problems = append(d.problems, Problem{Origin: file, Message: "the file has more than one YAML document"})
	}
	return d
}

func (d *decoder) problem(path string, n *yaml.Node, format string, args ...any) {
	d.problems = append(d.problems, Problem{Path: path, Origin: d.origin(n), Message: fmt.Sprintf(format, args...)})
}

func (d *decoder) origin(n *yaml.Node) string { return fmt.Sprintf("%s:%d", d.file, n.Line) }

func (d *decoder) value(path string, n *yaml.Node, v reflect.Value) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if path != "" {
		d.origins[path] = d.origin(n)
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return // a key without a value keeps its default
	}
	read := textReader(v)
	short, ok := v.Addr().Interface().(shorthand)
	switch {
	case read != nil:
		d.scalar(path, n, v, read)
	case ok && n.Kind == yaml.ScalarNode:
		short.setText(n.Value)
	case v.Kind() == reflect.Struct:
		d.mapping(path, n, v)
	case v.Kind() == reflect.Slice:
		d.sequence(path, n, v)
	default:
		if err := n.Decode(v.Addr().Interface()); err != nil {
			d.problem(path, n, "must be %s", describe(v.Type()))
		}
	}
}

// textReader returns a function that sets v from a text, or nil if v is neither an enum nor an
// encoding.TextUnmarshaler.
func textReader(v reflect.Value) func(text string) error {
	if to, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return func(text string) error { return to.UnmarshalText([]byte(text)) }
	}
	if Words(v.Type()) == nil {
		return nil
	}
	return func(text string) error {
		if err := oneOf(v.Type(), text); err != nil {
			return err
		}
		v.SetString(text)
		return nil
	}
}

func (d *decoder) scalar(path string, n *yaml.Node, v reflect.Value, read func(text string) error) {
	switch {
	case n.Kind != yaml.ScalarNode:
		d.problem(path, n, "must be a single value")
	case v.Type() == reflect.TypeFor[auth.Secret]():
		d.problem(path, n, "%v", errSecretInFile)
	default:
		if err := read(n.Value); err != nil {
			d.problem(path, n, "%v", err)
		}
	}
}

func (d *decoder) mapping(path string, n *yaml.Node, v reflect.Value) {
	if n.Kind != yaml.MappingNode {
		d.problem(path, n, "must be a map of keys and values")
		return
	}
	fields := keysOf(v.Type())
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, content := n.Content[i], n.Content[i+1]
		at := join(path, key.Value)
		index, known := fields[key.Value]
		switch {
		case !known:
			d.problem(at, key, "unknown key%s", cmp.Or(suggestion(key.Value, fields), "; known keys: "+strings.Join(slices.Sorted(maps.Keys(fields)), ", ")))
		case seen[key.Value]:
			d.problem(at, key, "is set twice")
		default:
			seen[key.Value] = true
			d.value(at, content, v.FieldByIndex(index))
		}
	}
}

func (d *decoder) sequence(path string, n *yaml.Node, v reflect.Value) {
	if n.Kind != yaml.SequenceNode {
		d.problem(path, n, "must be a list")
		return
	}
	list := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, content := range n.Content {
		element := list.Index(i)
		if e, ok := element.Addr().Interface().(defaulted); ok {
			e.setDefaults()
		}
		d.value(fmt.Sprintf("%s[%d]", path, i), content, element)
	}
	v.Set(list)
}

// keysOf maps the keys of a section to the fields of its struct, including the fields of inlined
// structs.
func keysOf(t reflect.Type) map[string][]int {
	keys := map[string][]int{}
	for _, f := range reflect.VisibleFields(t) {
		if name, _, _ := strings.Cut(f.Tag.Get("yaml"), ","); name != "" {
			keys[name] = f.Index
		}
	}
	return keys
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func describe(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "a whole number"
	case reflect.Float64:
		return "a number"
	case reflect.Map:
		return "a map of names and strings"
	default:
		return "a string"
	}
}
