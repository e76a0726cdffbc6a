package push

import (
	"context"
	"io"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"

	"dray/mirror/gate"
	"dray/mirror/repository"
)

// forward is the transfer of one blob to an upstream. It usually starts with the first byte from
// the client. It cannot complete before the bytes are verified here.
type forward struct {
	cancel context.CancelCauseFunc
	// identified is closed when the result of the client's upload is known. By then, the field digest
	// or the field refused is set.
	identified chan struct{}
	once       sync.Once
	digest     digest.Digest
	refused    error
	// done is closed when the upstream has the blob, or when this forward has failed. Then err is nil,
	// or the reason for the failure.
	done chan struct{}
	err  error
	// scan checks the bytes of the blob while they arrive; nil if no scan was started.
	scan     *gate.Scan
	failures failures
	// sent is the number of bytes that the newest attempt has sent to the upstream.
	sent atomic.Int64
	// sentTo counts the same bytes for the push that the blob belongs to; nil if nothing reads the
	// count.
	sentTo *atomic.Int64
}

// failures passes errors of a forward to a caller that waits for the forward. The forward reports
// only errors after which it tries again: sender.stream gives observe to the upstream as OnRetry.
type failures struct {
	mu        sync.Mutex // guards last and onFailure; no other lock is taken while it is locked
	last      error
	onFailure func(error)
}

func (t *failures) observe(err error) {
	t.mu.Lock()
	t.last = err
	onFailure := t.onFailure
	t.mu.Unlock()
	if onFailure != nil {
		onFailure(err)
	}
}

// listen calls onFailure with the most recent error, if there is one, and with each later error. It
// replaces an earlier onFailure.
func (t *failures) listen(onFailure func(error)) {
	t.mu.Lock()
	t.onFailure = onFailure
	last := t.last
	t.mu.Unlock()
	if last != nil {
		onFailure(last)
	}
}

func newForward() *forward {
	return &forward{cancel: func(error) {}, identified: make(chan struct{}), done: make(chan struct{})}
}

// identify records that the bytes are verified and have the digest d.
func (f *forward) identify(d digest.Digest) {
	f.once.Do(func() { f.digest = d; close(f.identified) })
}

// abort ends the forward with the given error. A session that drops the bytes, or leaves them to
// the next process, calls abort.
func (f *forward) abort(cause error) {
	f.once.Do(func() { f.refused = cause; close(f.identified) })
	f.cancel(cause)
}

// Done implements [repository.Forward].
func (f *forward) Done() <-chan struct{} { return f.done }

// Err implements [repository.Forward].
func (f *forward) Err() error { return f.err }

// Sent implements [repository.Forward].
func (f *forward) Sent() int64 { return f.sent.Load() }

func (f *forward) end(err error) {
	f.err = err
	close(f.done)
}

// identity waits until the bytes are verified, and returns their digest. It returns an error if
// they were refused or ctx ended.
func (f *forward) identity(ctx context.Context) (digest.Digest, error) {
	select {
	case <-f.identified:
		return f.digest, f.refused
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// cleared waits until the bytes are verified and scanned. It returns their digest if the blob may
// be completed at the upstream, and an error if not.
func (f *forward) cleared(ctx context.Context, g *gate.Gate, r repository.Repo) (digest.Digest, error) {
	d, err := f.identity(ctx)
	if err == nil {
		err = f.scan.Cleared(ctx, g, r)
	}
	return d, err
}

// counted wraps newReader, so that its readers count their bytes in f.sent. With each new reader,
// f.sent starts at 0 again.
func (f *forward) counted(newReader func() (io.ReadCloser, error)) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) {
		r, err := newReader()
		if err != nil {
			return nil, err
		}
		f.count(-f.sent.Load())
		return &counter{r, f}, nil
	}
}

func (f *forward) count(n int64) {
	f.sent.Add(n)
	if f.sentTo != nil {
		f.sentTo.Add(n)
	}
}

type counter struct {
	io.ReadCloser
	forward *forward
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.forward.count(int64(n))
	return n, err
}

// forwardOf returns the forward of a blob that this package has staged.
func forwardOf(b *repository.Staged) *forward { return b.Forward.(*forward) }
