package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/opencontainers/go-digest"

	"dray/cache"
)

var (
	// errSlow says that the bucket sent nothing for too long, or sent too slowly.
	errSlow = errors.New("the bucket is too slow")
	// errPaused says that the breaker is open.
	errPaused = errors.New("the bucket failed a moment ago")
)

// leastRate is the number of bytes a second below which a body is too slow. Only the time inside
// Read counts. The rate is checked whenever this time reaches Options.Patience.
const leastRate = 256 << 10

// Open implements [cache.Tier].
func (b *Bucket) Open(ctx context.Context, d digest.Digest, start, end int64) (cache.Stream, error) {
	if d.Validate() != nil || !b.seen.worthAsking(d) {
		return cache.Stream{}, fmt.Errorf("%s in bucket %s: %w", d, b.o.Bucket, cache.ErrNotFound)
	}
	sent, ok := b.reads.allow()
	if !ok {
		return cache.Stream{}, errPaused
	}
	ctx, stop := context.WithCancelCause(ctx)
	timer := time.AfterFunc(b.o.Patience, func() { stop(errSlow) })
	out, err := b.api.GetObject(ctx, &s3.GetObjectInput{Bucket: &b.o.Bucket, Key: b.o.key(d), Range: rangeOf(start, end)})
	if !timer.Stop() && err == nil {
		err = errors.Join(errSlow, out.Body.Close())
	}
	if err != nil {
		err = b.refused(ctx, d, opGet, err)
		b.reads.done(sent, verdict(ctx, err))
		stop(nil)
		return cache.Stream{}, err
	}
	b.found(d, opGet, out.LastModified)
	s := cache.Stream{Body: &body{b: b, sent: sent, ctx: ctx, stop: stop, r: out.Body}, Size: aws.ToInt64(out.ContentLength)}
	if start > 0 || end > 0 {
		if s.Size, err = total(aws.ToString(out.ContentRange), start); err != nil {
			return cache.Stream{}, errors.Join(err, s.Body.Close())
		}
	}
	return s, nil
}

// rangeOf returns the header for the bytes [start, end). For the whole object it is nil, because S3
// refuses every range of an empty object.
func rangeOf(start, end int64) *string {
	switch {
	case end > 0:
		return aws.String(fmt.Sprintf("bytes=%d-%d", start, end-1))
	case start > 0:
		return aws.String(fmt.Sprintf("bytes=%d-", start))
	}
	return nil
}

// total returns the size of the whole object from a header such as "bytes 5-9/10".
func total(contentRange string, start int64) (int64, error) {
	part, whole, _ := strings.Cut(strings.TrimPrefix(contentRange, "bytes "), "/")
	first, _, _ := strings.Cut(part, "-")
	size, err := strconv.ParseInt(whole, 10, 64)
	if at, failed := strconv.ParseInt(first, 10, 64); err != nil || failed != nil || at != start {
		return 0, fmt.Errorf("the bucket answered the range from %d with %q", start, contentRange)
	}
	return size, nil
}

// Has implements [cache.Tier].
func (b *Bucket) Has(ctx context.Context, d digest.Digest) bool {
	if d.Validate() != nil || !b.seen.worthAsking(d) {
		return false
	}
	if b.seen.get(d).present() {
		return true
	}
	sent, ok := b.reads.allow()
	if !ok {
		return false
	}
	written, err := b.stat(ctx, d)
	b.reads.done(sent, verdict(ctx, err))
	return !written.IsZero()
}

// stat asks the bucket when an object was written. The caller must pass the result to b.reads or
// b.writes.
func (b *Bucket) stat(ctx context.Context, d digest.Digest) (written time.Time, err error) {
	ctx, cancel := within(ctx, b.o.Patience)
	defer cancel()
	out, err := b.api.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &b.o.Bucket, Key: b.o.key(d)})
	if err != nil {
		return time.Time{}, b.refused(ctx, d, opHead, err)
	}
	b.found(d, opHead, out.LastModified)
	return b.seen.get(d).written, nil
}

// [Bucket.found] records that the bucket has a blob.
func (b *Bucket) found(d digest.Digest, op string, written *time.Time) {
	b.m.requests.WithLabelValues(op, resultOK).Inc()
	at := aws.ToTime(written)
	if at.IsZero() {
		at = time.Now()
	}
	b.seen.add(d, sighting{written: at})
}

// verdict turns the error of a read into a result for the breaker. A missing object is a success.
// If the caller gave up and the bucket was not too slow, the result is context.Canceled.
func verdict(ctx context.Context, err error) error {
	switch {
	case err == nil, errors.Is(err, cache.ErrNotFound):
		return nil
	case ctx.Err() == nil, errors.Is(err, errSlow), errors.Is(context.Cause(ctx), cache.ErrStalled):
		return err
	}
	return context.Canceled
}

// [Bucket.refused] counts a request that failed, and returns its error. The error wraps
// cache.ErrNotFound if the bucket does not have the object, and the cause of ctx if ctx has ended.
func (b *Bucket) refused(ctx context.Context, d digest.Digest, op string, err error) error {
	if statusOf(err) == http.StatusNotFound {
		b.m.requests.WithLabelValues(op, resultAbsent).Inc()
		b.seen.set(d, sighting{absent: time.Now()})
		return fmt.Errorf("%s in bucket %s: %w", d, b.o.Bucket, cache.ErrNotFound)
	}
	return b.failure(ctx, d, op, err)
}

// failure counts a request as failed, and returns its error, or the cause of ctx if ctx has ended.
func (b *Bucket) failure(ctx context.Context, d digest.Digest, op string, err error) error {
	b.m.requests.WithLabelValues(op, resultFailed).Inc()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return fmt.Errorf("%s %s in bucket %s: %w", op, d, b.o.Bucket, err)
}

// statusOf returns the HTTP status of an error of the SDK, or 0 if there was no answer.
func statusOf(err error) int {
	if answer, ok := errors.AsType[*smithyhttp.ResponseError](err); ok {
		return answer.HTTPStatusCode()
	}
	return 0
}

// body is the body of an object. It fails when the bucket becomes too slow, and passes its result
// to the breaker. Close may be called during a Read.
type body struct {
	b      *Bucket
	sent   time.Time // when the breaker allowed the request
	ctx    context.Context
	stop   context.CancelCauseFunc // ends the request
	r      io.ReadCloser
	gave   atomic.Bool // at least one byte was read
	once   sync.Once   // so that the breaker gets one result
	waited time.Duration
	got    int64 // bytes read since body.waited was last 0
}

// Read implements io.Reader.
func (r *body) Read(p []byte) (int, error) {
	start := time.Now()
	timer := time.AfterFunc(r.b.o.Patience, func() { r.stop(errSlow) })
	n, err := r.r.Read(p)
	timer.Stop()
	r.b.m.read.Add(float64(n))
	if n > 0 {
		r.gave.Store(true)
	}
	r.got, r.waited = r.got+int64(n), r.waited+time.Since(start)
	if r.waited >= r.b.o.Patience {
		if err == nil && float64(r.got) < leastRate*r.waited.Seconds() {
			err = errSlow
		}
		r.got, r.waited = 0, 0
	}
	switch {
	case err == io.EOF:
		r.end(nil)
	case err != nil:
		if cause := context.Cause(r.ctx); cause != nil {
			err = cause
		}
		r.end(verdict(r.ctx, err))
	}
	return n, err
}

// Close implements io.Closer.
func (r *body) Close() error {
	if r.gave.Load() {
		r.end(nil) // the reader needs no more
	} else {
		r.end(context.Canceled)
	}
	r.stop(context.Canceled)
	return r.r.Close()
}

func (r *body) end(err error) { r.once.Do(func() { r.b.reads.done(r.sent, err) }) }
