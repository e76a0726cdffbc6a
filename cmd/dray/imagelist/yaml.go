package imagelist

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/shell"
	"go.yaml.in/yaml/v3"
)

// giveVariable says how to give a value to a variable of a Compose file.
const giveVariable = "set it in the environment: %s=VALUE"

// readYAML finds the images of all documents.
func (o Options) readYAML(text []byte, f *found) {
	r := &yamlReader{found: f, lex: shell.NewLex('\\'), environment: variables{}}
	for _, e := range o.Environment {
		if name, value, ok := strings.Cut(e, "="); ok {
			r.environment[name] = value
		}
	}
	documents := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var n yaml.Node
		err := documents.Decode(&n)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			f.problem(yamlLine(err), fmt.Errorf("neither a list of references, nor a Dockerfile, nor YAML: %w", err))
			return
		}
		r.walk(&n)
	}
	if !r.any {
		f.problem(1, errors.New("this YAML has no image key; a list has one reference on each line, and a Dockerfile begins with FROM or ARG"))
	}
}

var yamlAt = regexp.MustCompile(`line (\d+)`)

// yamlLine returns the line that an error of the YAML parser names, or 1.
func yamlLine(err error) int {
	if at := yamlAt.FindStringSubmatch(err.Error()); at != nil {
		if n, err := strconv.Atoi(at[1]); err == nil {
			return max(n, 1)
		}
	}
	return 1
}

type yamlReader struct {
	*found
	lex         *shell.Lex
	environment variables
	any         bool // some mapping has an image key
}

// walk looks for image keys. It does not follow aliases, because it visits their targets anyway.
func (r *yamlReader) walk(n *yaml.Node) {
	if n.Kind == yaml.MappingNode {
		if image := member(n, "image"); image != nil {
			r.any = true
			// If the key "build" has a value, Compose builds the image, so walk leaves the image out.
			if build := member(n, "build"); empty(build) {
				r.image(image, r.text(member(n, "platform")))
			}
		}
	}
	for _, c := range n.Content {
		r.walk(c)
	}
}

// image reads the value of an image key: a reference, or a mapping that has a reference.
func (r *yamlReader) image(n *yaml.Node, platform string) {
	switch {
	case empty(n):
	case n.Kind == yaml.ScalarNode:
		if name := r.text(n); name != "" {
			r.addName(name, platform, n.Line)
		}
	case n.Kind == yaml.MappingNode:
		for _, key := range []string{"reference", "name"} { // for volumes of Kubernetes and jobs of GitLab
			if name := r.text(member(n, key)); name != "" {
				r.addName(name, platform, n.Line)
				return
			}
		}
		r.parts(n, platform)
	}
}

// parts reads an image whose name is split into several keys, as in the values of Helm charts.
func (r *yamlReader) parts(n *yaml.Node, platform string) {
	name := r.text(member(n, "repository"))
	if name == "" {
		return // not a known form of an image
	}
	if registry := r.text(member(n, "registry")); registry != "" {
		name = registry + "/" + name
	}
	tag, digest := r.text(member(n, "tag")), r.text(member(n, "digest"))
	switch {
	case digest != "":
		name += "@" + digest
	case tag != "":
		name += ":" + tag
	default:
		r.problem(n.Line, fmt.Errorf("image %q: it has no tag here; name the image itself, or give the output of helm template", name))
		return
	}
	r.addName(name, platform, n.Line)
}

// text returns the value of a scalar, with its variables replaced, or "". It records any problem.
func (r *yamlReader) text(n *yaml.Node) string {
	if n == nil || n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		return ""
	}
	if strings.Contains(n.Value, "{{") {
		r.problem(n.Line, fmt.Errorf("%q is a template; give the output of helm template", n.Value))
		return ""
	}
	if !strings.Contains(n.Value, "$") {
		return n.Value
	}
	value, err := r.environment.expand(r.lex, n.Value, giveVariable)
	if err != nil {
		r.problem(n.Line, err)
	}
	return value
}

// member returns the value of a key, or nil. If the value is an alias, member returns its target.
func member(n *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value != key {
			continue
		}
		value := n.Content[i+1]
		if value.Kind == yaml.AliasNode {
			value = value.Alias
		}
		return value
	}
	return nil
}

// empty reports whether there is no value.
func empty(n *yaml.Node) bool { return n == nil || n.Kind == yaml.ScalarNode && n.Tag == "!!null" }
