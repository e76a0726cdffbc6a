package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"
)

// newest is the entry that a reference means until it is forwarded, or nil. What was refused, or is being dropped, is not
// what the registry will have. Needs mu.
func (q *Queue) newest(upstream, repo, reference string) *entry {
	l := q.lanes[place{upstream, repo}]
	if l == nil {
		return nil
	}
	for _, e := range slices.Backward(l.entries) {
		if e.State != Failed && e.State != dropping && (e.Reference == reference || string(e.Digest) == reference) {
			return e
		}
	}
	return nil
}

// empty says that there are no entries at all, which is the usual case.
func (q *Queue) empty() bool { return q == nil || q.size.Load() == 0 }

// Find returns the push that a tag or digest of a repository means, as long as it waits.
func (q *Queue) Find(upstream, repo, reference string) (Push, bool) {
	if q.empty() {
		return Push{}, false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if e := q.newest(upstream, repo, reference); e != nil {
		return e.Push, true
	}
	return Push{}, false
}

// Pushes lists what waits for a repository, in order.
func (q *Queue) Pushes(upstream, repo string) []Push {
	if q.empty() {
		return nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.lanes[place{upstream, repo}]
	if l == nil {
		return nil
	}
	var all []Push
	for _, e := range l.entries {
		if e.State != Failed && e.State != dropping {
			all = append(all, e.Push)
		}
	}
	return all
}

// Blob returns the size of a blob that a push to a repository needs and brings along, refused ones included: they may be
// tried again. One that could not be held after a restart is not there: clients are to send it anew.
func (q *Queue) Blob(upstream, repo string, d digest.Digest) (size int64, ok bool) {
	if q.empty() {
		return 0, false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.lanes[place{upstream, repo}]
	if h := q.held[d]; l == nil || h == nil || h.release == nil {
		return 0, false
	}
	for _, e := range l.entries {
		for _, b := range e.Blobs {
			if b.Digest == d {
				return b.Size, true
			}
		}
	}
	return 0, false
}

// Tags returns the tags of a repository that wait, in order.
func (q *Queue) Tags(upstream, repo string) []string {
	var tags []string
	for _, p := range q.Pushes(upstream, repo) {
		if p.Reference != string(p.Digest) {
			tags = append(tags, p.Reference)
		}
	}
	slices.Sort(tags)
	return slices.Compact(tags)
}

// List returns all entries in the order in which they were accepted.
func (q *Queue) List() []Entry {
	if q.empty() {
		return nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	all := make([]Entry, 0, len(q.entries))
	for _, e := range q.entries {
		if !e.withdrawn {
			all = append(all, e.Entry)
		}
	}
	slices.SortFunc(all, func(a, b Entry) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// Retry has an entry tried at once: a failed one waits again, and one that waits does so no longer.
// It returns ErrNotFound, ErrOvertaken, ErrBusy, or a failure of the disk.
func (q *Queue) Retry(ctx context.Context, id uint64) error {
	if q == nil {
		return unknown(id)
	}
	if err := q.takeTurn(ctx); err != nil {
		return err
	}
	defer q.freeTurn()
	e, err := q.look(id)
	if err != nil {
		return err
	}
	if e.State == Failed {
		if e.Overtaken {
			return fmt.Errorf("push %d of %s: %w", id, e.Reference, ErrOvertaken)
		}
		if err := q.write(record{Op: opRetry, ID: id}); err != nil {
			return err
		}
	}
	q.mu.Lock()
	if in := q.entries[id]; in != nil && in.State != Forwarding {
		if in.State == Failed {
			in.Error, in.Attempts = "", 0
		}
		in.State, in.Next = Waiting, time.Now()
	}
	q.mu.Unlock()
	q.nudge()
	return nil
}

// Drop gives a push up, and interrupts the attempt that is under way if there is one, as [Queue.Withdraw] does. It returns ErrNotFound, also
// where that attempt has just succeeded, ErrBusy when ctx ends before, or a failure of the disk.
func (q *Queue) Drop(ctx context.Context, id uint64) (Entry, error) {
	at, held := q.placeOf(id)
	if !held {
		return Entry{}, unknown(id)
	}
	w, err := q.takeOut(ctx, at, func(e *entry) bool { return e.ID == id })
	if err != nil {
		return Entry{}, fmt.Errorf("push %d: %w", id, err)
	}
	if len(w.entries) == 0 {
		return Entry{}, fmt.Errorf("%w any more: it was forwarded or dropped just now", unknown(id))
	}
	dropped := w.entries[0].Entry // nobody else changes what is withdrawn
	dropped.State = w.was[0]
	w.Done()
	return dropped, nil
}

// placeOf is where an entry is, if there is one.
func (q *Queue) placeOf(id uint64) (at place, held bool) {
	if q == nil {
		return place{}, false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	e := q.entries[id]
	if e == nil || e.withdrawn {
		return place{}, false
	}
	return place{e.Upstream, e.Repository}, true
}

// look finds an entry that nobody works on.
func (q *Queue) look(id uint64) (Entry, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	e := q.entries[id]
	switch {
	case e == nil || e.withdrawn:
		return Entry{}, unknown(id)
	case e.State == Forwarding:
		return Entry{}, fmt.Errorf("push %d: %w", id, ErrBusy)
	}
	return e.Entry, nil
}

func unknown(id uint64) error { return fmt.Errorf("push %d: %w", id, ErrNotFound) }

// Check reports pushes that were refused, those that have waited for long, and a journal that cannot be written.
func (q *Queue) Check(context.Context) error {
	s := q.stats(time.Now())
	var errs []error
	if s.failed > 0 {
		errs = append(errs, fmt.Errorf("%d acknowledged pushes were refused by their registry: see dray queue", s.failed))
	}
	if s.oldest >= q.opts.Old {
		errs = append(errs, fmt.Errorf("%d acknowledged pushes wait to be forwarded, the oldest for %s; the last error: %s", s.waiting, s.oldest.Round(time.Second), cmp.Or(s.last, "none")))
	}
	if s.torn != nil {
		errs = append(errs, fmt.Errorf("the journal of acknowledged pushes cannot be written: %w", s.torn))
	}
	return errors.Join(errs...)
}

type stats struct {
	waiting, failed int
	bytes           int64
	oldest          time.Duration // of those that wait
	last            string        // error of the oldest
	torn            error
}

func (q *Queue) stats(now time.Time) stats {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := stats{bytes: q.bytes, torn: q.torn}
	for _, e := range q.entries {
		if e.State == Failed {
			s.failed++
			continue
		}
		s.waiting++
		if age := now.Sub(e.Accepted); age > s.oldest {
			s.oldest, s.last = age, e.Error
		}
	}
	return s
}

type metrics struct {
	q         *Queue
	forwarded *prometheus.CounterVec
	entries   *prometheus.Desc
	bytes     *prometheus.Desc
	oldest    *prometheus.Desc
}

func newMetrics(q *Queue) *metrics {
	return &metrics{
		q: q,
		forwarded: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dray_queue_attempts_total",
			Help: "Attempts to forward acknowledged pushes, by upstream and result: landed, refused (for good), failed (tried again)."}, []string{"upstream", "result"}),
		entries: prometheus.NewDesc("dray_queue_pushes", "Acknowledged pushes that are not forwarded, by state: waiting or failed.", []string{"state"}, nil),
		bytes:   prometheus.NewDesc("dray_queue_bytes", "Bytes held for acknowledged pushes.", nil, nil),
		oldest:  prometheus.NewDesc("dray_queue_oldest_seconds", "Age of the oldest push that waits to be forwarded.", nil, nil),
	}
}

// Collectors returns the metrics of the queue.
func (q *Queue) Collectors() []prometheus.Collector {
	return []prometheus.Collector{q.metrics.forwarded, q.metrics}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- m.entries
	ch <- m.bytes
	ch <- m.oldest
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	s := m.q.stats(time.Now())
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(m.entries, float64(s.waiting), string(Waiting))
	gauge(m.entries, float64(s.failed), string(Failed))
	gauge(m.bytes, float64(s.bytes))
	gauge(m.oldest, s.oldest.Seconds())
}
