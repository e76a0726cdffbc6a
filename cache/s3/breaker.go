package s3

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

const (
	// tolerated is the number of failures in a row at which the breaker opens.
	tolerated = 3
	// firstPause is how long the breaker first stays open. The pause doubles after each failed
	// attempt, up to longestPause.
	firstPause   = 5 * time.Second
	longestPause = time.Minute
)

// breaker stops requests to a bucket that fails, so that nobody waits for it in vain. After a
// pause, it lets one request through. If that request succeeds, the breaker closes. While the
// breaker is open, only the result of that request counts, and not the results of requests that
// were sent earlier.
type breaker struct {
	what   string // completes "the bucket cannot be" in the log, such as "read from"
	bucket string
	log    *slog.Logger

	mu       sync.Mutex // guards the fields below
	failures int
	pause    time.Duration // 0 while the breaker is closed
	until    time.Time     // the end of the last pause
	trying   bool          // the request after the pause is under way
}

// allow reports whether a request may be sent. If so, the caller must pass the returned time and
// the result of the request to [breaker.done].
func (b *breaker) allow() (sentAt time.Time, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	sentAt = time.Now()
	if b.pause == 0 {
		return sentAt, true
	}
	if b.trying || sentAt.Before(b.until) {
		return sentAt, false
	}
	b.trying = true
	return sentAt, true
}

// open reports whether the breaker would refuse a request now. After the pause, it returns false
// until somebody asks the bucket again. So a bucket that failed long ago does not count as failing.
func (b *breaker) open() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.pause > 0 && (b.trying || time.Now().Before(b.until))
}

// wait waits until the pause ends, but for at least a tenth of a second. It returns earlier if ctx
// ends. Another request may be under way then, so the caller must call [breaker.allow] again.
func (b *breaker) wait(ctx context.Context) {
	b.mu.Lock()
	left := max(time.Until(b.until), time.Second/10)
	b.mu.Unlock()
	select {
	case <-time.After(left):
	case <-ctx.Done():
	}
}

// done records the result of a request. sentAt is the time that [breaker.allow] returned.
// context.Canceled means that the caller gave up, which says nothing about the bucket.
func (b *breaker) done(sentAt time.Time, err error) {
	b.mu.Lock()
	was := b.pause
	if was > 0 && sentAt.Before(b.until) {
		b.mu.Unlock()
		return
	}
	b.trying = false
	switch {
	case err == nil:
		b.failures, b.pause = 0, 0
	case errors.Is(err, context.Canceled):
	default:
		if b.failures++; b.failures >= tolerated {
			b.pause = min(max(2*b.pause, firstPause), longestPause)
			b.until = time.Now().Add(b.pause)
		}
	}
	now := b.pause
	b.mu.Unlock()
	switch {
	case was == 0 && now > 0:
		b.log.Warn("the bucket cannot be "+b.what+"; dray works without it until it answers again", "bucket", b.bucket, "error", err)
	case was > 0 && now == 0:
		b.log.Info("the bucket can be "+b.what+" again", "bucket", b.bucket)
	}
}
