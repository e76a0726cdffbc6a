package queue

import (
	"context"
	"fmt"
	"time"
)

// Withdrawal is a set of pushes that were taken out of the queue. Done removes them for good, and
// Restore puts them back.
type Withdrawal struct {
	q       *Queue
	entries []*entry
	was     []Entry // the entries as they were before
}

// Withdraw takes out the pushes to a repository for which the function match returns true, whether
// they have failed or not. Once Withdraw has succeeded, the journal does not list these pushes,
// look-ups by reference do not find them, and they are not forwarded. Until Done or Restore, the
// queue does not forward later pushes to the repository either. If it did, a push that is restored
// afterwards would move its tag back to an older image. If an attempt to forward one of the pushes
// is under way, Withdraw waits for it, but interrupts it after 300 ms ([grace]). It returns ErrBusy
// if ctx ends during this wait, the cause of ctx if ctx ends before Withdraw has the lock of the
// journal, or an error of the disk.
func (q *Queue) Withdraw(ctx context.Context, upstream, repo string, match func(Push) bool) (*Withdrawal, error) {
	return q.takeOut(ctx, repoKey{upstream, repo}, func(e *entry) bool { return match(e.Push) })
}

// takeOut is like Withdraw, but its function match gets an entry.
func (q *Queue) takeOut(ctx context.Context, at repoKey, match func(*entry) bool) (*Withdrawal, error) {
	for {
		w, busy, err := q.withdraw(ctx, at, match)
		if busy == nil {
			return w, err
		}
		late := time.NewTimer(grace)
		select {
		case <-busy.ended:
		case <-late.C:
			q.index.interruptAttempt(busy)
		case <-ctx.Done():
			err = fmt.Errorf("%w: %w", ErrBusy, context.Cause(ctx))
		}
		if late.Stop(); err != nil {
			return nil, err
		}
	}
}

// grace is how long an attempt under way may continue before it is interrupted. A manifest that is
// being sent usually gets its answer within this time. If the attempt were interrupted at once, the
// registry might still accept the manifest afterwards.
const grace = 300 * time.Millisecond

// withdraw makes one try of takeOut. If one of the entries is being forwarded, it changes nothing
// and returns the attempt as busy.
func (q *Queue) withdraw(ctx context.Context, at repoKey, match func(*entry) bool) (w *Withdrawal, busy *attempt, err error) {
	if err := q.writer.lock(ctx); err != nil {
		return nil, nil, err
	}
	defer q.writer.unlock()
	w = &Withdrawal{q: q}
	for _, e := range q.index.entriesOf(at) { // no entry is finished while the lock is held
		if match(e) {
			w.entries = append(w.entries, e)
		}
	}
	if w.was, busy = q.index.markWithdrawn(w.entries); busy != nil {
		return nil, busy, nil
	}
	for _, e := range w.entries {
		if err == nil {
			err = q.writer.write(record{Op: opDone, ID: e.ID})
		}
	}
	if err == nil {
		err = q.writer.catchUp() // finished entries that the journal still lists must not come back at the next start
	}
	if err != nil {
		q.index.unmarkWithdrawn(w.entries, w.was)
		q.nudge()              // Run may have found nothing to forward meanwhile
		_ = q.writer.rewrite() // the journal may list some of the entries as done
		return nil, nil, fmt.Errorf("queue: %w", err)
	}
	return w, nil, nil
}

// Pushes lists the pushes that were taken out.
func (w *Withdrawal) Pushes() []Push {
	var all []Push
	for _, e := range w.entries {
		all = append(all, e.Push)
	}
	return all
}

// Done removes the pushes for good.
func (w *Withdrawal) Done() {
	if len(w.entries) == 0 {
		return
	}
	for _, release := range w.q.index.remove(w.entries) {
		release()
	}
	w.q.nudge()
}

// Restore puts the pushes back in their old places in the queue. If the journal cannot be written
// before the process ends, the pushes are lost.
func (w *Withdrawal) Restore() {
	if len(w.entries) == 0 {
		return
	}
	_ = w.q.writer.lock(context.Background()) // this context does not end
	defer w.q.writer.unlock()
	w.q.index.unmarkWithdrawn(w.entries, w.was)
	if err := w.q.writer.rewrite(); err != nil {
		w.q.log.Error("cannot write the journal of pushes", "restored", len(w.entries), "error", err)
	}
	w.q.nudge()
}
