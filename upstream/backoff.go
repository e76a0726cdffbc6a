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

// pause returns how long to wait after failure n, counted from 0. It returns 0 if a Limiter has
// paused the operation already, and the Retry-After if the registry sent one. Otherwise the wait
// doubles with each failure, up to lastPause. Up to half of it is random, so that callers that
// failed together do not all try again at the same time.
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
