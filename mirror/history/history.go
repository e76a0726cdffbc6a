package history

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"dray/mirror/admin/api"
)

const (
	// MaxBytes is the default of Options.MaxBytes. A sample seldom has more than 100 bytes, so the
	// files cover more than 100 days with a sample every minute.
	MaxBytes = 16 << 20
	// MaxPoints bounds the points of a series.
	MaxPoints = 2000
)

// Options configure [Open].
type Options struct {
	// Directory has the files. It is created for the first sample.
	Directory string
	// Gatherer has the metrics. Their counters started at 0 when the process started.
	Gatherer prometheus.Gatherer
	// Interval is the time between two samples; 0 means a minute.
	Interval time.Duration
	// MaxBytes bounds the bytes of all files; 0 means [MaxBytes].
	MaxBytes int64
	// Logger gets a message when Run cannot take or store a sample; nil discards it.
	Logger *slog.Logger
}

// History has samples of metrics. Its methods may be called concurrently.
type History struct {
	o Options

	mu   sync.Mutex // guards seen and last
	seen Meter[counter]
	last time.Time // when the last sample ended

	failing bool   // whether the last sample of Run failed
	today   string // the name of the file of the last sample
}

// Open returns the history in a directory.
func Open(o Options) *History {
	o.Interval, o.MaxBytes = cmp.Or(o.Interval, time.Minute), cmp.Or(o.MaxBytes, MaxBytes)
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	return &History{o: o, seen: Meter[counter]{}, last: time.Now()}
}

// Run takes a sample whenever the time of day is a multiple of Interval, and once more when ctx
// ends. It then returns nil. End ctx only after the listeners have stopped, so that the last sample
// covers all requests.
func (h *History) Run(ctx context.Context) error {
	for {
		now := time.Now()
		timer := time.NewTimer(now.Truncate(h.o.Interval).Add(h.o.Interval).Sub(now))
		select {
		case <-timer.C:
			h.sample()
		case <-ctx.Done():
			timer.Stop()
			h.sample()
			return nil
		}
	}
}

// sample takes and stores a sample. It logs the first of several failures in a row. If a killed
// process has damaged the file of the day, or if a version of dray with other columns began the
// file, sample rewrites the file.
func (h *History) sample() {
	s, err := h.measure(true)
	if name := nameOf(s.at); name != h.today {
		fault := repair(filepath.Join(h.o.Directory, name), s.at.UTC().Truncate(day))
		if err = errors.Join(err, fault); fault == nil {
			h.today = name
		}
	}
	err = errors.Join(err, extend(h.o.Directory, s), trim(h.o.Directory, h.o.MaxBytes))
	if err != nil && !h.failing {
		h.o.Logger.Warn("a minute is missing in the history", "error", err)
	}
	h.failing = err != nil
}

// measure returns a sample of the time since the last sample. If mark is set, the next sample
// begins where this one ends.
func (h *History) measure(mark bool) (sample, error) {
	// Lock before Gather. Without the lock, another call could gather and store newer values first.
	// The older values of this call would then look like restarted counters.
	h.mu.Lock()
	defer h.mu.Unlock()
	families, err := h.o.Gatherer.Gather() // after an error, families has the families without errors
	s, grown := sample{at: time.Now()}, h.seen.grown
	s.values[milliseconds] = max(0, s.at.Sub(h.last).Milliseconds())
	if mark {
		h.last, grown = s.at, h.seen.Grown
	}
	for _, f := range families {
		s.values.add(f, grown)
	}
	return s, err
}

// Series returns the history between start and end, including the time since the last sample, as
// points of equal length. The first point contains the start, and the last one contains the end.
// The parameter points is the wanted number, at most [MaxPoints]. Series may return one point more.
// The length of a point is a multiple of Interval, so Series may also return fewer points.
func (h *History) Series(start, end time.Time, points int) api.History {
	points = min(max(points, 1), MaxPoints)
	step := (end.Sub(start) / time.Duration(points)).Truncate(h.o.Interval)
	if step*time.Duration(points) < end.Sub(start) || step == 0 {
		step += h.o.Interval
	}
	first := start.UTC().Truncate(step)
	n := int(end.Sub(first)/step) + 1
	sums := make([]values, n)
	h.read(first, end, func(s sample) {
		// A sample covers the time before it. So a sample taken exactly at the end of a point belongs to
		// that point: subtract a nanosecond.
		at := s.at.Add(-time.Nanosecond).Sub(first)
		if began := s.at.Add(-time.Duration(s.values[milliseconds]) * time.Millisecond); at >= 0 && int(at/step) < n && began.Before(end) {
			sums[at/step].join(s.values)
		}
	})
	out := api.History{Step: step.Seconds(), Points: make([]api.HistoryPoint, n)}
	for i := range sums {
		out.Points[i].At = first.Add(time.Duration(i) * step)
		sums[i].into(&out.Points[i])
	}
	return out
}

// read passes the stored samples of the days from start to end to the function visit, and then a
// sample of the time since the last stored one.
func (h *History) read(start, end time.Time, visit func(sample)) {
	recent, err := h.measure(false)
	stored := recent.at.Add(-time.Duration(recent.values[milliseconds]) * time.Millisecond)
	entries, _ := os.ReadDir(h.o.Directory) // without a directory, there are no samples
	for _, e := range entries {
		of, ok := dayOf(e.Name())
		if !ok || of.Add(day).Before(start) || of.After(end) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(h.o.Directory, e.Name()))
		if err != nil {
			continue // it has been removed, or cannot be read
		}
		read(text, of, func(s sample) {
			// Skip samples that were stored after the call of measure, because the sample recent already
			// covers their time.
			if !s.at.After(stored) {
				visit(s)
			}
		})
	}
	if err == nil {
		visit(recent)
	}
}

// defaultPoints and defaultTime apply to a query without parameters.
const (
	defaultPoints = 240
	defaultTime   = 24 * time.Hour
)

// Query answers a question of an operator. In params, "from", "to" and "points" are the arguments
// of [History.Series], and are optional. The times have the form of RFC 3339.
func (h *History) Query(_ context.Context, params url.Values) (api.History, error) {
	to := time.Now()
	if err := timeOf(params, "to", &to); err != nil {
		return api.History{}, err
	}
	from := to.Add(-defaultTime)
	if err := timeOf(params, "from", &from); err != nil {
		return api.History{}, err
	}
	points := defaultPoints
	if text := params.Get("points"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > MaxPoints {
			return api.History{}, api.Errorf(api.CodeInvalid, "points must be a number from 1 to %d", MaxPoints)
		}
		points = n
	}
	if !from.Before(to) {
		return api.History{}, api.Errorf(api.CodeInvalid, "from must be before to")
	}
	return h.Series(from, to, points), nil
}

func timeOf(params url.Values, name string, to *time.Time) error {
	text := params.Get(name)
	if text == "" {
		return nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return api.Errorf(api.CodeInvalid, "%s must be a time such as 2006-01-02T15:04:05Z", name)
	}
	*to = t
	return nil
}
