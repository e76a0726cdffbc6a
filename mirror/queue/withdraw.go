package queue

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Withdrawal are pushes that were taken out, as long as it is open what becomes of them: Done or Restore ends it.
type Withdrawal struct {
	q       *Queue
	entries []*entry
	was     []State
}

// Withdraw takes the pushes to a repository out that which picks, refused ones included: when it returns, they are
// not forwarded, not shown under their references, and unknown to a process that begins later. One that is just being forwarded may arrive
// within grace, or else is interrupted. It returns ErrBusy when ctx ends before all that, or a failure of the disk.
func (q *Queue) Withdraw(ctx context.Context, upstream, repo string, which func(Push) bool) (*Withdrawal, error) {
	if q == nil {
		return &Withdrawal{}, nil
	}
	return q.takeOut(ctx, place{upstream, repo}, func(e *entry) bool { return which(e.Push) })
}

// takeOut is Withdraw for entries.
func (q *Queue) takeOut(ctx context.Context, at place, which func(*entry) bool) (*Withdrawal, error) {
	for {
		w, busy, err := q.withdraw(ctx, at, which)
		if busy == nil {
			return w, err
		}
		late := time.NewTimer(grace)
		select {
		case <-busy.attempt:
		case <-late.C:
			q.stop(busy)
		case <-ctx.Done():
			err = fmt.Errorf("%w: %w", ErrBusy, context.Cause(ctx))
		}
		if late.Stop(); err != nil {
			return nil, err
		}
	}
}

// grace is what an attempt under way gets to end by itself. One that is interrupted while its manifest is on the line might arrive later.
const grace = 300 * time.Millisecond

// stop interrupts an attempt.
func (q *Queue) stop(e *entry) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if e.State == Forwarding && e.interrupt != nil {
		e.interrupt()
	}
}

// withdraw is one try of Withdraw: busy is what is just being forwarded.
func (q *Queue) withdraw(ctx context.Context, at place, which func(*entry) bool) (w *Withdrawal, busy *entry, err error) {
	if err := q.takeTurn(ctx); err != nil {
		return nil, nil, err
	}
	defer q.freeTurn()
	w = &Withdrawal{q: q}
	for _, e := range q.in(at) { // none leaves while the turn is taken
		if which(e) {
			w.entries = append(w.entries, e)
		}
	}
	if busy := w.take(); busy != nil {
		return nil, busy, nil
	}
	for _, e := range w.entries {
		if err == nil {
			err = q.write(record{Op: opDone, ID: e.ID})
		}
	}
	if err == nil && q.journal.broken {
		err = q.journal.rewrite(q.snapshot()) // what was forwarded, and could not be struck out, is not to come back either
		q.tore(err)
	}
	if err != nil {
		w.giveBack()
		q.settled(q.journal.rewrite(q.snapshot())) // some of them may be gone in it
		return nil, nil, fmt.Errorf("queue: %w", err)
	}
	return w, nil, nil
}

// in lists the entries of a repository in their order, without those that somebody else has withdrawn.
func (q *Queue) in(at place) []*entry {
	q.mu.Lock()
	defer q.mu.Unlock()
	if l := q.lanes[at]; l != nil {
		return slices.DeleteFunc(slices.Clone(l.entries), func(e *entry) bool { return e.withdrawn })
	}
	return nil
}

// take takes the entries out of their turns, or returns one that is being forwarded.
func (w *Withdrawal) take() (busy *entry) {
	w.q.mu.Lock()
	defer w.q.mu.Unlock()
	for _, e := range w.entries {
		if e.State == Forwarding {
			return e
		}
	}
	for _, e := range w.entries {
		w.was = append(w.was, e.State)
		e.State, e.withdrawn = dropping, true
	}
	return nil
}

// giveBack undoes take.
func (w *Withdrawal) giveBack() {
	w.q.mu.Lock()
	defer w.q.mu.Unlock()
	for i, e := range w.entries {
		e.State, e.withdrawn = w.was[i], false
	}
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
	var releases []func()
	w.q.mu.Lock()
	for _, e := range w.entries {
		releases = append(releases, w.q.leave(e)...)
	}
	w.q.mu.Unlock()
	for _, release := range releases {
		release()
	}
	w.q.nudge()
}

// Restore puts the pushes back to where they were. Should the disk not take that, a process that ends before it does has lost them.
func (w *Withdrawal) Restore() {
	if len(w.entries) == 0 {
		return
	}
	w.q.turn <- struct{}{}
	defer w.q.freeTurn()
	w.giveBack()
	err := w.q.journal.rewrite(w.q.snapshot())
	if err != nil {
		w.q.log.Error("the journal of pushes cannot be written", "pushes restored", len(w.entries), "error", err)
	}
	w.q.settled(err)
	w.q.nudge()
}
