package ledger

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"dray/mirror/savings"
)

// counters are the metrics that the ledger reads.
type counters struct {
	*prometheus.Registry
	sent, fetched, zone, bucket *prometheus.CounterVec
	seconds                     *prometheus.SummaryVec
}

func newCounters() counters {
	vec := func(name string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name}, labels)
	}
	c := counters{
		prometheus.NewRegistry(), vec("dray_response_bytes_total", "upstream", "kind", "source"), vec("dray_upstream_received_bytes_total", "upstream", "kind"),
		vec("dray_fleet_received_bytes_total", "zone"), vec("dray_bucket_requests_total", "operation", "result"),
		prometheus.NewSummaryVec(prometheus.SummaryOpts{Name: "dray_layer_response_seconds"}, []string{"upstream", "source"}),
	}
	c.MustRegister(c.sent, c.fetched, c.zone, c.bucket, c.seconds, vec("dray_requests_total"))
	return c
}

// layer counts a layer that a client got.
func (c counters) layer(source string, size, seconds float64) {
	c.sent.WithLabelValues("hub", "blob", source).Add(size)
	c.seconds.WithLabelValues("hub", source).Observe(seconds)
}

// TestCount: each counter goes to its place, and is counted once.
func TestCount(t *testing.T) {
	c := newCounters()
	l := Open(Options{Directory: t.TempDir(), Gatherer: c})
	c.layer("origin", 100, 2)
	c.layer("origin", 50, 1)
	c.layer("flight", 100, 2)
	c.layer("disk", 100, 0.5)
	c.layer("memory", 10, 0.25)
	c.sent.WithLabelValues("hub", "manifest", "cache").Add(7)
	c.sent.WithLabelValues("hub", "manifest", "origin").Add(7)
	c.fetched.WithLabelValues("hub", "blob").Add(150)
	c.fetched.WithLabelValues("hub", "manifest").Add(7)
	c.zone.WithLabelValues("same").Add(1000)
	c.zone.WithLabelValues("other").Add(30)
	for _, operation := range []string{"get", "head", "put", "create", "part", "complete", "abort"} {
		c.bucket.WithLabelValues(operation, "ok").Inc()
	}
	for range 2 {
		if err := l.Count(); err != nil {
			t.Fatal(err)
		}
	}
	got := l.Last(1)
	want := savings.Traffic{Sent: 374, Fetched: 157, Held: savings.Answers{Number: 2, Bytes: 110, Seconds: 0.75}, Origin: savings.Answers{Number: 2, Bytes: 150, Seconds: 3}}
	if got.Upstreams["hub"] != want {
		t.Errorf("%+v, want %+v", got.Upstreams["hub"], want)
	}
	if got.OtherZoneBytes != 30 || got.BucketReads != 2 || got.BucketWrites != 4 {
		t.Errorf("%+v", got)
	}
	// A registry that a reload has replaced counts from 0 again.
	c.fetched.Reset()
	c.fetched.WithLabelValues("hub", "blob").Add(20)
	if err := l.Count(); err != nil {
		t.Fatal(err)
	}
	if got := l.Last(1).Upstreams["hub"]; got.Fetched != 177 {
		t.Errorf("fetched %v", got.Fetched)
	}
}

// runs runs a ledger for a time, in which something is counted each hour.
func runs(t *testing.T, dir string, length time.Duration, log *bytes.Buffer) *Ledger {
	t.Helper()
	c := newCounters()
	l := Open(Options{Directory: dir, Gatherer: c, Interval: time.Hour, Logger: slog.New(slog.NewTextHandler(log, nil))})
	ctx, stop := context.WithTimeout(t.Context(), length)
	defer stop()
	done := make(chan error)
	go func() { done <- l.Run(ctx) }()
	for range length / time.Hour {
		time.Sleep(30 * time.Minute)
		c.layer("disk", 1, 1)
		time.Sleep(30 * time.Minute)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	return l
}

// TestDays: what was counted is there after a restart, by day, from the first moment on, and there
// are never more than MaxDays.
func TestDays(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a [state]")
	synctest.Test(t, func(t *testing.T) { // it begins at midnight of 2000-01-01
		time.Sleep(12 * time.Hour)
		runs(t, dir, 24*time.Hour, new(bytes.Buffer))
		time.Sleep(24 * time.Hour) // it does not run
		l := runs(t, dir, 24*time.Hour, new(bytes.Buffer))
		for days, want := range map[int]float64{1: 12, 2: 24, 3: 36, 4: 48, 30: 48} {
			got := l.Last(days)
			if got.Upstreams["hub"].Sent != want {
				t.Errorf("%d days have %v, want %v", days, got.Upstreams["hub"], want)
			}
			from := time.Date(2000, 1, 5-min(days, 4), 0, 0, 0, 0, time.UTC)
			if days >= 4 {
				from = from.Add(12 * time.Hour)
			}
			if days == 2 {
				from = from.Add(12 * time.Hour) // it did not run before
			}
			if !got.From.Equal(from) {
				t.Errorf("%d days begin at %s, want %s", days, got.From, from)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "2000-01-02.json"), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, ".new-1"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		l = runs(t, dir, 24*time.Hour, &log)
		if !strings.Contains(log.String(), "2000-01-02.json") {
			t.Errorf("the log has %s", &log)
		}
		if got := l.Last(30).Upstreams["hub"].Sent; got != 60 {
			t.Errorf("%v hours are left", got)
		}
		if hidden, _ := filepath.Glob(filepath.Join(dir, ".*")); len(hidden) != 0 {
			t.Errorf("%q is left", hidden)
		}
	})
}

// past writes the files of the MaxDays days before today. It returns that of the first day.
func past(t *testing.T, dir string) (first string) {
	t.Helper()
	for i := range MaxDays {
		day := time.Now().UTC().AddDate(0, 0, -i-1)
		text := fmt.Sprintf(`{"from": %q, "to": %q, "upstreams": {"hub": {"sent": 1}}}`, day.Format(time.RFC3339), day.Add(time.Hour).Format(time.RFC3339))
		first = filepath.Join(dir, day.Format(dateFormat)+extension)
		if err := os.WriteFile(first, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return first
}

// TestGone: a day that expires needs no file, so the ledger has nothing to complain about, and
// complains when it fails later.
func TestGone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "savings")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		first := past(t, dir)
		var log bytes.Buffer
		l := Open(Options{Directory: dir, Gatherer: newCounters(), Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err := os.Remove(first); err != nil {
			t.Fatal(err)
		}
		l.countAndSave(time.Now())
		if log.Len() > 0 {
			t.Errorf("the log has %s", &log)
		}
		if err := os.Rename(dir, dir+".old"); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir, nil, 0o600); err != nil { // a file in the place of the directory
			t.Fatal(err)
		}
		l.countAndSave(time.Now())
		if !strings.Contains(log.String(), "may be lost") {
			t.Errorf("the log has %q", &log)
		}
	})
}

// TestBound: there are never more than MaxDays files.
func TestBound(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		past(t, dir)
		l := runs(t, dir, 50*time.Hour, new(bytes.Buffer))
		names, err := filepath.Glob(filepath.Join(dir, "*"))
		if len(names) != MaxDays || len(l.days) != MaxDays || err != nil {
			t.Errorf("%d files, %d days, %v", len(names), len(l.days), err)
		}
		if got := l.Last(MaxDays + 100).Upstreams["hub"].Sent; got != MaxDays-3+50 {
			t.Errorf("%v were counted", got)
		}
	})
}

// TestDirectoryFails: without its directory the ledger goes on, and complains once. It writes all
// days when it can.
func TestDirectoryFails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "savings [of] a *")
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // a file in the place of the directory
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		c := newCounters()
		l := Open(Options{Directory: dir, Gatherer: c, Interval: time.Hour, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- l.Run(ctx) }()
		c.layer("disk", 5, 1)
		time.Sleep(49 * time.Hour)
		if n := strings.Count(log.String(), "may be lost"); n != 1 {
			t.Errorf("%d lines:\n%s", n, &log)
		}
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		again := Open(Options{Directory: dir, Gatherer: newCounters()})
		if got := again.Last(3); got.Upstreams["hub"].Sent != 5 || len(again.days) != 3 {
			t.Errorf("%s", fmt.Sprint(got))
		}
	})
}
