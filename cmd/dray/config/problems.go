package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Problem is one error in a configuration.
type Problem struct {
	Path    string // the key, such as upstreams[1].url; empty for the whole file, or for a variable that cannot be parsed
	Origin  string // where the value was set, such as dray.yaml:12 or the variable PORT; empty for defaults
	Message string
}

// String returns the problem as one line.
func (p Problem) String() string {
	parts := slices.DeleteFunc([]string{p.Origin, p.Path, p.Message}, func(s string) bool { return s == "" })
	return strings.Join(parts, ": ")
}

// Problems has all errors in a configuration.
type Problems []Problem

// Error returns one line for each problem.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// err returns ps as an error, or nil if ps is empty.
func (ps Problems) err() error {
	if len(ps) == 0 {
		return nil
	}
	return ps
}

// Report collects the problems of a configuration.
type Report struct{ problems Problems }

// Add reports a problem with the value at path.
func (k *Report) Add(path, format string, args ...any) {
	k.problems = append(k.problems, Problem{Path: path, Message: fmt.Sprintf(format, args...)})
}

// Sound reports whether there are no problems.
func (k *Report) Sound() bool { return len(k.problems) == 0 }

// At returns the path of element i of a list.
func At(list string, i int) string { return list + "[" + strconv.Itoa(i) + "]" }
