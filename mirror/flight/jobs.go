package flight

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Jobs is a bounded queue of background work. One worker does one job after the other, and may
// retry a job later. A job is lost if the queue is full, or if the worker ends before it does the
// job.
type Jobs[T any] struct {
	limit int
	wake  chan struct{} // wakes the worker; capacity 1

	mu      sync.Mutex // guards the fields below
	fresh   []Job[T]   // in the order of Add
	later   []Job[T]
	current *running[T] // the job that the worker is doing, or nil
}

// Job is one piece of work.
type Job[T any] struct {
	Value T
	tries int // number of retries
	due   time.Time
}

type running[T any] struct {
	value   T
	cancel  context.CancelFunc
	done    chan struct{}
	dropped bool // Drop has taken the job
	retried bool // it is also in Jobs.later
}

// NewJobs returns a queue that holds at most limit new jobs, and at most limit retries.
func NewJobs[T any](limit int) *Jobs[T] {
	return &Jobs[T]{limit: limit, wake: make(chan struct{}, 1)}
}

// Add queues a job and reports whether there was space for it. It never blocks.
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

// Run is the worker. It calls handle for each job until ctx ends.
func (j *Jobs[T]) Run(ctx context.Context, handle func(context.Context, Job[T])) {
	t := time.NewTimer(time.Hour)
	defer t.Stop()
	for ctx.Err() == nil {
		job, wait := j.next(time.Now())
		if job != nil {
			j.runJob(ctx, *job, handle)
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

// next removes and returns a job: a retry that is due, or else a new job. If there is neither, it
// returns nil and the time until the next retry is due, at most an hour.
func (j *Jobs[T]) next(now time.Time) (*Job[T], time.Duration) {
	j.mu.Lock()
	defer j.mu.Unlock()
	wait, first := time.Hour, -1
	for i, job := range j.later {
		if left := job.due.Sub(now); left < wait {
			wait, first = left, i
		}
	}
	switch {
	case first >= 0 && wait <= 0:
		job := j.later[first]
		j.later = slices.Delete(j.later, first, first+1)
		return &job, 0
	case len(j.fresh) > 0:
		job := j.fresh[0]
		j.fresh = slices.Delete(j.fresh, 0, 1)
		return &job, 0
	}
	return nil, wait
}

func (j *Jobs[T]) runJob(ctx context.Context, job Job[T], do func(context.Context, Job[T])) {
	own, cancel := context.WithCancel(ctx)
	defer cancel()
	now := &running[T]{value: job.Value, cancel: cancel, done: make(chan struct{})}
	j.mu.Lock()
	j.current = now
	j.mu.Unlock()
	do(own, job)
	j.mu.Lock()
	j.current = nil
	j.mu.Unlock()
	close(now.done)
}

// Retry queues a job again. Before its nth retry, the job waits for the nth of the pauses. Retry
// reports false if no pause is left, or if the queue is full. If Drop has taken the job, Retry does
// nothing and reports true. Only the handler that Run calls may call Retry.
func (j *Jobs[T]) Retry(job Job[T], pauses []time.Duration) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.current != nil && j.current.dropped {
		return true
	}
	if job.tries >= len(pauses) || len(j.later) >= j.limit {
		return false
	}
	job.due = time.Now().Add(pauses[job.tries])
	job.tries++
	j.later = append(j.later, job)
	if j.current != nil {
		j.current.retried = true
	}
	return true
}

// Drop removes and returns the jobs for which match returns true. If the worker is doing one of
// them, Drop cancels that job and waits until the job or ctx has ended.
func (j *Jobs[T]) Drop(ctx context.Context, match func(T) bool) (dropped []T) {
	j.mu.Lock()
	picked := func(job Job[T]) bool {
		if !match(job.Value) {
			return false
		}
		dropped = append(dropped, job.Value)
		return true
	}
	j.fresh, j.later = slices.DeleteFunc(j.fresh, picked), slices.DeleteFunc(j.later, picked)
	now := j.current
	if now != nil && match(now.value) {
		if !now.dropped && !now.retried {
			dropped = append(dropped, now.value)
		}
		now.dropped = true
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
