package top

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"dray/mirror/admin/api"
)

// every is the least time between two lines about the same pull or push while it goes on.
const every = 5 * time.Second

// Lines prints a line when a pull or push begins, changes or ends. It is for logs and pipes.
type Lines struct {
	Out   io.Writer
	shown map[uint64]shown
}

// shown has the last line that was printed about a pull or push, and the newest row, printed or
// not.
type shown struct {
	text string
	at   time.Time
	live bool
	last row
	word string
}

// Show prints the changes since the last call. While a pull or push goes on, Show prints at
// most one line about it in 5 seconds.
func (l *Lines) Show(now api.Live) error {
	if l.shown == nil {
		l.shown = map[uint64]shown{}
	}
	for id, s := range l.shown {
		s.live = false
		l.shown[id] = s
	}
	pulls, pushes := rowsOf(now)
	for _, r := range pulls {
		if err := l.show(now.At, "pull", r); err != nil {
			return err
		}
	}
	for _, r := range pushes {
		if err := l.show(now.At, "push", r); err != nil {
			return err
		}
	}
	for _, id := range slices.Sorted(maps.Keys(l.shown)) {
		s := l.shown[id]
		if s.live {
			continue
		}
		delete(l.shown, id)
		s.last.columns[len(s.last.columns)-1] = "ended"
		if err := l.print(now.At, s.word, s.last); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lines) show(at time.Time, word string, r row) error {
	state := r.columns[len(r.columns)-1]
	if strings.HasPrefix(state, "idle") {
		state = "idle" // without the idle time, which would make each line differ
	}
	r.columns[len(r.columns)-1] = state
	text := strings.Join(append(r.columns, r.failed), "\t")
	before, known := l.shown[r.id]
	next := shown{text, at, true, r, word}
	if known && (text == before.text || at.Sub(before.at) < every) {
		next.text, next.at = before.text, before.at
		l.shown[r.id] = next
		return nil
	}
	l.shown[r.id] = next
	return l.print(at, word, r)
}

func (l *Lines) print(at time.Time, word string, r row) error {
	columns := r.columns
	if r.failed != "" {
		columns = append(columns[:len(columns):len(columns)], r.failed)
	}
	_, err := fmt.Fprintf(l.Out, "%s %s %s\n", at.Local().Format(time.TimeOnly), word, strings.Join(columns, "  "))
	return err
}
