package ctl

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dray/mirror/admin/api"
)

// screen is what a terminal of one column more than the bar shows after these bytes.
func screen(bytes string) string {
	lines := []string{""}
	column := 0
	for _, c := range bytes {
		last := &lines[len(lines)-1]
		switch c {
		case '\r':
			column = 0
		case '\n':
			lines, column = append(lines, ""), 0
		default:
			*last = (*last)[:column] + string(c) + (*last)[min(column+1, len(*last)):]
			column++
		}
	}
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}

// TestWarmBar: the bar shows all images together, is drawn at most ten times a second, and leaves
// nothing behind on the screen.
func TestWarmBar(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tty strings.Builder
		p := newWarmProgress(&operator{stdout: &tty, stderr: &tty}, 3)
		p.bar = true
		time.Sleep(2 * time.Second)
		p.advance("a", api.Warmth{Bytes: 4e6, HeldBytes: 1e6, FetchedBytes: 1e6})
		if got := screen(tty.String()); got != "[#####               ] 0 of 3 images, 1.0 MB of 4.0 MB, 500.0 kB/s" {
			t.Errorf("%q", got)
		}
		drawn := tty.Len()
		p.advance("b", api.Warmth{Bytes: 6e6})
		if tty.Len() != drawn {
			t.Error("drawn again at once")
		}
		time.Sleep(2 * time.Second)
		p.advance("a", api.Warmth{Bytes: 4e6, HeldBytes: 4e6, FetchedBytes: 4e6})
		if got := screen(tty.String()); got != "[########            ] 0 of 3 images, 4.0 MB of 10.0 MB, 1.0 MB/s" {
			t.Errorf("%q", got)
		}
		p.done(warmedImage{Image: "a", Warmth: api.Warmth{Parts: 3, Bytes: 4e6, FetchedBytes: 4e6}})
		p.advance("b", api.Warmth{Bytes: 6e6, HeldBytes: 6e6})
		p.done(warmedImage{Image: "b", Warmth: api.Warmth{Parts: 2, Bytes: 6e6}})
		p.done(warmedImage{Image: "c", Error: "no such thing"})
		p.end()
		want := "a: held, 3 parts, 4.0 MB (fetched 4.0 MB)\nb: held, 2 parts, 6.0 MB (fetched 0 B)\ndray: c: no such thing\n2 of 3 images held; fetched 4.0 MB in 4s\n"
		if got := screen(tty.String()); got != want {
			t.Errorf("%q", got)
		}
	})
}

// TestWarmBarWidth: no line is wider than a terminal.
func TestWarmBarWidth(t *testing.T) {
	p := newWarmProgress(&operator{}, 1<<40)
	p.ended = 1 << 40
	for i := range 9 {
		p.images[fmt.Sprint(i)] = api.Warmth{Bytes: 1e18, HeldBytes: 1e18, FetchedBytes: 1e18}
	}
	if line := p.line(p.began.Add(time.Second)); len(line) > 79 {
		t.Errorf("%d columns: %s", len(line), line)
	}
}

// TestWarmTerminal: what is no terminal gets no bar.
func TestWarmTerminal(t *testing.T) {
	if isTerminal(&strings.Builder{}) || isTerminal(nil) {
		t.Error("a buffer is taken for a terminal")
	}
}
