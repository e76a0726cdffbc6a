package watched

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"regexp"
	"strings"

	"dray/upstream/auth"
)

// The callers put the name of the file before the errors of these parsers, as in "FILE is empty".
// For the parsers, an empty file is an error: often, another program is still writing that file.

// ParseSecret returns the content of a file without white space around it.
func ParseSecret(text []byte) (auth.Secret, error) {
	text = bytes.TrimSpace(text)
	if len(text) == 0 {
		return "", errors.New("is empty")
	}
	return auth.Secret(text), nil
}

var (
	// headerName matches the names of fields (RFC 9110, "Tokens").
	headerName = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
	// variableName matches a name that consists of visible ASCII characters other than "=", which ends
	// the name.
	variableName = regexp.MustCompile(`^[!-<>-~]+$`)
	// control matches the control characters except tab. Headers and variables must not have one.
	control = regexp.MustCompile(`[\x00-\x08\x0a-\x1f\x7f]`)
)

// Headers makes the headers of a request. The error names a header, but does not show its value.
func Headers(values map[string]auth.Secret) (http.Header, error) {
	h := http.Header{}
	for name, value := range values {
		if !headerName.MatchString(name) {
			return nil, fmt.Errorf("%q is not the name of a header", name)
		}
		if control.MatchString(value.Reveal()) {
			return nil, fmt.Errorf("the value of %s has a control character", name)
		}
		h.Set(name, value.Reveal())
	}
	return h, nil
}

// ParseHeaders reads a file that has one header in each line, as "Name: value".
func ParseHeaders(text []byte) (http.Header, error) {
	h := http.Header{}
	for n, line := range settings(text) {
		name, value, ok := strings.Cut(line, ":")
		if !ok || !headerName.MatchString(name) || control.MatchString(value) {
			return nil, fmt.Errorf("has a line that is not a header as Name: value, line %d", n) // the error does not show the line, which may be a secret
		}
		h.Set(name, strings.TrimSpace(value))
	}
	if len(h) == 0 {
		return nil, errors.New("has no header")
	}
	return h, nil
}

// ParseVariables reads a file that has one variable in each line, as NAME=value.
func ParseVariables(text []byte) ([]string, error) {
	var variables []string
	for n, line := range settings(text) {
		name, _, ok := strings.Cut(line, "=")
		if !ok || !variableName.MatchString(name) || control.MatchString(line) {
			return nil, fmt.Errorf("has a line that is not a variable as NAME=value, line %d", n) // the error does not show the line, which may be a secret
		}
		variables = append(variables, line)
	}
	if len(variables) == 0 {
		return nil, errors.New("has no variable")
	}
	return variables, nil
}

// settings returns the lines of a file, with their numbers from 1. It leaves out empty lines and
// lines that begin with "#".
func settings(text []byte) iter.Seq2[int, string] {
	return func(yield func(int, string) bool) {
		n := 0
		for line := range strings.Lines(string(text)) {
			n++
			line = strings.TrimRight(line, "\r\n")
			if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
				continue
			}
			if !yield(n, line) {
				return
			}
		}
	}
}
