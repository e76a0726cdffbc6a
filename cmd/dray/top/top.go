// Package top shows the pulls and pushes of a running dray: on the whole screen of a terminal, as
// lines, or as a table.
package top

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"dray/mirror/admin/api"
)

// row is a pull or a push, with the text of each column.
type row struct {
	columns []string
	rate    int64
	active  bool
	id      uint64
	failed  string
}

var (
	pullHead = []string{"PULLS", "CLIENT", "LAYERS", "SENT", "RATE", "FROM", "STATE"}
	pushHead = []string{"PUSHES", "CLIENT", "BLOBS", "RECEIVED", "FORWARDED", "RATE", "CHECKS", "STATE"}
)

func pullRow(p api.LivePull, at time.Time) row {
	r := rowOf(p.LiveEntry)
	r.columns = []string{name(p.LiveEntry), client(p.LiveEntry), layers(p.Layers), api.Size(p.Bytes), perSecond(p.Rate), from(p), state(p.LiveEntry, at)}
	return r
}

func pushRow(p api.LivePush, at time.Time) row {
	r := rowOf(p.LiveEntry)
	r.columns = []string{
		name(p.LiveEntry), client(p.LiveEntry), strconv.Itoa(p.Blobs), api.Size(p.Received), api.Size(p.Forwarded), perSecond(p.Rate),
		cmp.Or(Printable(string(p.Checks)), "-"), state(p.LiveEntry, at),
	}
	return r
}

func rowOf(e api.LiveEntry) row {
	r := row{rate: e.Rate, active: e.State == api.LiveActive, id: e.ID}
	if e.Failures > 0 {
		r.failed = fmt.Sprintf("%d failed, last %s: %s", e.Failures, Printable(e.RequestID), Printable(e.Error))
	}
	return r
}

// name returns the name of the image as other subcommands print it, but with a short digest.
func name(e api.LiveEntry) string {
	n := e.Upstream + "/" + e.Repository
	switch {
	case strings.Contains(e.Reference, ":"):
		algorithm, hex, _ := strings.Cut(e.Reference, ":")
		n += "@" + algorithm + ":" + hex[:min(len(hex), 12)]
	case e.Reference != "":
		n += ":" + e.Reference
	}
	return Printable(n)
}

func client(e api.LiveEntry) string {
	c := cmp.Or(e.Client, "?")
	if e.User != "" {
		c = e.User + "@" + c
	}
	return Printable(c)
}

// layers says how many layers of an image a client has asked for, and how many the image has, if
// dray knows this.
func layers(l api.LiveLayers) string {
	if l.Of == 0 {
		return fmt.Sprintf("%d of ?", l.Asked)
	}
	return fmt.Sprintf("%d of %d", l.Asked, l.Of)
}

// from returns the names of the two sources that sent the most bytes, with their shares.
func from(p api.LivePull) string {
	names := slices.SortedFunc(maps.Keys(p.Sources), func(a, b string) int {
		return cmp.Or(cmp.Compare(p.Sources[b], p.Sources[a]), cmp.Compare(a, b))
	})
	var parts []string
	for _, n := range names[:min(len(names), 2)] {
		word := n
		switch n { // the words of dray stats
		case "flight":
			word = "shared"
		case "direct":
			word = "uncached"
		}
		parts = append(parts, fmt.Sprintf("%s %d %%", Printable(word), 100*p.Sources[n]/max(p.Bytes, 1)))
	}
	return cmp.Or(strings.Join(parts, ", "), "-")
}

func state(e api.LiveEntry, at time.Time) string {
	if e.State == api.LiveIdle {
		return fmt.Sprintf("idle %s", max(at.Sub(e.Last), 0).Round(time.Second))
	}
	return Printable(string(e.State))
}

func perSecond(n int64) string {
	if n == 0 {
		return "-"
	}
	return api.Size(n) + "/s"
}

// Printable replaces control characters. Clients choose some of the texts, and could otherwise
// control the operator's terminal.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// rowsOf returns the rows: first the active ones, then the others, each group from fast to slow.
func rowsOf(l api.Live) (pulls, pushes []row) {
	for _, p := range l.Pulls {
		pulls = append(pulls, pullRow(p, l.At))
	}
	for _, p := range l.Pushes {
		pushes = append(pushes, pushRow(p, l.At))
	}
	busiest := func(a, b row) int {
		switch {
		case a.active != b.active && a.active:
			return -1
		case a.active != b.active:
			return 1
		}
		return cmp.Or(cmp.Compare(b.rate, a.rate), cmp.Compare(a.id, b.id))
	}
	slices.SortFunc(pulls, busiest)
	slices.SortFunc(pushes, busiest)
	return pulls, pushes
}

// Table prints the pulls and pushes of one moment.
func Table(w io.Writer, l api.Live) {
	for i, line := range lines(l, unbounded) {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprint(w, strings.Join(line, "\n"), "\n")
	}
}

// unbounded is the width for a table that is not on a screen, in characters. leastName is the least
// width to which a table shortens names of images.
const (
	unbounded = 1 << 20
	leastName = 16
)

// lines returns the table of pulls and the table of pushes. The first line of each has the names of
// the columns. Names of images are shortened if a table is wider than width.
func lines(l api.Live, width int) (tables [][]string) {
	pulls, pushes := rowsOf(l)
	if len(pulls)+len(pushes) == 0 {
		return [][]string{{"no pulls and no pushes"}}
	}
	if len(pulls) > 0 {
		tables = append(tables, table(pullHead, pulls, width))
	}
	if len(pushes) > 0 {
		tables = append(tables, table(pushHead, pushes, width))
	}
	return tables
}

func table(head []string, rows []row, width int) []string {
	out := columns(head, rows)
	widest := 0
	for _, line := range out {
		widest = max(widest, utf8.RuneCountInString(line))
	}
	if over := widest - width; over > 0 {
		longest := 0
		for _, r := range rows {
			longest = max(longest, utf8.RuneCountInString(r.columns[0]))
		}
		for _, r := range rows {
			r.columns[0] = cutFront(r.columns[0], max(longest-over, leastName))
		}
		out = columns(head, rows)
	}
	with := out[:1:1]
	for i, r := range rows {
		with = append(with, out[i+1])
		if r.failed != "" {
			with = append(with, "  "+r.failed)
		}
	}
	return with
}

// cutFront shortens a name to a number of characters. It keeps the end, because the end differs
// more between images.
func cutFront(name string, limit int) string {
	letters := []rune(name)
	if len(letters) <= limit {
		return name
	}
	return "…" + string(letters[len(letters)-limit+1:])
}

// columns returns a line for the head, and one for each row.
func columns(head []string, rows []row) []string {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(head, "\t"))
	for _, r := range rows {
		fmt.Fprintln(w, strings.Join(r.columns, "\t"))
	}
	_ = w.Flush() // cannot fail for a strings.Builder
	return strings.Split(strings.TrimSuffix(text.String(), "\n"), "\n")
}
