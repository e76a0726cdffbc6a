package upstream

import (
	"maps"
	"net/http"
	"net/url"
	"strings"
)

// nextPage returns the query of the next page from the Link headers of an answer (RFC 8288), or nil
// after the last page. It reads the target of the first link with the relation "next". Registries
// write this target as an absolute URL, a relative URL or a path, so nextPage uses only its query.
func nextPage(h http.Header) url.Values {
	for _, line := range h.Values("Link") {
		for line != "" {
			target, params, rest := cutLink(line)
			line = rest
			if !relNext(params) {
				continue
			}
			u, err := url.Parse(target)
			if err != nil {
				return nil
			}
			q, err := url.ParseQuery(u.RawQuery)
			if err != nil || len(q) == 0 {
				return nil
			}
			return q
		}
	}
	return nil
}

// cutLink splits the first link off a header line, and returns the link's target, its parameters
// and the rest of the line. If the line is malformed, the rest is empty.
func cutLink(s string) (target, params, rest string) {
	s = strings.TrimLeft(s, " \t,")
	if !strings.HasPrefix(s, "<") {
		return "", "", ""
	}
	target, s, ok := strings.Cut(s[1:], ">")
	if !ok {
		return "", "", ""
	}
	end := unquoted(s, ',')
	if end == len(s) {
		return target, s, ""
	}
	return target, s[:end], s[end+1:]
}

// unquoted returns the index of the first sep outside of quotes, or the length of s.
func unquoted(s string, sep byte) int {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			quoted = !quoted
		case s[i] == '\\' && quoted:
			i++
		case s[i] == sep && !quoted:
			return i
		}
	}
	return len(s)
}

func relNext(params string) bool {
	for params != "" {
		end := unquoted(params, ';')
		name, value, _ := strings.Cut(params[:end], "=")
		params = params[min(end+1, len(params)):]
		if !strings.EqualFold(strings.TrimSpace(name), "rel") {
			continue
		}
		for rel := range strings.FieldsSeq(strings.Trim(strings.TrimSpace(value), `"`)) {
			if strings.EqualFold(rel, "next") {
				return true
			}
		}
		return false // the first rel counts (RFC 8288 section 3.3)
	}
	return false
}

// samePage reports whether two queries ask for the same page. The length of the page (n) does not
// count, because registries add it to links.
func samePage(a, b url.Values) bool {
	a, b = maps.Clone(a), maps.Clone(b)
	a.Del("n")
	b.Del("n")
	return a.Encode() == b.Encode()
}
