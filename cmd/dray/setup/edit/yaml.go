package edit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// YAML parses text, calls editRoot with the mapping at the root, and returns the new text. The
// given text may be empty. Comments stay, but empty lines may vanish. If editRoot returns false,
// YAML returns text as it is.
func YAML(text []byte, editRoot func(root *yaml.Node) (bool, error)) ([]byte, error) {
	var doc, second yaml.Node
	in := yaml.NewDecoder(bytes.NewReader(text))
	err := in.Decode(&doc)
	if err == nil {
		err = in.Decode(&second)
	}
	switch {
	case err == nil:
		return nil, fmt.Errorf("line %d: it has a second YAML document; leave only one", second.Line)
	case !errors.Is(err, io.EOF):
		return nil, fmt.Errorf("it is not YAML: %w", err)
	}
	comments := ""
	if doc.Kind == 0 { // the text has only comments, or is empty
		if comments = strings.TrimSpace(string(text)); comments != "" {
			comments += "\n\n"
		}
		doc = yaml.Node{Kind: yaml.DocumentNode, Content: []*yaml.Node{{Kind: yaml.MappingNode, Tag: "!!map"}}}
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return nil, errors.New("it is not a mapping")
	}
	changed, err := editRoot(root)
	if err != nil || !changed {
		return text, err
	}
	out := bytes.NewBufferString(comments)
	enc := yaml.NewEncoder(out)
	enc.SetIndent(2)
	if err := enc.Encode(&doc); err != nil {
		return nil, err
	}
	return out.Bytes(), enc.Close()
}

// Child returns the value of a key. If there is no such key, or if its value is null, Child gives
// the key an empty value of the given kind. It returns an error if the value has another kind.
func Child(mapping *yaml.Node, key string, kind yaml.Kind) (*yaml.Node, error) {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value != key {
			continue
		}
		value := mapping.Content[i+1]
		if value.Kind == yaml.ScalarNode && value.Tag == "!!null" {
			*value = yaml.Node{Kind: kind}
		}
		if value.Kind != kind {
			form := "mapping"
			switch kind {
			case yaml.SequenceNode:
				form = "list"
			case yaml.ScalarNode:
				form = "string"
			}
			return nil, fmt.Errorf("line %d: the value of %s must be a %s", value.Line, key, form)
		}
		return value, nil
	}
	value := &yaml.Node{Kind: kind}
	mapping.Content = append(mapping.Content, Scalar(key), value)
	return value, nil
}

// Scalar returns a string as a node.
func Scalar(text string) *yaml.Node {
	var n yaml.Node
	n.SetString(text)
	return &n
}
