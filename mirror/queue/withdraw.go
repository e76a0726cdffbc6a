package queue

import (
	"context"
	"fmt"
	"time"
)

// Withdrawal are pushes that were taken out, as long as it is open what becomes of them: Done or
// Restore ends it.
type Withdrawal struct {
	q       *Queue
	entries []*entry
	was     []State
}

// Withdraw takes the pushes to a repository out that which picks, refused ones included: when it
// returns, they are not forwarded, not shown under their references, and unknown to a process that
// begins later. One that is just being forwarded may arrive within grace, or else is interrupted.
// It returns ErrBusy when ctx ends before all that, or a failure of the disk.
func (q *Queue) Withdraw(ctx context.Context, upstream, repo string, which func(Push) bool) (*Withdrawal, error) {
	return q.takeOut(ctx, repoKey{upstream, repo}, func(e *entry) bool { return which(e.Push) })
}

// takeOut is Withdraw for entries.
func (q *Queue) takeOut(ctx context.Context, at repoKey, which func(*entry) bool) (*Withdrawal, error) {
	for {
		w, busy, err := q.withdraw(ctx, at, which)
		if busy == nil {
			return w, err
		}
		late := time.NewTimer(grace)
		select {
		case <-busy.attempt:
		case <-late.C:
			q.index.stop(busy)
		case <-ctx.Done():
			err = fmt.Errorf("%w: %w", ErrBusy, context.Cause(ctx))
		}
		if late.Stop(); err != nil {
			return nil, err
		}
	}
}

// grace is what an attempt under way gets to end by itself. One that is interrupted while its
// manifest is on the line might arrive later.
const grace = 300 * time.Millisecond

// withdraw is one try of Withdraw: busy is what is just being forwarded.
func (q *Queue) withdraw(ctx context.Context, at repoKey, which func(*entry) bool) (w *Withdrawal, busy *entry, err error) {
	if err := q.writer.lock(ctx); err != nil {
		return nil, nil, err
	}
	defer q.writer.unlock()
	w = &Withdrawal{q: q}
	for _, e := range q.index.in(at) { // none leaves while the turn is taken
		if which(e) {
			w.entries = append(w.entries, e)
		}
	}
	if w.was, busy = q.index.take(w.entries); busy != nil {
		return nil, busy, nil
	}
	for _, e := range w.entries {
		if err == nil {
			err = q.writer.write(record{Op: opDone, ID: e.ID})
		}
	}
	if err == nil {
		err = q.writer.catchUp() // what was forwarded, and could not be struck out, is not to come back either
	}
	if err != nil {
		q.index.giveBack(w.entries, w.was)
		_ = q.writer.rewrite() // some of them may be gone in it
		return nil, nil, fmt.Errorf("queue: %w", err)
	}
	return w, nil, nil
}

// Pushes are what was taken out.
func (w *Withdrawal) Pushes() []Push {
	var all []Push
	for _, e := range w.entries {
		all = append(all, e.Push)
	}
	return all
}

// Done gives the pushes up.
func (w *Withdrawal) Done() {
	if len(w.entries) == 0 {
		return
	}
	for _, release := range w.q.index.remove(w.entries) {
		release()
	}
	w.q.nudge()
}

// Restore puts the pushes back to where they were. Should the disk not take that, a process that
// ends before it does has lost them.
func (w *Withdrawal) Restore() {
	if len(w.entries) == 0 {
		return
	}
	_ = w.q.writer.lock(context.Background()) // which does not end
	defer w.q.writer.unlock()
	w.q.index.giveBack(w.entries, w.was)
	if err := w.q.writer.rewrite(); err != nil {
		w.q.log.Error("the journal of pushes cannot be written", "pushes restored", len(w.entries), "error", err)
	}
	w.q.nudge()
}
