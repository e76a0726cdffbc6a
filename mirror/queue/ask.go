package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Tags returns the sorted tags of a repository's pushes that wait or are being forwarded.
func (q *Queue) Tags(upstream, repo string) []string {
	var tags []string
	for _, p := range q.Pushes(upstream, repo) {
		if p.tagged() {
			tags = append(tags, p.Reference)
		}
	}
	slices.Sort(tags)
	return slices.Compact(tags)
}

// Retry makes an entry due at once. It ends the pause after an error, and puts a failed entry back
// into the state Waiting. It returns ErrNotFound, ErrOvertaken, ErrBusy, the cause of ctx, or a
// disk error.
func (q *Queue) Retry(ctx context.Context, id uint64) error {
	if err := q.writer.lock(ctx); err != nil {
		return err
	}
	defer q.writer.unlock()
	e, err := q.index.idle(id)
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

// Overtake records that a push of a tag has reached the registry without the queue. All pushes of
// the tag that are now in the queue are older. If one of them has failed, Retry refuses it.
func (q *Queue) Overtake(upstream, repo, tag string) {
	if !q.Has(upstream, repo) {
		return
	}
	_ = q.writer.lock(context.Background()) // this context does not end
	defer q.writer.unlock()
	if q.index.overtake(repoKey{upstream, repo}, tag, math.MaxUint64) {
		if err := q.writer.rewrite(); err != nil {
			q.log.Error("cannot write the journal of pushes", "upstream", upstream, "repository", repo, "reference", tag, "error", err)
		}
	}
}

// Drop removes a push. If the push is being forwarded, Drop first waits for the attempt to end, but
// interrupts it after a while, as [Queue.Withdraw] does. It returns ErrNotFound if the queue does
// not have the push, or has just forwarded it. It also returns the errors of Withdraw.
func (q *Queue) Drop(ctx context.Context, id uint64) (Entry, error) {
	at, held := q.index.repoOf(id)
	if !held {
		return Entry{}, unknown(id)
	}
	w, err := q.takeOut(ctx, at, func(e *entry) bool { return e.ID == id })
	if err != nil {
		return Entry{}, fmt.Errorf("push %d: %w", id, err)
	}
	if len(w.entries) == 0 {
		return Entry{}, fmt.Errorf("%w: it was just forwarded or dropped", unknown(id))
	}
	w.Done()
	return w.was[0], nil
}

func unknown(id uint64) error { return fmt.Errorf("push %d: %w", id, ErrNotFound) }

// Check returns an error if there are failed pushes, pushes older than Options.Old, or a journal
// that could not be written.
func (q *Queue) Check(context.Context) error {
	s := q.index.stats(time.Now())
	var errs []error
	if s.failed > 0 {
		errs = append(errs, fmt.Errorf("registries refused %d acknowledged pushes; dray queue lists them", s.failed))
	}
	if s.oldest >= q.opts.Old {
		errs = append(errs, fmt.Errorf("%d acknowledged pushes are not forwarded yet, the oldest for %s; last error: %s", s.waiting, s.oldest.Round(time.Second), cmp.Or(s.lastError, "none")))
	}
	if err := q.writer.failure(); err != nil {
		errs = append(errs, fmt.Errorf("cannot write the journal of acknowledged pushes: %w", err))
	}
	return errors.Join(errs...)
}

// Collectors returns the metrics of the queue.
func (q *Queue) Collectors() []prometheus.Collector {
	pushes := prometheus.NewDesc("dray_queue_pushes", "Acknowledged pushes that dray has not forwarded, by state: waiting or failed.", []string{"state"}, nil)
	bytes := prometheus.NewDesc("dray_queue_bytes", "Bytes that dray holds for acknowledged pushes.", nil, nil)
	oldest := prometheus.NewDesc("dray_queue_oldest_seconds", "Age in seconds of the oldest push that waits to be forwarded.", nil, nil)
	return []prometheus.Collector{q.forwarded, prometheus.CollectorFunc(func(ch chan<- prometheus.Metric) {
		s := q.index.stats(time.Now())
		ch <- prometheus.MustNewConstMetric(pushes, prometheus.GaugeValue, float64(s.waiting), string(Waiting))
		ch <- prometheus.MustNewConstMetric(pushes, prometheus.GaugeValue, float64(s.failed), string(Failed))
		ch <- prometheus.MustNewConstMetric(bytes, prometheus.GaugeValue, float64(s.bytes))
		ch <- prometheus.MustNewConstMetric(oldest, prometheus.GaugeValue, s.oldest.Seconds())
	})}
}
