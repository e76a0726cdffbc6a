// Package secrets finds credentials in the files, configurations and manifests of an image. Most
// rules search for a literal, such as the prefix of a token, and then check the bytes around it.
// Other rules recognise files by their paths.
//
// Invariants:
//   - A finding never contains the secret. It contains a fingerprint, by which operators recognise
//     and waive the finding.
//   - The cost is one table look-up for each byte, whatever the number of rules. For each literal,
//     the engine chooses three of its bytes, and a scanner compares the literal only where the file
//     has these bytes. Where the literal is found, its rule checks the bytes around it, at most
//     [maxSecret] on each side.
//   - At most 64 KiB of a file are in memory at a time.
package secrets

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"math/bits"
)

const (
	// maxSecret is the number of bytes that a rule checks on each side of its literal.
	maxSecret = 512
	// bufferSize is the size of a Scanner's buffer. A full buffer keeps only its last 2*maxSecret
	// bytes, and is then filled with the next bytes of the file.
	bufferSize = 64 << 10
)

// Match is a credential in a file.
type Match struct {
	// Rule is the rule that matched.
	Rule *Rule
	// Offset is where the literal begins in the file, in bytes. Line is the line of the literal,
	// counted from 1.
	Offset int64
	Line   int
	// Fingerprint identifies the credential; see [Fingerprint].
	Fingerprint string
}

// Fingerprint identifies a credential without revealing it: it has the first 16 hexadecimal digits
// of one SHA-256 over the rule's ID, a zero byte, and the bytes that [Rule].Secret returns.
func Fingerprint(rule string, secret []byte) string {
	h := sha256.New()
	h.Write([]byte(rule))
	h.Write([]byte{0})
	h.Write(secret)
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// anchor is a literal of a rule. Three consecutive bytes of the literal serve to find it.
type anchor struct {
	literal []byte
	fold    bool // upper and lower case are the same
	at      int  // index of the three bytes in the literal
	rule    *Rule
}

// gram is three consecutive bytes, the first in the highest bits.
type gram uint32

// slot returns the gram's bit in the filter: the upper bits of a multiplicative hash.
func (g gram) slot() uint32 { return uint32(g) * 2654435761 >> 16 }

// Engine is a set of rules, prepared for searching. It is not modified after [NewEngine], so
// scanners share it.
type Engine struct {
	filter  [1 << 16 / 64]uint64 // a bit for the slot of each gram in anchors
	anchors map[gram][]anchor
}

// NewEngine prepares rules. A literal must have at least three bytes.
func NewEngine(rules []*Rule) *Engine {
	e := &Engine{anchors: map[gram][]anchor{}}
	for _, r := range rules {
		for _, l := range r.Literals {
			e.add(anchor{literal: []byte(l), fold: r.Fold, rule: r})
		}
	}
	return e
}

// add enters an anchor under three consecutive bytes of its literal: the three bytes that are
// likely to be the rarest in files.
func (e *Engine) add(a anchor) {
	best := -1
	for i := 0; i+2 < len(a.literal); i++ {
		if c := frequency(a.literal[i]) + frequency(a.literal[i+1]) + frequency(a.literal[i+2]); best < 0 || c < best {
			best, a.at = c, i
		}
	}
	grams := []gram{0}
	for _, c := range a.literal[a.at : a.at+3] {
		var longer []gram
		for _, g := range grams {
			for _, c := range cases(c, a.fold) {
				longer = append(longer, g<<8|gram(c))
			}
		}
		grams = longer
	}
	for _, g := range grams {
		s := g.slot()
		e.filter[s/64] |= 1 << (s % 64)
		e.anchors[g] = append(e.anchors[g], a)
	}
}

// frequency is a rough rank of a byte by how often it occurs in text, which is mostly lower case.
func frequency(c byte) int {
	switch {
	case c >= 'a' && c <= 'z', c == ' ', c == '-':
		return 4
	case c >= '0' && c <= '9', c >= 'A' && c <= 'Z':
		return 2
	}
	return 1
}

func cases(c byte, fold bool) []byte {
	if lower := c | 0x20; fold && lower >= 'a' && lower <= 'z' {
		return []byte{lower, lower &^ 0x20}
	}
	return []byte{c}
}

// Scanner searches one file after another with the rules of an engine. One goroutine uses it.
type Scanner struct {
	engine *Engine
	found  func(Match)
	buf    []byte
	n      int   // bytes in buf
	next   int   // index of the first byte that was not searched for anchors
	base   int64 // offset of buf in the file
	lines  int   // number of newlines in the file before buf[count]
	count  int   // index of the first byte of buf that was not searched for newlines
	hits   int
}

// NewScanner returns a Scanner that calls found(m) for each match m.
func (e *Engine) NewScanner(found func(Match)) *Scanner {
	return &Scanner{engine: e, found: found, buf: make([]byte, bufferSize)}
}

// Reset begins a new file.
func (s *Scanner) Reset() { s.n, s.next, s.base, s.lines, s.count, s.hits = 0, 0, 0, 0, 0, 0 }

// maxMatches bounds the number of matches in one file. Nobody needs a complete list for a file full
// of keys.
const maxMatches = 100

// Write searches the next bytes of the file. It never fails.
func (s *Scanner) Write(p []byte) (int, error) {
	total := len(p)
	for len(p) > 0 {
		if s.n == len(s.buf) {
			s.scan(s.n - maxSecret)
			s.shift()
		}
		k := copy(s.buf[s.n:], p)
		s.n += k
		p = p[k:]
	}
	return total, nil
}

// End searches the rest of the file.
func (s *Scanner) End() { s.scan(s.n) }

// shift drops the bytes at the start of buf that no rule looks at any more.
func (s *Scanner) shift() {
	drop := max(s.next-maxSecret, 0)
	s.countLines(drop)
	copy(s.buf, s.buf[drop:s.n])
	s.n -= drop
	s.next -= drop
	s.count -= drop
	s.base += int64(drop)
}

func (s *Scanner) countLines(to int) {
	if to > s.count {
		s.lines += bytes.Count(s.buf[s.count:to], []byte{'\n'})
		s.count = to
	}
}

// scan searches for anchors whose three bytes begin before buf[end].
func (s *Scanner) scan(end int) {
	filter, buf := &s.engine.filter, s.buf[:s.n]
	i := s.next
	if i >= end || len(buf) < 3 {
		return
	}
	last := min(end, len(buf)-2)
	g := gram(buf[i])<<8 | gram(buf[i+1])
	for ; i < last; i++ {
		g = (g<<8 | gram(buf[i+2])) & 0xffffff
		if slot := g.slot(); filter[slot/64&1023]&(1<<(slot%64)) != 0 {
			s.match(buf, i, g)
		}
	}
	s.next = i
}

func (s *Scanner) match(buf []byte, i int, g gram) {
	for _, a := range s.engine.anchors[g] {
		start := i - a.at
		stop := start + len(a.literal)
		if start < 0 || stop > len(buf) || s.hits >= maxMatches {
			continue
		}
		if a.fold {
			if !bytes.EqualFold(buf[start:stop], a.literal) {
				continue
			}
		} else if !bytes.Equal(buf[start:stop], a.literal) {
			continue
		}
		window := buf[max(0, start-maxSecret):min(len(buf), stop+maxSecret)]
		at := min(start, maxSecret)
		secret, ok := a.rule.Secret(window, at, at+len(a.literal))
		if !ok {
			continue
		}
		s.hits++
		s.countLines(start)
		s.found(Match{
			Rule: a.rule, Offset: s.base + int64(start), Line: s.lines + 1 - bytes.Count(buf[start:max(start, s.count)], []byte{'\n'}),
			Fingerprint: Fingerprint(a.rule.ID, secret),
		})
	}
}

// entropy is the Shannon entropy of p, in tenths of a bit for each byte.
func entropy(p []byte) int {
	if len(p) == 0 {
		return 0
	}
	var counts [256]int
	for _, c := range p {
		counts[c]++
	}
	// The sum of n*log2(n), in fixed point: exact enough to distinguish words from keys, and equal on
	// all machines.
	var sum int
	for _, n := range counts {
		if n > 0 {
			sum += n * log2(n)
		}
	}
	return (log2(len(p)) - sum/len(p)) * 10 / 1024
}

// log2 returns the logarithm of n in 1024ths, interpolated linearly between powers of two.
func log2(n int) int {
	e := bits.Len(uint(n)) - 1
	return e*1024 + (n<<10>>e - 1024)
}
