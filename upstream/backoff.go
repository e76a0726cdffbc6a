package upstream

import (
	"context"
	"math/rand/v2"
	"time"

	"dray/upstream/oci"

	"errors"
)

const (
	firstPause = 200 * time.Millisecond
	lastPause  = 5 * time.Second
)

// pause is how long to wait after the n-th failure (from 0): what the registry asked for, else twice as long each time,
// and spread by up to a half so that those who failed together do not come back together.
func pause(n int, err error) time.Duration {
	if e, ok := errors.AsType[*oci.Error](err); ok && e.RetryAfter > 0 {
		return e.RetryAfter
	}
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
