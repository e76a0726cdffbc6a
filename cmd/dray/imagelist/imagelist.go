package imagelist

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
)

// Image is an image that a file names.
type Image struct {
	// Name is the reference. A name from a list is unchanged. Names from other files are completed as
	// Docker and Kubernetes do it: alpine becomes docker.io/library/alpine:latest.
	Name string
	// Platform is the platform that the file or the [Options] ask for, such as linux/arm64; empty if
	// neither names one.
	Platform string
	// Line is the number of the first line that names the image. Lines are counted from 1.
	Line int
}

// Options are what Read needs beside the text: platforms and the values of variables.
type Options struct {
	// Targets are the platforms that a Dockerfile is built for, such as linux/arm64. Read reads the
	// Dockerfile once for each. Without Targets, Read reads it once, for Host, and the Platform of an
	// image is empty unless FROM states one.
	Targets []string
	// Host is the platform of this machine: BUILDPLATFORM in a Dockerfile. It is always the Platform
	// of the image that a syntax directive names, because this image runs during the build.
	Host string
	// Arguments are the build arguments of a Dockerfile.
	Arguments map[string]string
	// Environment has the values of variables in YAML files, in the form of os.Environ.
	Environment []string
}

// maxValue bounds the length of a value with variables, in bytes. Without the bound, values that
// each contain the previous value twice could fill the memory.
const maxValue = 4096

// Read returns the images that a file names, each once, and the problems in the file, such as names
// that Read cannot use. Each problem begins with the number of its line. Read recognises the kind
// of file by its content.
func Read(text []byte, o Options) (images []Image, problems []error) {
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	f := &found{seen: map[Image]bool{}, said: map[string]bool{}}
	switch kindOf(text) {
	case dockerfile:
		o.readDockerfile(text, f)
	case list:
		readList(text, f)
	default:
		o.readYAML(text, f)
	}
	return f.images, f.problems
}

type kind int

const (
	yamlFile kind = iota
	list
	dockerfile
)

var (
	// instruction matches the first instruction of a Dockerfile (Dockerfile reference, "Format").
	instruction = regexp.MustCompile(`^(?i:FROM|ARG)\s+\S`)
	// listed matches a line of a list: a reference that neither begins like YAML nor ends like a key.
	listed = regexp.MustCompile("^[^-\\s\"'{}\\[\\]%&*!|>?@`:,](\\S*[^\\s:])?(\\s+#.*)?$")
)

func kindOf(text []byte) kind {
	first := true
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		if first && instruction.Match(line) {
			return dockerfile
		}
		if !listed.Match(line) {
			return yamlFile
		}
		first = false
	}
	return list
}

func readList(text []byte, f *found) {
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		if words := strings.Fields(line); len(words) > 0 && !strings.HasPrefix(words[0], "#") {
			f.add(Image{Name: words[0], Line: n})
		}
	}
}

// found collects the images that a file names.
type found struct {
	images   []Image
	problems []error
	seen     map[Image]bool // the keys have no Line
	said     map[string]bool
}

func (f *found) add(i Image) {
	key := Image{Name: i.Name, Platform: i.Platform}
	if !f.seen[key] {
		f.seen[key] = true
		f.images = append(f.images, i)
	}
}

// addName adds an image under its full name.
func (f *found) addName(name, platform string, line int) {
	whole, err := reference.ParseDockerRef(name)
	if err != nil {
		f.problem(line, fmt.Errorf("image %q: %w", name, err))
		return
	}
	f.add(Image{Name: whole.String(), Platform: platform, Line: line})
}

// problem records a problem, unless it was recorded before.
func (f *found) problem(line int, err error) {
	err = fmt.Errorf("line %d: %w", line, err)
	if !f.said[err.Error()] {
		f.said[err.Error()] = true
		f.problems = append(f.problems, err)
	}
}

// variables maps the names of variables to their values. It is a [shell.EnvGetter].
type variables map[string]string

// Get implements shell.EnvGetter.
func (v variables) Get(name string) (string, bool) {
	value, ok := v[name]
	return value, ok
}

// Keys implements shell.EnvGetter.
func (v variables) Keys() []string { return nil } // the package shell needs keys only for error messages

var errLong = errors.New("a value is too long")

// plainVariable is a variable without a default.
var plainVariable = regexp.MustCompile(`\$(?:(\w+)|\{(\w+)\})`)

// expand replaces the variables in a word. adviceFormat is the format of the advice about a missing
// variable.
func (v variables) expand(lex *shell.Lex, word, adviceFormat string) (string, error) {
	if len(word) > maxValue {
		return "", errLong
	}
	r, err := lex.ProcessWordWithMatches(word, v)
	if err != nil {
		return "", err
	}
	for _, m := range plainVariable.FindAllStringSubmatch(word, -1) {
		name := m[1] + m[2]
		if _, missing := r.Unmatched[name]; missing {
			return "", fmt.Errorf("%s: the variable %s has no value; %s", word, name, fmt.Sprintf(adviceFormat, name))
		}
	}
	if len(r.Result) > maxValue {
		return "", errLong
	}
	return r.Result, nil
}
