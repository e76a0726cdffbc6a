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

// all is what the queue has; nil where there is no queue.
func (q *Queue) all() *index {
	if q == nil {
		return nil
	}
	return q.index
}

// Find returns the push that a tag or digest of a repository means, as long as it waits.
func (q *Queue) Find(upstream, repo, reference string) (Push, bool) {
	return q.all().find(upstream, repo, reference)
}

// Pushes lists what waits for a repository, in order.
func (q *Queue) Pushes(upstream, repo string) []Push {
	return q.all().pushes(upstream, repo)
}

// Blob returns the size of a blob that a push to a repository needs and brings along, refused ones included: they may be
// tried again. One that could not be held after a restart is not there: clients are to send it anew.
func (q *Queue) Blob(upstream, repo string, d digest.Digest) (size int64, ok bool) {
	return q.all().blob(upstream, repo, d)
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
	return q.all().list()
}

// Retry has an entry tried at once: a failed one waits again, and one that waits does so no longer.
// It returns ErrNotFound, ErrOvertaken, ErrBusy, or a failure of the disk.
func (q *Queue) Retry(ctx context.Context, id uint64) error {
	if q == nil {
		return unknown(id)
	}
	if err := q.writer.take(ctx); err != nil {
		return err
	}
	defer q.writer.free()
	e, err := q.index.look(id)
	if err != nil {
		return err
	}
	if e.State == Failed {
		if e.Overtaken {
			return fmt.Errorf("push %d of %s: %w", id, e.Reference, ErrOvertaken)
		}
		if err := q.writer.write(record{Op: opRetry, ID: id}); err != nil {
			return err
		}
	}
	q.index.retry(id)
	q.nudge()
	return nil
}

// Drop gives a push up, and interrupts the attempt that is under way if there is one, as [Queue.Withdraw] does. It returns ErrNotFound, also
// where that attempt has just succeeded, ErrBusy when ctx ends before, or a failure of the disk.
func (q *Queue) Drop(ctx context.Context, id uint64) (Entry, error) {
	at, held := q.all().placeOf(id)
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

func unknown(id uint64) error { return fmt.Errorf("push %d: %w", id, ErrNotFound) }

// Check reports pushes that were refused, those that have waited for long, and a journal that cannot be written.
func (q *Queue) Check(context.Context) error {
	s := q.index.stats(time.Now())
	var errs []error
	if s.failed > 0 {
		errs = append(errs, fmt.Errorf("%d acknowledged pushes were refused by their registry: see dray queue", s.failed))
	}
	if s.oldest >= q.opts.Old {
		errs = append(errs, fmt.Errorf("%d acknowledged pushes wait to be forwarded, the oldest for %s; the last error: %s", s.waiting, s.oldest.Round(time.Second), cmp.Or(s.last, "none")))
	}
	if err := q.writer.trouble(); err != nil {
		errs = append(errs, fmt.Errorf("the journal of acknowledged pushes cannot be written: %w", err))
	}
	return errors.Join(errs...)
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
	s := m.q.index.stats(time.Now())
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(m.entries, float64(s.waiting), string(Waiting))
	gauge(m.entries, float64(s.failed), string(Failed))
	gauge(m.bytes, float64(s.bytes))
	gauge(m.oldest, s.oldest.Seconds())
}
