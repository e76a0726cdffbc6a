package main

import (
	"context"
	"sync"
	"time"
)

// shape describes the network path that an [origin], the registry of the benchmark, simulates. A
// rate of zero means no limit, and an RTT of zero means no delay.
type shape struct {
	RTT           time.Duration // the delay of each new connection, and of each request
	PerConnection int64         // bytes a second
	Total         int64         // bytes a second, all connections together
}

// catchUp bounds how far a limiter's schedule is behind the clock. A limiter that is behind lets
// bytes pass at once, which makes up for timers that fire late.
const catchUp = 10 * time.Millisecond

// limiter schedules bytes at a rate, in the order in which reserve is called.
type limiter struct {
	rate int64 // bytes a second; 0 is no limit
	mu   sync.Mutex
	next time.Time
}

// reserve adds n bytes to the schedule, and returns the time at which they will have passed.
func (l *limiter) reserve(n int, now time.Time) time.Time {
	if l == nil || l.rate <= 0 {
		return now
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if floor := now.Add(-catchUp); l.next.Before(floor) {
		l.next = floor
	}
	l.next = l.next.Add(time.Duration(float64(n) / float64(l.rate) * float64(time.Second)))
	return l.next
}

// pause waits until a time. It returns at once if the time has passed.
func pause(ctx context.Context, until time.Time) error {
	d := time.Until(until)
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
