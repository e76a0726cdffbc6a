package flight

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Jobs is a bounded queue of work that nobody waits for. One worker does one job after the other,
// and a job that cannot be done yet is tried again later. A job that finds no room is lost, and so
// are those that are still to be done when the worker ends.
type Jobs[T any] struct {
	limit int
	wake  chan struct{} // tells the worker of something to do; capacity 1

	mu      sync.Mutex // guards what follows
	fresh   []Job[T]   // in the order in which they came
	later   []Job[T]
	current *running[T] // what the worker does now; nil: nothing
}

// Job is one piece of work.
type Job[T any] struct {
	Value T
	tries int // how often it was put off
	due   time.Time
}

// running is a job that is being done.
type running[T any] struct {
	value   T
	cancel  context.CancelFunc
	done    chan struct{}
	dropped bool
}

// NewJobs returns a queue with room for limit new jobs, and for as many that are tried again.
func NewJobs[T any](limit int) *Jobs[T] {
	return &Jobs[T]{limit: limit, wake: make(chan struct{}, 1)}
}

// Add queues a job and reports whether there was room. It never waits.
func (j *Jobs[T]) Add(value T) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.fresh) >= j.limit {
		return false
	}
	j.fresh = append(j.fresh, Job[T]{Value: value})
	select {
	case j.wake <- struct{}{}:
	default:
	}
	return true
}

// Run is the worker: it calls do for each job until ctx ends.
func (j *Jobs[T]) Run(ctx context.Context, do func(context.Context, Job[T])) {
	t := time.NewTimer(time.Hour)
	defer t.Stop()
	for ctx.Err() == nil {
		one, wait := j.next(time.Now())
		if one != nil {
			j.one(ctx, *one, do)
			continue
		}
		t.Reset(wait)
		select {
		case <-ctx.Done():
		case <-j.wake:
		case <-t.C:
		}
	}
}

// next takes the job that is due, or says for how long none will be.
func (j *Jobs[T]) next(now time.Time) (*Job[T], time.Duration) {
	j.mu.Lock()
	defer j.mu.Unlock()
	wait, first := time.Hour, -1
	for i, one := range j.later {
		if left := one.due.Sub(now); left < wait {
			wait, first = left, i
		}
	}
	switch {
	case first >= 0 && wait <= 0:
		one := j.later[first]
		j.later = slices.Delete(j.later, first, first+1)
		return &one, 0
	case len(j.fresh) > 0:
		one := j.fresh[0]
		j.fresh = slices.Delete(j.fresh, 0, 1)
		return &one, 0
	}
	return nil, wait
}

// one does one job.
func (j *Jobs[T]) one(ctx context.Context, one Job[T], do func(context.Context, Job[T])) {
	own, cancel := context.WithCancel(ctx)
	defer cancel()
	now := &running[T]{value: one.Value, cancel: cancel, done: make(chan struct{})}
	j.mu.Lock()
	j.current = now
	j.mu.Unlock()
	do(own, one)
	j.mu.Lock()
	j.current = nil
	j.mu.Unlock()
	close(now.done)
}

// Retry has a job done again after the next of its pauses. It reports false when there is no pause
// left, or no room. Only the worker may call it.
func (j *Jobs[T]) Retry(one Job[T], pauses []time.Duration) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.current != nil && j.current.dropped {
		return true // nobody wants it any more
	}
	if one.tries >= len(pauses) || len(j.later) >= j.limit {
		return false
	}
	one.due = time.Now().Add(pauses[one.tries])
	one.tries++
	j.later = append(j.later, one)
	return true
}

// Drop removes the jobs that which picks and returns them. A job that is being done is cancelled,
// and Drop returns after it has ended, or when ctx ends.
func (j *Jobs[T]) Drop(ctx context.Context, which func(T) bool) (dropped []T) {
	j.mu.Lock()
	picked := func(one Job[T]) bool {
		if !which(one.Value) {
			return false
		}
		dropped = append(dropped, one.Value)
		return true
	}
	j.fresh, j.later = slices.DeleteFunc(j.fresh, picked), slices.DeleteFunc(j.later, picked)
	now := j.current
	if now != nil && which(now.value) {
		now.dropped = true
		dropped = append(dropped, now.value)
	} else {
		now = nil
	}
	j.mu.Unlock()
	if now != nil {
		now.cancel()
		select {
		case <-now.done:
		case <-ctx.Done():
		}
	}
	return dropped
}
