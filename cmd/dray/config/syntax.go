package config

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// lineReader returns at most one line for each Read. [lineReader.read] says how far a caller has
// come.
type lineReader struct {
	rest []byte
	read int // number of lines that Read has returned completely
}

// Read implements io.Reader.
func (r *lineReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	line := r.rest
	if end := bytes.IndexByte(line, '\n'); end >= 0 {
		line = line[:end+1]
	}
	n := copy(p, line)
	if n == len(line) {
		r.read++
	}
	r.rest = r.rest[n:]
	return n, nil
}

// libraryLine matches the beginning of an error of the YAML library, with the number of a line, if
// any. Often this is not the line of the mistake, but the line where the section around it begins.
var libraryLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

const maxShorter = 200

// syntaxProblem describes the error err of the YAML library about a text. linesRead is the number
// of lines that the library had read. syntaxProblem parses fewer and fewer of these lines, while
// the library still returns the same error. The first line whose removal changes the error is the
// line of the problem. So an unclosed bracket or quote is reported at the line where it opens.
// syntaxProblem gives up after maxShorter lines. It then reports the line where it stopped, or the
// line that err names, if that line is earlier.
func syntaxProblem(file string, text []byte, linesRead int, err error) Problem {
	lines := bytes.SplitAfter(text, []byte("\n"))
	n := max(min(linesRead, len(lines)), 1)
	for least := n - maxShorter; n > 1; n-- {
		if n == least {
			if known := libraryLine.FindStringSubmatch(err.Error()); known != nil {
				line, _ := strconv.Atoi(known[1]) // 0 if the error names no line
				n = min(n, cmp.Or(line, n))
			}
			break
		}
		var doc yaml.Node
		if shorter := yaml.Unmarshal(bytes.Join(lines[:n-1], nil), &doc); shorter == nil || bare(shorter) != bare(err) {
			break
		}
	}
	return Problem{Origin: fmt.Sprintf("%s:%d", file, n), Message: explain(bare(err), string(lines[n-1]))}
}

// bare returns the text of an error of the YAML library without what libraryLine matches.
func bare(err error) string { return libraryLine.ReplaceAllString(err.Error(), "") }

// noPlace describes a line that continues neither a section nor a list.
const noPlace = "the line continues neither the section nor the list before it; " +
	"look at its indentation, which is the same for all keys of a section and for all dashes of a list, and at quotation marks within quoted values"

// unexplained lists error texts of the YAML library that do not say what to do, each with the text
// that replaces it.
var unexplained = []struct{ text, say string }{
	{"found character that cannot start any token", "a value begins with a character that means something else in YAML; put the value in quotes"},
	{"mapping values are not allowed in this context", "a colon followed by a space is not allowed here; if it belongs to a value, put the value in quotes, otherwise look at the indentation of this line and of the line before"},
	{"did not find expected '-' indicator", noPlace},
	{"did not find expected key", noPlace},
	{"block sequence entries are not allowed in this context", "a list cannot begin here; begin it in the line after its key"},
	{"could not find expected ':'", "a key has no colon; write it as key: value"},
	{"found unexpected end of stream", "the quotation mark that opens here is not closed"},
	{"did not find expected ',' or ']'", "the list that begins with [ here is not closed, or lacks a comma"},
	{"did not find expected ',' or '}'", "the section that begins with { here is not closed, lacks a comma, or has a value with a colon that must be in quotes"},
	{"did not find expected node content", "a value is missing, or the [ or { before it is not closed"},
	{"did not find expected <document start>", "the text before this line is complete, so nothing can follow; look at the indentation"},
	{"found unknown escape character", "a backslash in double quotation marks is followed by a character that has no meaning there; use single quotation marks"},
	{"did not find expected alphabetic or numeric character", "a value that begins with & or * must be in quotes"},
	{"unknown anchor", "there is no anchor of this name before this line; put a value that begins with * in quotes"},
	{"found undefined tag handle", "a value that begins with ! must be in quotes"},
	{"control characters are not allowed", "the file has a control character"},
	{"UTF-8", "the file is not UTF-8; save it in that encoding"},
}

// explain says what is wrong with a line, and what to do. message is the text of the library's
// error.
func explain(message, line string) string {
	if indent := line[:len(line)-len(strings.TrimLeft(line, " \t"))]; strings.Contains(indent, "\t") {
		return "the line begins with a tab; indent it with spaces"
	}
	for _, u := range unexplained {
		if strings.Contains(message, u.text) {
			return u.say
		}
	}
	return message
}
