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

// pause is how long to wait after the n-th failure (from 0): what the registry asked for, else
// twice as long each time, and spread by up to a half so that those who failed together do not come
// back together. Where a Limiter has taken note of the failure, the pause is one for all, and made
// there.
func pause(n int, err error) time.Duration {
	if errors.Is(err, errPaced) {
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

// rest waits, or ends with ctx.
func rest(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
