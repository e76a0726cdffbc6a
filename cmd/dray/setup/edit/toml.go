package edit

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// TOML is the text of a TOML file.
type TOML struct {
	text []byte
	doc  map[string]any
}

// ParseTOML returns the file with the given text, which may be empty.
func ParseTOML(text []byte) (*TOML, error) {
	doc, err := decodeTOML(text)
	if err != nil {
		return nil, fmt.Errorf("it is not TOML: %w", err)
	}
	return &TOML{text, doc}, nil
}

func decodeTOML(text []byte) (map[string]any, error) {
	doc := map[string]any{}
	return doc, toml.Unmarshal(text, &doc)
}

// Text returns the text with all changes.
func (f *TOML) Text() []byte { return f.text }

// Get returns the value at a path, or nil if there is none.
func (f *TOML) Get(path ...string) any {
	var v any = f.doc
	for _, key := range path {
		table, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = table[key]
	}
	return v
}

// Insert adds a section, which is text with tables of its own. Insert puts the section before the
// first table whose path begins with the given key. If there is no such table, Insert puts it at
// the end.
func (f *TOML) Insert(section, before string) error {
	added, err := decodeTOML([]byte(section))
	if err != nil {
		return err
	}
	want, err := decodeTOML(f.text) // a copy of f.doc
	if err != nil {
		return err
	}
	if err := combine(want, added); err != nil {
		return err
	}
	at := len(f.text)
	for _, i := range items(f.text) {
		if i.table && i.path[0] == before {
			at = i.line
			for comment := lastLine(f.text[:at]); bytes.HasPrefix(bytes.TrimSpace(comment), []byte("#")); comment = lastLine(f.text[:at]) {
				at -= len(comment) // the comment belongs to the table
			}
			break
		}
	}
	return f.replace(at, at, separated(f.text[:at], section, f.text[at:]), want)
}

// separated returns a section with the empty lines that separate it from head and tail.
func separated(head []byte, section string, tail []byte) string {
	section = strings.TrimRight(section, "\n") + "\n"
	if len(tail) > 0 {
		section += "\n"
	}
	switch {
	case len(head) == 0 || bytes.HasSuffix(head, []byte("\n\n")):
		return section
	case bytes.HasSuffix(head, []byte("\n")):
		return "\n" + section
	}
	return "\n\n" + section
}

// Set sets a key of a table to a value, which is a string or a bool. It adds the key and the table
// if they do not exist. If the path of the table is empty, the key belongs to no table, and Set
// adds the key before all tables of the file.
func (f *TOML) Set(table []string, key string, value any) error {
	literal := fmt.Sprintf("%#v", value)
	want, err := f.with(table, key, value)
	if err != nil {
		return err
	}
	path := append(slices.Clone(table), key)
	found := items(f.text)
	if i := slices.IndexFunc(found, func(i item) bool { return !i.table && slices.Equal(i.path, path) }); i >= 0 {
		if found[i].end == 0 {
			return errTouched
		}
		return f.replace(found[i].value, found[i].end, literal, want)
	}
	return f.add(found, table, key+" = "+literal, want)
}

// Prepend adds an element at the beginning of a list of strings. It adds the list if it does not
// exist. If the list has the element already, nothing changes.
func (f *TOML) Prepend(table []string, key, element string) error {
	path := append(slices.Clone(table), key)
	old, ok := stringsOf(f.Get(path...))
	if !ok {
		return fmt.Errorf("%s is not a list of strings", strings.Join(path, "."))
	}
	if slices.Contains(old, element) {
		return nil
	}
	want, err := f.with(table, key, append([]any{element}, anyOf(old)...))
	if err != nil {
		return err
	}
	found := items(f.text)
	if i := slices.IndexFunc(found, func(i item) bool { return !i.table && slices.Equal(i.path, path) }); i >= 0 {
		at := found[i].value
		if at >= len(f.text) || f.text[at] != '[' {
			return errTouched
		}
		insert := strconv.Quote(element)
		if len(old) > 0 {
			insert += ", "
		}
		return f.replace(at+1, at+1, insert, want)
	}
	return f.add(found, table, key+" = ["+strconv.Quote(element)+"]", want)
}

// add puts a line with a new key into a table. If there is no such table, add appends it.
func (f *TOML) add(found []item, table []string, line string, want map[string]any) error {
	if len(table) == 0 {
		at := 0
		if len(found) > 0 {
			at = found[0].line
		}
		return f.replace(at, at, separated(nil, line, f.text[at:]), want)
	}
	for _, i := range found {
		if i.table && slices.Equal(i.path, table) {
			at := i.line + lineLength(f.text[i.line:])
			indent := f.text[i.line : len(f.text)-len(bytes.TrimLeft(f.text[i.line:], " \t"))]
			insert := string(indent) + "  " + line + "\n"
			if !bytes.HasSuffix(f.text[:at], []byte("\n")) {
				insert = "\n" + insert
			}
			return f.replace(at, at, insert, want)
		}
	}
	return f.replace(len(f.text), len(f.text), separated(f.text, "["+Path(table...)+"]\n  "+line, nil), want)
}

// Path returns a path as TOML writes it.
func Path(keys ...string) string {
	parts := make([]string, len(keys))
	for i, key := range keys {
		parts[i] = key
		if key == "" || strings.Trim(key, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != "" {
			parts[i] = strconv.Quote(key)
		}
	}
	return strings.Join(parts, ".")
}

// with returns the decoded content that the file would have if the key of the table had the value.
func (f *TOML) with(table []string, key string, value any) (map[string]any, error) {
	want, err := decodeTOML(f.text) // a copy of f.doc
	if err != nil {
		return nil, err
	}
	in := want
	for _, name := range table {
		if in[name] == nil {
			in[name] = map[string]any{}
		}
		next, ok := in[name].(map[string]any)
		if !ok {
			return nil, fmt.Errorf("%s is not a table", name)
		}
		in = next
	}
	in[key] = value
	return want, nil
}

// replace replaces a part of the text. If the new text would not decode to newDoc, it changes
// nothing and returns errTouched.
func (f *TOML) replace(start, end int, newPart string, newDoc map[string]any) error {
	text := slices.Concat(f.text[:start], []byte(newPart), f.text[end:])
	doc, err := decodeTOML(text)
	if err != nil || !reflect.DeepEqual(doc, newDoc) {
		return errTouched
	}
	f.text, f.doc = text, doc
	return nil
}

// combine adds the content of src to doc. If a key is in both, combine merges two tables and joins
// two lists. For any other two values of a key, it returns an error.
func combine(doc, src map[string]any) error {
	for key, value := range src {
		switch old := doc[key].(type) {
		case nil:
			doc[key] = value
			continue
		case map[string]any:
			if table, ok := value.(map[string]any); ok {
				if err := combine(old, table); err != nil {
					return err
				}
				continue
			}
		case []any:
			if list, ok := value.([]any); ok {
				doc[key] = append(old, list...)
				continue
			}
		}
		return fmt.Errorf("it already has %s", key)
	}
	return nil
}

// item is the head of a table, or a key with its value.
type item struct {
	path  []string // for a key, it begins with the path of its table
	table bool
	line  int // offset of its line
	// value is the offset of a key's value. end is the offset after the value. It is 0 if the value is
	// a list, and the offset after the "{" if the value is an inline table. For the head of a table,
	// both are 0.
	value, end int
}

// items returns the items of a text, in the order of the text. The text must be valid TOML.
func items(text []byte) (found []item) {
	p := unstable.Parser{}
	p.Reset(text)
	var table []string
	for p.NextExpression() {
		e := p.Expression()
		if e.Kind == unstable.Comment {
			continue
		}
		i := item{table: e.Kind != unstable.KeyValue}
		var keyEnd uint32
		for key := e.Key(); key.Next(); {
			n := key.Node()
			if len(i.path) == 0 {
				i.line = bytes.LastIndexByte(text[:n.Raw.Offset], '\n') + 1
			}
			i.path = append(i.path, string(n.Data))
			keyEnd = n.Raw.Offset + n.Raw.Length
		}
		if i.table {
			table = i.path
		} else {
			i.path = append(slices.Clone(table), i.path...)
			i.value = int(keyEnd) + bytes.IndexByte(text[keyEnd:], '=') + 1
			i.value += len(text[i.value:]) - len(bytes.TrimLeft(text[i.value:], " \t"))
			if raw := e.Value().Raw; raw.Length > 0 && int(raw.Offset) == i.value {
				i.end = i.value + int(raw.Length)
			}
		}
		found = append(found, i)
	}
	return found
}

// lineLength returns the length of the first line, with its line break.
func lineLength(text []byte) int {
	if i := bytes.IndexByte(text, '\n'); i >= 0 {
		return i + 1
	}
	return len(text)
}

// lastLine returns the last line, with its line break.
func lastLine(text []byte) []byte {
	return text[bytes.LastIndexByte(bytes.TrimSuffix(text, []byte("\n")), '\n')+1:]
}
