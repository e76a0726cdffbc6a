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
	// mendEvery is how often a journal that cannot be written is tried anew.
	mendEvery = 5 * time.Second
)

// Forward brings an entry to its registry. An error that wraps ErrRefused ends the attempts, any other one is followed by
// a further attempt. It may be called again for what it has done.
type Forward func(ctx context.Context, e Entry) error

// Run forwards until ctx ends: one push of a repository at a time, and so many repositories at a time as the options say.
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
		mend := q.mend(ctx)
		e, wait := q.next(time.Now())
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

// next takes the entry that has been due for the longest, or says how long nothing will be. Its lane is then busy.
func (q *Queue) next(now time.Time) (*entry, time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var first *entry
	for _, l := range q.lanes {
		if e := l.head(); e != nil && !l.busy && (first == nil || e.due().Before(first.due())) {
			first = e
		}
	}
	if first == nil {
		return nil, lastPause
	}
	if wait := first.due().Sub(now); wait > 0 {
		return nil, wait
	}
	first.State, first.attempt = Forwarding, make(chan struct{})
	q.lanes[place{first.Upstream, first.Repository}].busy = true
	return first, 0
}

// head is the entry whose turn it is, or nil. Failed ones are passed over, and those that are being dropped.
func (l *lane) head() *entry {
	for _, e := range l.entries {
		if e.State != Failed && e.State != dropping {
			return e
		}
	}
	return nil
}

func (e *entry) due() time.Time {
	if e.Next.IsZero() {
		return e.Accepted
	}
	return e.Next
}

// try makes one attempt and settles what becomes of the entry.
func (q *Queue) try(ctx context.Context, forward Forward, e *entry) {
	own, cancel := context.WithCancel(ctx)
	defer cancel()
	q.mu.Lock()
	e.Attempts++
	e.interrupt = cancel
	attempt := e.Entry
	q.mu.Unlock()
	err := forward(own, attempt)
	who := []any{"push", e.ID, "upstream", e.Upstream, "repository", e.Repository, "reference", e.Reference, "digest", e.Digest, "user", e.User, "attempts", attempt.Attempts}
	switch {
	case err == nil:
		q.metrics.forwarded.WithLabelValues(e.Upstream, "landed").Inc()
		q.log.Info("acknowledged push forwarded", append(who, "age", time.Since(e.Accepted).Round(time.Millisecond))...)
		q.finish(e)
	case ctx.Err() != nil:
		q.again(e, time.Now(), "")
	case own.Err() != nil: // who has interrupted it is about to take it out
		q.again(e, time.Now().Add(firstPause), "")
	case errors.Is(err, ErrRefused):
		q.metrics.forwarded.WithLabelValues(e.Upstream, "refused").Inc()
		q.log.Error("acknowledged push refused by its registry: see dray queue", append(who, "error", err)...)
		q.fail(e, err.Error())
	default:
		q.metrics.forwarded.WithLabelValues(e.Upstream, "failed").Inc()
		pause := pauseAfter(attempt.Attempts)
		q.log.Warn("acknowledged push not forwarded yet", append(who, "again", pause.Round(time.Millisecond), "error", err)...)
		q.again(e, time.Now().Add(pause), err.Error())
	}
}

// Trouble says what keeps an attempt under way from getting on. An attempt may go on for long, and who looks meanwhile is to see why.
func (q *Queue) Trouble(id uint64, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if e := q.entries[id]; e != nil && e.State == Forwarding {
		e.Error = err.Error()
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

// again lets an entry wait.
func (q *Queue) again(e *entry, next time.Time, why string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	e.State, e.Next = Waiting, next
	if why != "" {
		e.Error = why
	}
	q.stopped(e)
}

// stopped ends an attempt. Needs mu.
func (q *Queue) stopped(e *entry) {
	q.lanes[place{e.Upstream, e.Repository}].busy = false
	close(e.attempt)
}

// finish takes out what is forwarded. Where that cannot be written down now, and the process ends before it can, the push
// is forwarded again by a later one, which the registry takes for a repetition.
func (q *Queue) finish(e *entry) {
	var releases []func()
	q.settle(record{Op: opDone, ID: e.ID}, func() {
		q.stopped(e)
		releases = q.leave(e)
	})
	for _, release := range releases {
		release()
	}
}

// fail keeps what the registry refuses, for somebody to look at.
func (q *Queue) fail(e *entry, why string) {
	q.mu.Lock()
	attempts := e.Attempts
	q.mu.Unlock()
	q.settle(record{Op: opFailed, ID: e.ID, Error: why, Attempts: attempts}, func() {
		e.State, e.Error = Failed, why
		q.stopped(e)
	})
}

// settle writes what an attempt has come to, and then does it in memory. Before, the entry is one that is being forwarded:
// who retries or drops it would write to the journal what this record takes back. Run has no caller to tell of a failure,
// and what has happened has happened: the journal then is behind, and is written anew before any record follows.
func (q *Queue) settle(r record, do func()) {
	q.turn <- struct{}{}
	defer q.freeTurn()
	err := q.journal.append(r, q.snapshot)
	if err != nil {
		q.log.Error("the journal of pushes cannot be written", "record", r.Op, "push", r.ID, "error", err)
	}
	q.settled(err)
	q.mu.Lock()
	defer q.mu.Unlock()
	do()
}

// mend writes the journal anew where the last try to write to it has failed. It returns when to look again.
func (q *Queue) mend(ctx context.Context) time.Duration {
	q.mu.Lock()
	torn := q.torn != nil
	q.mu.Unlock()
	switch since := time.Since(q.tried); {
	case !torn:
		return lastPause
	case since < mendEvery:
		return mendEvery - since
	}
	q.tried = time.Now()
	if q.takeTurn(ctx) != nil {
		return lastPause
	}
	defer q.freeTurn()
	if !q.journal.broken {
		return lastPause // somebody else has done it
	}
	err := q.journal.rewrite(q.snapshot())
	q.tore(err)
	if err != nil {
		q.log.Error("the journal of pushes cannot be written anew", "error", err)
		return mendEvery
	}
	return lastPause
}
