package auth

import (
	"maps"
	"slices"
	"strings"
)

// Challenge is one challenge of a WWW-Authenticate header (RFC 9110 section 11.6.1).
type Challenge struct {
	// Scheme is the authentication scheme in lower case.
	Scheme string
	// Token68 is the single unnamed value that some schemes have in place of parameters.
	Token68 string
	// Params are the parameters, with names in lower case. If a name occurs twice, the first value
	// counts.
	Params map[string]string
}

// String returns the challenge in a form that ParseChallenges parses to the same value.
func (c Challenge) String() string {
	var b strings.Builder
	b.WriteString(c.Scheme)
	sep := " "
	if c.Token68 != "" {
		b.WriteString(" " + c.Token68)
		sep = ", "
	}
	for _, name := range slices.Sorted(maps.Keys(c.Params)) {
		value := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(c.Params[name])
		b.WriteString(sep + name + `="` + value + `"`)
		sep = ", "
	}
	return b.String()
}

// ParseChallenges parses the values of a WWW-Authenticate header. One value may contain several
// challenges. If a part of a value is malformed, ParseChallenges ignores that part and the rest of
// the value.
func ParseChallenges(values []string) []Challenge {
	var out []Challenge
	for _, v := range values {
		out = append(out, parseField(v)...)
	}
	return out
}

func parseField(s string) []Challenge {
	var out []Challenge
	p := scanner{s: s}
	for {
		p.skip(" \t,")
		name := strings.ToLower(p.run(isTokenChar))
		if name == "" {
			return out
		}
		// A comma separates parameters as well as challenges, but only the name of a parameter is
		// followed by an equals sign.
		mark := p.i
		if p.equals() {
			if len(out) == 0 {
				return out
			}
			value, ok := p.value()
			if !ok {
				return out
			}
			params := out[len(out)-1].Params
			if _, twice := params[name]; !twice {
				params[name] = value
			}
			continue
		}
		p.i = mark
		c := Challenge{Scheme: name, Params: map[string]string{}}
		c.Token68 = p.token68()
		out = append(out, c)
	}
}

type scanner struct {
	s string
	i int
}

func (p *scanner) skip(set string) {
	for p.i < len(p.s) && strings.IndexByte(set, p.s[p.i]) >= 0 {
		p.i++
	}
}

func (p *scanner) run(in func(byte) bool) string {
	start := p.i
	for p.i < len(p.s) && in(p.s[p.i]) {
		p.i++
	}
	return p.s[start:p.i]
}

// equals consumes an equals sign with optional blanks around it, and reports whether there was one.
func (p *scanner) equals() bool {
	p.skip(" \t")
	if p.i == len(p.s) || p.s[p.i] != '=' {
		return false
	}
	p.i++
	p.skip(" \t")
	return true
}

// value scans a quoted string. Some registries do not quote URLs, so value also scans unquoted text
// up to a comma or blank.
func (p *scanner) value() (string, bool) {
	if p.i == len(p.s) || p.s[p.i] != '"' {
		return p.run(func(c byte) bool { return c != ',' && c != ' ' && c != '\t' }), true
	}
	var b strings.Builder
	for p.i++; p.i < len(p.s); p.i++ {
		switch c := p.s[p.i]; c {
		case '"':
			p.i++
			return b.String(), true
		case '\\':
			if p.i++; p.i == len(p.s) {
				return "", false
			}
			b.WriteByte(p.s[p.i])
		default:
			b.WriteByte(c)
		}
	}
	return "", false
}

// token68 scans the rest of a challenge if the rest is a token68. Otherwise it returns "".
func (p *scanner) token68() string {
	mark := p.i
	if p.skip(" \t"); p.i == mark {
		return ""
	}
	start := p.i
	if p.run(isToken68Char); p.i > start {
		p.run(func(c byte) bool { return c == '=' })
		end := p.i
		if p.skip(" \t"); p.i == len(p.s) || p.s[p.i] == ',' {
			return p.s[start:end]
		}
	}
	p.i = mark
	return ""
}

func isAlphaNum(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

func isTokenChar(c byte) bool {
	return isAlphaNum(c) || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

func isToken68Char(c byte) bool { return isAlphaNum(c) || strings.IndexByte("-._~+/", c) >= 0 }
