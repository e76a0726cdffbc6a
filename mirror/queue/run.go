package queue

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"
)

// firstPause is the pause after the first attempt that failed without a refusal. Each further pause
// is twice as long, up to lastPause.
const (
	firstPause = time.Second
	lastPause  = time.Minute
)

// Forward forwards an entry to its registry. After an error that wraps ErrRefused, there are no
// further attempts unless an operator retries the push. After any other error, there is another
// attempt. Forward may be called again for an entry that it has already forwarded.
type Forward func(ctx context.Context, e Entry) error

// Run forwards pushes until ctx ends. It forwards to at most Options.Parallel repositories at a
// time, and one push at a time to each repository. When ctx has ended, Run waits for the attempts
// under way. It always returns nil.
func (q *Queue) Run(ctx context.Context, forward Forward) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, q.opts.Parallel)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		repairIn := q.writer.repair(ctx)
		e, wait := q.index.next(time.Now())
		if e != nil {
			wg.Go(func() {
				q.try(ctx, forward, e)
				<-slots
				q.nudge()
			})
			continue
		}
		<-slots
		timer.Reset(min(wait, repairIn))
		select {
		case <-ctx.Done():
		case <-q.wake:
		case <-timer.C:
		}
	}
	return nil
}

// try makes one attempt to forward an entry, and records the result.
func (q *Queue) try(ctx context.Context, forward Forward, e *entry) {
	own, cancel := context.WithCancel(ctx)
	defer cancel()
	attempt := q.index.begin(e, cancel)
	err := forward(own, attempt)
	who := []any{"push", e.ID, "upstream", e.Upstream, "repository", e.Repository, "reference", e.Reference, "digest", e.Digest, "user", e.User, "attempts", attempt.Attempts}
	switch {
	case err == nil:
		q.forwarded.WithLabelValues(e.Upstream, "forwarded").Inc()
		q.log.Info("forwarded acknowledged push", append(who, "age", time.Since(e.Accepted).Round(time.Millisecond))...)
		q.finish(e)
	case ctx.Err() != nil:
		q.index.requeue(e, time.Now(), "")
	case own.Err() != nil: // interrupted: Withdraw is about to take the entry out
		q.index.requeue(e, time.Now().Add(firstPause), "")
	case errors.Is(err, ErrRefused):
		q.forwarded.WithLabelValues(e.Upstream, "refused").Inc()
		q.log.Error("registry refused acknowledged push; see dray queue", append(who, "error", err)...)
		q.fail(e, attempt.Attempts, err.Error())
	default:
		q.forwarded.WithLabelValues(e.Upstream, "failed").Inc()
		pause := pauseAfter(attempt.Attempts)
		q.log.Warn("acknowledged push not forwarded, retrying", append(who, "retry_in", pause.Round(time.Millisecond), "error", err)...)
		q.index.requeue(e, time.Now().Add(pause), err.Error())
	}
}

// pauseAfter returns the pause after a number of failed attempts. The pause is shortened at random
// by up to a fifth.
func pauseAfter(attempts int) time.Duration {
	d := lastPause
	if n := attempts - 1; n < 10 {
		d = min(d, firstPause<<n)
	}
	return d - rand.N(d/5)
}

// finish removes a forwarded entry. If the journal cannot be written before the process ends, the
// next process forwards the push again, which the registry accepts as a repetition.
func (q *Queue) finish(e *entry) {
	var releases []func()
	q.conclude(e, record{Op: opDone, ID: e.ID}, func() { releases = q.index.finish(e) })
	for _, release := range releases {
		release()
	}
}

// fail marks an entry as refused by its registry. An operator then has to retry or drop it.
func (q *Queue) fail(e *entry, attempts int, why string) {
	q.conclude(e, record{Op: opFailed, ID: e.ID, Error: why, Attempts: attempts}, func() { q.index.fail(e, why) })
}

// conclude writes r, the result of an attempt at e, to the journal. Then it calls apply, which
// changes the index. Until the index changes, the entry counts as being forwarded, so no Retry or
// Drop can write a record that contradicts r. conclude calls apply even if the write fails. The
// journal is then behind the index, and is rewritten before any further record.
func (q *Queue) conclude(e *entry, r record, apply func()) {
	_ = q.writer.lock(context.Background()) // this context does not end
	defer q.writer.unlock()
	if r.Op == opDone && q.index.overtake(repoKey{e.Upstream, e.Repository}, e.Reference, e.ID) {
		// The index now marks the older pushes of this tag as overtaken. The record r does not say so,
		// but a journal that is rewritten from the index does. If the rewrite fails, q.writer.write below
		// repeats it before it writes r.
		_ = q.writer.rewrite()
	}
	err := q.writer.write(r)
	if err != nil {
		q.log.Error("cannot write the journal of pushes", "record", r.Op, "push", r.ID, "error", err)
	}
	q.writer.setBehind(err)
	apply()
}
