package edit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// PrependJSON puts an element at the beginning of the list with the given key. text is the JSON
// object with the list, or is empty. If there is no such list, PrependJSON adds it. If the list has
// the element already, PrependJSON returns text unchanged. isSame compares two elements.
func PrependJSON(text []byte, key, element string, isSame func(a, b string) bool) ([]byte, error) {
	quoted, err := json.Marshal(element)
	if err != nil {
		return nil, err
	}
	name, err := json.Marshal(key)
	if err != nil {
		return nil, err
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return fmt.Appendf(nil, "{\n  %s: [%s]\n}\n", name, quoted), nil
	}
	var before map[string]any
	if err := json.Unmarshal(text, &before); err != nil {
		return nil, fmt.Errorf("it is not a JSON object: %w", err)
	}
	if before == nil { // the text is null
		return nil, errTouched
	}
	old, ok := stringsOf(before[key])
	if !ok {
		return nil, fmt.Errorf("%q is not a list of strings", key)
	}
	if slices.ContainsFunc(old, func(s string) bool { return isSame(s, element) }) {
		return text, nil
	}
	_, exists := before[key]
	at, err := offsetJSON(text, key, exists)
	if err != nil {
		return nil, err
	}
	insert := string(quoted)
	switch {
	case exists && len(old) > 0:
		insert += ", "
	case exists:
	default:
		insert = indentAfter(text[at:]) + string(name) + ": [" + insert + "]"
		if len(before) > 0 {
			insert += ","
		} else if !bytes.Contains(text[at:], []byte("\n")) {
			insert += "\n"
		}
	}
	after := slices.Concat(text[:at], []byte(insert), text[at:])
	before[key] = append([]any{element}, anyOf(old)...)
	var got map[string]any
	if err := json.Unmarshal(after, &got); err != nil || !reflect.DeepEqual(got, before) {
		return nil, errTouched
	}
	return after, nil
}

// errTouched reports a change that dray cannot make alone: the new file would be invalid, or would
// differ in other parts, too.
var errTouched = errors.New("its form does not let dray change it without touching the rest")

// offsetJSON returns the offset after the bracket that opens the list with the given key. If the
// object lacks this key (exists is false), offsetJSON returns the offset after the bracket that
// opens the object.
func offsetJSON(text []byte, key string, exists bool) (int64, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	if _, err := dec.Token(); err != nil {
		return 0, err
	}
	if !exists {
		return dec.InputOffset(), nil
	}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return 0, err
		}
		if name == key {
			_, err := dec.Token()
			return dec.InputOffset(), err
		}
		var skipped json.RawMessage
		if err := dec.Decode(&skipped); err != nil {
			return 0, err
		}
	}
	return 0, errTouched
}

// indentAfter returns the white space after the opening bracket of an object. The parameter rest is
// the text after this bracket. If the white space has no line break, or the object is empty,
// indentAfter returns a line break with an indent.
func indentAfter(rest []byte) string {
	space := string(rest[:len(rest)-len(bytes.TrimLeft(rest, " \t\r\n"))])
	if strings.Contains(space, "\n") && len(bytes.TrimSpace(rest)) > 1 {
		return space
	}
	return "\n  "
}

// stringsOf returns v as a list of strings, or false if v is not such a list. Nil counts as an
// empty list.
func stringsOf(v any) ([]string, bool) {
	if v == nil {
		return nil, true
	}
	list, ok := v.([]any)
	if !ok {
		return nil, false
	}
	var all []string
	for _, e := range list {
		s, ok := e.(string)
		if !ok {
			return nil, false
		}
		all = append(all, s)
	}
	return all, true
}

func anyOf(list []string) []any {
	all := make([]any, len(list))
	for i, s := range list {
		all[i] = s
	}
	return all
}
