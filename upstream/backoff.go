package upstream

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"dray/upstream/oci"
)

const (
	firstPause = 200 * time.Millisecond
	lastPause  = 5 * time.Second
)

// pause returns how long to wait after the n-th failure, counted from 0. It returns 0 if a Limiter
// delays the next attempt anyway. If the registry sent a Retry-After, pause returns that time.
// Otherwise the wait doubles with each failure, up to lastPause. Half of the wait is random, so
// that callers that failed together try again at different times.
func pause(n int, err error) time.Duration {
	if errors.Is(err, errPaused) {
		return 0
	}
	if e, ok := errors.AsType[*oci.Error](err); ok && e.RetryAfter > 0 {
		return e.RetryAfter
	}
	return backoff(n)
}

func backoff(n int) time.Duration {
	d := lastPause
	if n < 8 {
		d = min(firstPause<<n, lastPause)
	}
	return d/2 + rand.N(d/2)
}

// sleep waits for d and returns nil. If ctx ends first, it returns the cause of ctx.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
