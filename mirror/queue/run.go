package queue

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"
)

// A push that fails is tried again for ever, at first after a second and in the end every minute.
const (
	firstPause = time.Second
	lastPause  = time.Minute
)

// Forward brings an entry to its registry. An error that wraps ErrRefused ends the attempts, any
// other one is followed by a further attempt. It may be called again for what it has done.
type Forward func(ctx context.Context, e Entry) error

// Run forwards until ctx ends: one push of a repository at a time, and so many repositories at a
// time as the options say.
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
		mend := q.writer.mend(ctx)
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
		timer.Reset(min(wait, mend))
		select {
		case <-ctx.Done():
		case <-q.wake:
		case <-timer.C:
		}
	}
	return nil
}

// try makes one attempt and settles what becomes of the entry.
func (q *Queue) try(ctx context.Context, forward Forward, e *entry) {
	own, cancel := context.WithCancel(ctx)
	defer cancel()
	attempt := q.index.begin(e, cancel)
	err := forward(own, attempt)
	who := []any{"push", e.ID, "upstream", e.Upstream, "repository", e.Repository, "reference", e.Reference, "digest", e.Digest, "user", e.User, "attempts", attempt.Attempts}
	switch {
	case err == nil:
		q.forwarded.WithLabelValues(e.Upstream, "forwarded").Inc()
		q.log.Info("acknowledged push forwarded", append(who, "age", time.Since(e.Accepted).Round(time.Millisecond))...)
		q.finish(e)
	case ctx.Err() != nil:
		q.index.again(e, time.Now(), "")
	case own.Err() != nil: // who has interrupted it is about to take it out
		q.index.again(e, time.Now().Add(firstPause), "")
	case errors.Is(err, ErrRefused):
		q.forwarded.WithLabelValues(e.Upstream, "refused").Inc()
		q.log.Error("acknowledged push refused by its registry: see dray queue", append(who, "error", err)...)
		q.fail(e, attempt.Attempts, err.Error())
	default:
		q.forwarded.WithLabelValues(e.Upstream, "failed").Inc()
		pause := pauseAfter(attempt.Attempts)
		q.log.Warn("acknowledged push not forwarded yet", append(who, "retry_in", pause.Round(time.Millisecond), "error", err)...)
		q.index.again(e, time.Now().Add(pause), err.Error())
	}
}

// pauseAfter is how long to wait after so many attempts, with a fifth of chance in it.
func pauseAfter(attempts int) time.Duration {
	d := lastPause
	if n := attempts - 1; n < 10 {
		d = min(d, firstPause<<n)
	}
	return d - rand.N(d/5)
}

// finish takes out what is forwarded. Where that cannot be written down now, and the process ends
// before it can, the push is forwarded again by a later one, which the registry takes for a
// repetition.
func (q *Queue) finish(e *entry) {
	var releases []func()
	q.conclude(record{Op: opDone, ID: e.ID}, func() { releases = q.index.finish(e) })
	for _, release := range releases {
		release()
	}
}

// fail keeps what the registry refuses, for somebody to look at.
func (q *Queue) fail(e *entry, attempts int, why string) {
	q.conclude(record{Op: opFailed, ID: e.ID, Error: why, Attempts: attempts}, func() { q.index.fail(e, why) })
}

// conclude writes what an attempt has come to, and then does it in memory. Before, the entry is one
// that is being forwarded: who retries or drops it would write to the journal what this record
// takes back. Run has no caller to tell of a failure, and what has happened has happened: the
// journal then is behind, and is written anew before any record follows.
func (q *Queue) conclude(r record, do func()) {
	_ = q.writer.lock(context.Background()) // which does not end
	defer q.writer.unlock()
	err := q.writer.write(r)
	if err != nil {
		q.log.Error("the journal of pushes cannot be written", "record", r.Op, "push", r.ID, "error", err)
	}
	q.writer.behind(err)
	do()
}
