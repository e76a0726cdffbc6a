package ledger

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"dray/mirror/history"
	"dray/mirror/savings"
)

// MaxDays bounds the number of days in a ledger.
const MaxDays = 400

// dateFormat is the format of the names of files, without their extension.
const (
	dateFormat = time.DateOnly
	extension  = ".json"
	temporary  = ".new-*"
)

// Options configure [Open].
type Options struct {
	// Directory has one file for each day. It is created when the first file is written.
	Directory string
	// Gatherer has the counters. The ledger assumes that each counter was 0 when the process started.
	Gatherer prometheus.Gatherer
	// Interval is the time between two counts by [Ledger.Run]; 0 means 5 minutes.
	Interval time.Duration
	// Logger gets a message when files cannot be used; nil discards it.
	Logger *slog.Logger
}

// Ledger has the counts of each day in UTC. Its methods may be called concurrently.
type Ledger struct {
	o      Options
	opened time.Time

	counting sync.Mutex // guards seen, and lets one count end before the next begins
	seen     counted

	mu      sync.Mutex // guards days and unsaved
	days    map[string]savings.Usage
	unsaved map[string]bool // the days that have changed since their files were written

	failing bool // whether the last count or save of Run failed
}

// Open reads the files. It skips a file that it cannot read, and removes a file that is not valid
// JSON. It logs both cases.
func Open(o Options) *Ledger {
	o.Interval, o.Logger = cmp.Or(o.Interval, 5*time.Minute), cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	l := &Ledger{o: o, opened: time.Now().UTC(), seen: counted{history.Meter[series]{}}, days: map[string]savings.Usage{}, unsaved: map[string]bool{}}
	files := os.DirFS(o.Directory)
	leftovers, _ := fs.Glob(files, temporary) // fails only for a malformed pattern
	for _, name := range leftovers {
		_ = os.Remove(filepath.Join(o.Directory, name))
	}
	names, _ := fs.Glob(files, "*"+extension)
	for _, name := range names {
		date := strings.TrimSuffix(name, extension)
		if _, err := time.Parse(dateFormat, date); err != nil {
			continue
		}
		day, err := read(filepath.Join(o.Directory, name))
		if err != nil {
			o.Logger.Warn("a day of the savings is lost, because its file cannot be read", "error", err)
			continue
		}
		l.days[date] = day
	}
	return l
}

func read(name string) (day savings.Usage, err error) {
	text, err := os.ReadFile(filepath.Clean(name))
	if err != nil {
		return day, err
	}
	if err := json.Unmarshal(text, &day); err != nil {
		return day, errors.Join(fmt.Errorf("%s: %w", name, err), os.Remove(name))
	}
	if day.Upstreams == nil {
		day.Upstreams = map[string]savings.Traffic{}
	}
	return day, nil
}

// Run counts and saves whenever the time of day is a multiple of Interval, and once more when ctx
// ends. It then returns nil. The listeners should be stopped before ctx ends, so that the last
// count includes their answers.
func (l *Ledger) Run(ctx context.Context) error {
	for {
		now := time.Now()
		end := now.Truncate(l.o.Interval).Add(l.o.Interval)
		timer := time.NewTimer(end.Sub(now))
		select {
		case <-timer.C:
			l.countAndSave(end.Add(-time.Nanosecond)) // minus 1 ns, so that a count at midnight belongs to the day that ends
		case <-ctx.Done():
			timer.Stop()
			l.countAndSave(time.Now())
			return nil
		}
	}
}

// countAndSave counts and saves. Of several failures in a row, it logs only the first.
func (l *Ledger) countAndSave(now time.Time) {
	err := errors.Join(l.count(now), l.save())
	if err != nil && !l.failing {
		l.o.Logger.Warn("the savings of today are not stored, and may be lost at the next stop", "error", err)
	}
	l.failing = err != nil
}

// Count adds to the current day the growth of the counters since the last count.
func (l *Ledger) Count() error { return l.count(time.Now()) }

func (l *Ledger) count(now time.Time) error {
	l.counting.Lock()
	defer l.counting.Unlock()
	families, err := l.o.Gatherer.Gather() // after an error, families has the metrics that could be gathered
	increase := savings.Usage{Upstreams: map[string]savings.Traffic{}}
	l.seen.addTo(&increase, families)
	l.enter(now.UTC(), increase)
	return err
}

// enter adds an increase to the counts of one day, the day of the parameter now.
func (l *Ledger) enter(now time.Time, increase savings.Usage) {
	date := now.Format(dateFormat)
	increase.From, increase.To = now.Truncate(24*time.Hour), now
	if l.opened.After(increase.From) {
		increase.From = l.opened
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if day, ok := l.days[date]; ok {
		increase = savings.Sum(day, increase)
	}
	l.days[date], l.unsaved[date] = increase, true
	dates := slices.Sorted(maps.Keys(l.days))
	for _, old := range dates[:max(0, len(dates)-MaxDays)] {
		delete(l.days, old)
		l.unsaved[old] = true
	}
}

// save writes the files of days that have changed, and removes the files of days that are no longer
// in the ledger.
func (l *Ledger) save() error {
	if err := os.MkdirAll(l.o.Directory, 0o700); err != nil {
		return err
	}
	l.mu.Lock()
	unsaved := l.unsaved
	l.unsaved = map[string]bool{}
	l.mu.Unlock()
	var errs []error
	for date := range unsaved {
		if err := l.saveDay(date); err != nil {
			errs = append(errs, err)
			l.mu.Lock()
			l.unsaved[date] = true
			l.mu.Unlock()
		}
	}
	return errors.Join(errs...)
}

func (l *Ledger) saveDay(date string) error {
	name := filepath.Join(l.o.Directory, date+extension)
	l.mu.Lock()
	day, ok := l.days[date]
	l.mu.Unlock()
	if !ok {
		if err := os.Remove(name); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	text, err := json.Marshal(day)
	if err != nil {
		return err
	}
	return write(name, text)
}

// write replaces a file in one step.
func write(name string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), temporary)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// Last returns the sum of the counts of the last n days, including the current day.
func (l *Ledger) Last(n int) savings.Usage {
	first := time.Now().UTC().AddDate(0, 0, 1-n).Format(dateFormat)
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []savings.Usage
	for date, day := range l.days {
		if date >= first {
			all = append(all, day)
		}
	}
	return savings.Sum(all...)
}
