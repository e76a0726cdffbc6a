package history

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"dray/mirror/admin/api"
)

// metrics are those that the history reads.
type metrics struct {
	*prometheus.Registry
	requests, opens, sent, fetched *prometheus.CounterVec
	uploaded                       prometheus.Counter
	stored, fetches, pulls, pushes prometheus.Gauge
}

func newMetrics() metrics {
	vec := func(name string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name}, labels)
	}
	gauge := func(name string) prometheus.Gauge { return prometheus.NewGauge(prometheus.GaugeOpts{Name: name}) }
	m := metrics{
		prometheus.NewRegistry(),
		vec("dray_requests_total", "listener", "upstream", "kind", "method", "status"), vec("dray_cache_opens_total", "source"),
		vec("dray_response_bytes_total", "upstream", "kind", "source"), vec("dray_upstream_received_bytes_total", "upstream", "kind"),
		prometheus.NewCounter(prometheus.CounterOpts{Name: "dray_cache_received_bytes_total"}),
		gauge("dray_disk_bytes"), gauge("dray_cache_flights"), gauge("dray_live_pulls"), gauge("dray_live_pushes"),
	}
	m.MustRegister(m.requests, m.opens, m.sent, m.fetched, m.uploaded, m.stored, m.fetches, m.pulls, m.pushes, vec("dray_other_total"))
	return m
}

// running runs a history while f runs.
func running(t *testing.T, o Options, f func(*History)) {
	t.Helper()
	h := Open(o)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- h.Run(ctx) }()
	f(h)
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// sum returns the sum of a series.
func sum(all api.History, of func(api.HistoryPoint) int64) (n int64) {
	for _, p := range all.Points {
		n += of(p)
	}
	return n
}

func sentFrom(source string) func(api.HistoryPoint) int64 {
	return func(p api.HistoryPoint) int64 { return p.Sent[source] }
}

// TestColumns: each metric goes to its place, counters by what they have grown by and gauges as
// they are.
func TestColumns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // it begins at midnight of 2000-01-01
		m := newMetrics()
		m.sent.WithLabelValues("hub", "blob", "disk").Add(5) // before there was a history
		running(t, Options{Directory: t.TempDir(), Gatherer: m}, func(h *History) {
			m.requests.WithLabelValues("main", "hub", "blob", "GET", "200").Add(3)
			m.requests.WithLabelValues("main", "ecr", "manifest", "GET", "404").Add(2)
			m.requests.WithLabelValues("main", "hub", "blob", "HEAD", "200").Add(100)
			m.requests.WithLabelValues("main", "hub", "tags", "GET", "200").Add(100)
			for i, source := range []string{"memory", "disk", "origin", "flight", "direct"} {
				m.opens.WithLabelValues(source).Add(float64(i + 1))
			}
			m.sent.WithLabelValues("hub", "blob", "disk").Add(10)
			m.sent.WithLabelValues("ecr", "manifest", "disk").Add(20)
			m.sent.WithLabelValues("ecr", "manifest", "cache").Add(7)
			m.sent.WithLabelValues("ecr", "manifest", "a new one").Add(9)
			m.fetched.WithLabelValues("hub", "blob").Add(40)
			m.fetched.WithLabelValues("hub", "manifest").Add(2)
			m.uploaded.Add(8)
			m.stored.Set(4096)
			m.fetches.Set(1)
			m.pulls.Set(2)
			m.pushes.Set(3)
			time.Sleep(90 * time.Second)
			got := h.Series(time.Now().Add(-90*time.Second), time.Now(), 2)
			if got.Step != 60 || len(got.Points) != 2 {
				t.Fatalf("%+v", got)
			}
			text, _ := json.Marshal(got.Points[0])
			want := `{"at":"2000-01-01T00:00:00Z","seconds":60,"requests":5,"hits":3,"misses":12,"sent":{"cache":7,"disk":35,"other":9},"fetched":42,"uploaded":8,"stored":4096,"fetches":1,"pulls":2,"pushes":3}`
			if string(text) != want {
				t.Errorf("%s\nwant\n%s", text, want)
			}
			// The minute that has begun is there, too, and once.
			m.sent.WithLabelValues("hub", "blob", "disk").Add(1)
			for range 2 {
				last := h.Series(time.Now().Add(-time.Minute), time.Now(), 1).Points
				if p := last[len(last)-1]; p.Sent["disk"] != 1 || p.Seconds != 30 || p.Stored != 4096 || p.Requests != 0 {
					t.Errorf("%+v", p)
				}
			}
			// A reload that removes an upstream removes its counters.
			m.sent.DeleteLabelValues("ecr", "manifest", "disk")
			m.fetched.Reset()
			m.fetched.WithLabelValues("hub", "blob").Add(5)
			time.Sleep(time.Minute)
			all := h.Series(time.Now().Add(-time.Hour), time.Now(), 60)
			if disk, fetched := sum(all, sentFrom("disk")), sum(all, func(p api.HistoryPoint) int64 { return p.Fetched }); disk != 36 || fetched != 47 {
				t.Errorf("sent %d from disk, fetched %d", disk, fetched)
			}
		})
	})
}

// TestDownsampling: whatever the length of the points, they have all that was counted in their
// time, the most that went on, and the bytes that were stored last.
func TestDownsampling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMetrics()
		running(t, Options{Directory: t.TempDir(), Gatherer: m}, func(h *History) {
			began := time.Now()
			time.Sleep(30 * time.Second) // halfway between two samples
			const n = 3 * 24 * 60
			const total = int64(n * (n - 1) / 2)
			for minute := range n { // over two midnights
				m.sent.WithLabelValues("hub", "blob", "disk").Add(float64(minute))
				m.pulls.Set(float64(minute % 100))
				m.stored.Set(float64(minute))
				time.Sleep(time.Minute)
			}
			synctest.Wait()
			for _, points := range []int{1, 2, 3, 7, 100, 1000, MaxPoints, 1 << 40} {
				all := h.Series(began, time.Now(), points)
				if len(all.Points) > min(points, MaxPoints)+1 {
					t.Errorf("%d points, and %d were wanted", len(all.Points), points)
				}
				seconds := 0.0
				for _, p := range all.Points {
					seconds += p.Seconds
				}
				if got := sum(all, sentFrom("disk")); got != total || seconds != n*60+30 {
					t.Errorf("%d points have %d bytes of %d, and %v seconds", points, got, total, seconds)
				}
			}
			hours := h.Series(began, began.Add(72*time.Hour), 72)
			if p := hours.Points[1]; hours.Step != 3600 || p.Stored != 119 || p.Pulls != 99 || p.At != began.UTC().Add(time.Hour) {
				t.Errorf("%v %+v", hours.Step, p)
			}
			early := h.Series(began.Add(-48*time.Hour), began.Add(time.Hour), 49)
			if p := early.Points[0]; p.Seconds != 0 || sum(early, sentFrom("disk")) != 59*60/2 {
				t.Errorf("%+v, %d", p, sum(early, sentFrom("disk")))
			}
		})
	})
}

// TestRestarts: what was stored is there after restarts, and what happened while dray did not run
// is a gap.
func TestRestarts(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		for range 3 {
			m := newMetrics()
			running(t, Options{Directory: dir, Gatherer: m}, func(*History) {
				m.uploaded.Add(10)
				time.Sleep(90 * time.Second)
			})
			time.Sleep(90 * time.Second)
		}
		got := Open(Options{Directory: dir, Gatherer: newMetrics()}).Series(time.Now().Add(-9*time.Minute), time.Now(), 9)
		var seconds, uploads []string
		for _, p := range got.Points {
			seconds, uploads = append(seconds, fmt.Sprint(p.Seconds)), append(uploads, fmt.Sprint(p.Uploaded))
		}
		if s, u := strings.Join(seconds, " "), strings.Join(uploads, " "); s != "60 30 0 60 30 0 60 30 0 0" || u != "10 0 0 10 0 0 10 0 0 0" {
			t.Errorf("seconds %s, uploads %s", s, u)
		}
	})
}

// TestDamage: a file that was cut or spoilt, or that another version of dray has written, costs no
// more than what cannot be read, and the next samples can be read.
func TestDamage(t *testing.T) {
	for name, tc := range map[string]struct {
		damage func(text []byte) []byte
		left   int64 // of ten
	}{
		"cut in a sample":    {func(text []byte) []byte { return text[:len(text)-3] }, 9},
		"spoilt in the end":  {func(text []byte) []byte { text[len(text)-6] ^= 1; return text }, 9},
		"followed by zeros":  {func(text []byte) []byte { return append(text, make([]byte, 100)...) }, 10},
		"empty":              {func([]byte) []byte { return nil }, 0},
		"without a header":   {func(text []byte) []byte { return text[bytes.IndexByte(text, '\n')+1:] }, 0},
		"with a huge length": {func(text []byte) []byte { return append(text, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f) }, 10},
		"of a former version": {func(text []byte) []byte {
			return bytes.Replace(text, []byte(`"sent other"`), []byte(`"sent before"`), 1)
		}, 10},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				minutes := func(m metrics, n int) {
					time.Sleep(30 * time.Second) // halfway between two samples
					for range n {
						m.uploaded.Inc()
						time.Sleep(time.Minute)
					}
					synctest.Wait()
				}
				m := newMetrics()
				h := Open(Options{Directory: dir, Gatherer: m})
				ctx, stop := context.WithTimeout(t.Context(), 10*time.Minute+40*time.Second)
				defer stop()
				go func() { _ = h.Run(ctx) }()
				minutes(m, 10)
				file := filepath.Join(dir, "2000-01-01.samples")
				text, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(30 * time.Second) // it writes once more, and ends
				synctest.Wait()
				if err := os.WriteFile(file, tc.damage(text), 0o600); err != nil {
					t.Fatal(err)
				}
				m = newMetrics()
				running(t, Options{Directory: dir, Gatherer: m}, func(h *History) {
					minutes(m, 5)
					all := h.Series(time.Now().Add(-time.Hour), time.Now(), 60)
					if got := sum(all, func(p api.HistoryPoint) int64 { return p.Uploaded }); got != tc.left+5 {
						t.Errorf("%d of %d", got, tc.left+5)
					}
				})
			})
		})
	}
}

// TestUnfinishedRepair: what a repair that was killed has left goes, and no other file.
func TestUnfinishedRepair(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"1999-12-31.samples.new", "notes.new"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) { running(t, Options{Directory: dir, Gatherer: newMetrics()}, func(*History) {}) })
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(left) != 2 || filepath.Base(left[0]) != "2000-01-01.samples" || filepath.Base(left[1]) != "notes.new" {
		t.Errorf("%v %v", left, err)
	}
}

// TestBound: all files together never have more bytes than the bound, and the newest stay.
func TestBound(t *testing.T) {
	dir := t.TempDir()
	const most = 100 << 10
	synctest.Test(t, func(t *testing.T) {
		m := newMetrics()
		running(t, Options{Directory: dir, Gatherer: m, MaxBytes: most}, func(h *History) {
			for range 4 * 24 * 60 {
				m.uploaded.Add(1e9)
				m.fetched.WithLabelValues("hub", "blob").Add(1e12)
				time.Sleep(time.Minute)
				synctest.Wait()
				if size := sizeOf(t, dir); size > most {
					t.Fatalf("%d bytes", size)
				}
			}
			last := h.Series(time.Now().Add(-time.Hour), time.Now(), 60)
			if got := sum(last, func(p api.HistoryPoint) int64 { return p.Uploaded }); got != 60e9 {
				t.Errorf("the last hour has %d", got)
			}
		})
	})
	left, err := os.ReadDir(dir)
	if err != nil || len(left) < 2 || left[0].Name() == "2000-01-01.samples" {
		t.Errorf("%v %v", left, err)
	}
}

func sizeOf(t *testing.T, dir string) (n int64) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		n += info.Size()
	}
	return n
}

// TestSizeOfSamples: there is room for 90 days of minutes in which 100 Gbit/s arrive and
// leave.
func TestSizeOfSamples(t *testing.T) {
	s := sample{at: time.Date(2000, 1, 1, 23, 59, 0, 0, time.UTC)}
	const perMinute = int64(100e9 / 8 * 60)
	s.values[milliseconds], s.values[requests], s.values[hits], s.values[misses] = 60000, 6e6, 6e6, 6e6
	s.values[fetched], s.values[uploaded], s.values[stored] = perMinute, perMinute, 1<<50
	for i := firstSource; i < width; i++ {
		s.values[i] = perMinute / int64(len(sources))
	}
	if size := len(s.append(nil)); int64(size)*60*24*90 > MaxBytes {
		t.Errorf("a sample has %d bytes", size)
	}
}

// TestFull: a directory that cannot be written to costs the samples, is logged once, and nothing
// fails.
func TestFull(t *testing.T) {
	var log bytes.Buffer
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		m := newMetrics()
		running(t, Options{Directory: filepath.Join(file, "history"), Gatherer: m, Logger: slog.New(slog.NewTextHandler(&log, nil))}, func(h *History) {
			time.Sleep(time.Hour + time.Second)
			m.uploaded.Add(5)
			if got := h.Series(time.Now().Add(-time.Hour), time.Now(), 60); sum(got, func(p api.HistoryPoint) int64 { return p.Uploaded }) != 5 {
				t.Errorf("%+v", got)
			}
		})
	})
	if n := strings.Count(log.String(), "a minute is missing"); n != 1 {
		t.Errorf("%d lines:\n%s", n, &log)
	}
}

// TestQuery: the parameters are checked, and have defaults.
func TestQuery(t *testing.T) {
	h := Open(Options{Directory: t.TempDir(), Gatherer: newMetrics()})
	for query, want := range map[string]string{
		"":                          "",
		"points=1":                  "",
		"points=0":                  "points must be a number from 1 to 2000",
		"points=2001":               "points must be a number from 1 to 2000",
		"points=x":                  "points must be a number from 1 to 2000",
		"from=yesterday":            "from must be a time such as 2006-01-02T15:04:05Z",
		"to=today":                  "to must be a time such as 2006-01-02T15:04:05Z",
		"from=2024-01-02T00:00:00Z": "",
		"from=2024-01-02T00:00:00Z&to=2024-01-02T00:00:00Z": "from must be before to",
		"from=0001-01-01T00:00:00Z&to=9999-12-31T23:59:59Z": "",
		"to=2024-01-02T00:00:00%2B02:00&points=24":          "",
	} {
		params, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		got, err := h.Query(t.Context(), params)
		switch {
		case want != "":
			if err == nil || err.Error() != want {
				t.Errorf("%s: %v", query, err)
			}
		case err != nil:
			t.Errorf("%s: %v", query, err)
		case len(got.Points) == 0 || len(got.Points) > MaxPoints+1:
			t.Errorf("%s: %d points", query, len(got.Points))
		}
		if query == "to=2024-01-02T00:00:00%2B02:00&points=24" && (got.Step != 3600 || !got.Points[0].At.Equal(time.Date(2023, 12, 31, 22, 0, 0, 0, time.UTC))) {
			t.Errorf("%v %v", got.Step, got.Points[0].At)
		}
	}
}
