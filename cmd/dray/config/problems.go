package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Problem is one thing wrong with a configuration.
type Problem struct {
	Path    string // the key, such as upstreams[1].url; empty where the whole file is meant
	Origin  string // where the value came from, such as dray.yaml:12 or PORT; empty where nobody gave one
	Message string
}

// String is the problem on one line.
func (p Problem) String() string {
	parts := slices.DeleteFunc([]string{p.Origin, p.Path, p.Message}, func(s string) bool { return s == "" })
	return strings.Join(parts, ": ")
}

// Problems is everything wrong with a configuration, as an error with one line for each.
type Problems []Problem

// Error is one line for each problem.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// err is nil where there is no problem.
func (ps Problems) err() error {
	if len(ps) == 0 {
		return nil
	}
	return ps
}

// Report collects what is wrong with a configuration.
type Report struct{ problems Problems }

// Add says what is wrong with the value at path.
func (k *Report) Add(path, format string, args ...any) {
	k.problems = append(k.problems, Problem{Path: path, Message: fmt.Sprintf(format, args...)})
}

// Sound reports whether nothing wrong was found.
func (k *Report) Sound() bool { return len(k.problems) == 0 }

// At is the path of the element i of a list.
func At(list string, i int) string { return list + "[" + strconv.Itoa(i) + "]" }
