package main

import (
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

const exampleWidth = 100

const exampleHead = `# What dray does without any configuration, written out. Keys that are empty by default are left out here;
# "dray config reference" prints all of them.

`

// writeExample writes a configuration file that changes nothing: each key that has a default, with its meaning above it.
func writeExample(w io.Writer) error {
	file, err := fileSections()
	if err != nil {
		return err
	}
	docs := map[string]section{}
	for _, s := range file {
		docs[s.name] = s
	}
	cfg := Default(nil)
	u := hub()
	u.complete()
	cfg.Upstreams = []Upstream{u}
	cfg.Listeners = []Listener{{}}
	cfg.Listeners[0].complete(cfg.Upstreams)

	var node yaml.Node
	if err := node.Encode(cfg); err != nil {
		return fmt.Errorf("print example: %w", err)
	}
	annotate(&node, docs["Config"], docs)
	var b strings.Builder
	out := yaml.NewEncoder(&b)
	out.SetIndent(2)
	out.CompactSeqIndent()
	if err := out.Encode(&node); err != nil {
		return fmt.Errorf("print example: %w", err)
	}
	_, err = io.WriteString(w, exampleHead+b.String())
	return err
}

// annotate puts the prose of each key above it.
func annotate(n *yaml.Node, s section, docs map[string]section) {
	if n.Kind == yaml.SequenceNode {
		for _, element := range n.Content {
			annotate(element, s, docs)
		}
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		for _, k := range s.keys {
			if k.name != n.Content[i].Value {
				continue
			}
			n.Content[i].HeadComment = wrap(k.doc, exampleWidth)
			if inner, ok := docs[strings.TrimPrefix(k.typ, "[]")]; ok {
				annotate(n.Content[i+1], inner, docs)
			}
		}
	}
}

// wrap breaks a paragraph into comment lines.
func wrap(text string, width int) string {
	var b strings.Builder
	column := 0
	for _, word := range strings.Fields(text) {
		switch {
		case column == 0:
			b.WriteString("#")
			column = 1
		case column+1+len(word) > width:
			b.WriteString("\n#")
			column = 1
		}
		b.WriteString(" " + word)
		column += 1 + len(word)
	}
	return b.String()
}
