package top

import (
	"fmt"
	"io"
	"strings"
	"time"

	"dray/mirror/admin/api"
)

// Control sequences of terminals, from ECMA-48. The sequences for the alternate screen and the
// cursor are from xterm.
const (
	enter      = "\x1b[?1049h\x1b[?25l\x1b[2J"
	leave      = "\x1b[?25h\x1b[?1049l"
	home       = "\x1b[H"
	endOfLine  = "\x1b[K"
	endOfPage  = "\x1b[J"
	bold, thin = "\x1b[1m", "\x1b[0m"
)

// Screen shows pulls and pushes on the whole screen of a terminal.
type Screen struct {
	Out io.Writer
	// Size returns the columns and lines of the terminal.
	Size func() (width, height int)
}

// Enter switches to an empty screen. Call Leave afterwards to restore the former screen.
func (s Screen) Enter() { fmt.Fprint(s.Out, enter) }

// Leave undoes Enter.
func (s Screen) Leave() { fmt.Fprint(s.Out, leave) }

// Show replaces the content of the screen.
func (s Screen) Show(l api.Live) {
	width, height := s.Size()
	var page strings.Builder
	page.WriteString(home)
	for i, line := range Frame(l, width, height) {
		if i > 0 {
			page.WriteString("\r\n")
		}
		if strings.HasPrefix(line, pullHead[0]+" ") || strings.HasPrefix(line, pushHead[0]+" ") || i == 0 {
			line = bold + line + thin
		}
		page.WriteString(line + endOfLine)
	}
	page.WriteString(endOfPage)
	fmt.Fprint(s.Out, page.String()) // in one piece, so that the screen does not flicker
}

// Frame returns the lines of a screen, without control sequences. height bounds the number of
// lines, and width bounds the characters in each line.
func Frame(l api.Live, width, height int) []string {
	out := []string{title(l), ""}
	for i, table := range lines(l, width) {
		if i > 0 {
			out = append(out, "")
		}
		out = append(out, table...)
	}
	if len(out) > height && height > 1 {
		missing := len(out) - height + 1
		out = append(out[:height-1:height-1], fmt.Sprintf("%d lines more", missing))
	}
	out = out[:min(len(out), max(height, 0))]
	for i := range out {
		out[i] = cut(out[i], width)
	}
	return out
}

func title(l api.Live) string {
	var down, up int64
	for _, p := range l.Pulls {
		down += p.Rate
	}
	for _, p := range l.Pushes {
		up += p.Rate
	}
	text := fmt.Sprintf("dray top  %s  %s, %s/s  %s, %s/s", l.At.Local().Format(time.TimeOnly), count(len(l.Pulls), "pull", "pulls"), api.Size(down),
		count(len(l.Pushes), "push", "pushes"), api.Size(up))
	if l.Displaced > 0 {
		text += fmt.Sprintf("  %d not shown", l.Displaced)
	}
	return text + "  (Ctrl-C ends)"
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// cut shortens a line to a number of characters.
func cut(line string, width int) string {
	letters := []rune(strings.TrimRight(line, " "))
	if len(letters) <= width {
		return string(letters)
	}
	return string(letters[:max(width-1, 0)]) + "…"[:min(max(width, 0), 1)*len("…")]
}
