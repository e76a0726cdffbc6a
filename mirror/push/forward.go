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

// forward is the way of one blob to an upstream. It begins with the first byte that
// the client sends and cannot complete before the local bytes are verified.
type forward struct {
	cancel context.CancelCauseFunc
	// identified is closed once the outcome of the local upload is known: digest, or
	// refused.
	identified chan struct{}
	once       sync.Once
	digest     digest.Digest
	refused    error
	// done is closed when the upstream has the blob or will not get it: err.
	done chan struct{}
	err  error
	// scan looks at the same bytes; nil where nobody wants that.
	scan     *gate.Scan
	failures failures
	// sent is how many bytes the newest attempt has given to the upstream.
	sent atomic.Int64
}

// failures passes on what keeps a forward from getting on, to who comes to wait for it.
type failures struct {
	mu        sync.Mutex // guards below; leaf lock
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

// listen has tell called with the last trouble and all that follows. Of several who listen the last
// one hears it.
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

// identify tells the forward what its bytes turned out to be.
func (f *forward) identify(d digest.Digest) {
	f.once.Do(func() { f.digest = d; close(f.identified) })
}

// abort tells the forward that its bytes are worth nothing.
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

// end says how the forward ended.
func (f *forward) end(err error) {
	f.err = err
	close(f.done)
}

// identity waits until it is known what the bytes are, and returns their digest.
func (f *forward) identity(ctx context.Context) (digest.Digest, error) {
	select {
	case <-f.identified:
		return f.digest, f.refused
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// cleared returns the digest of an upload when it may be completed at the upstream: it is what it
// claims to be, and the checks have nothing against it.
func (f *forward) cleared(ctx context.Context, g *gate.Gate, r repository.Repo) (digest.Digest, error) {
	d, err := f.identity(ctx)
	if err == nil {
		err = f.scan.Cleared(ctx, g, r)
	}
	return d, err
}

// counted counts what is read of what open gives, from its start on each time.
func (f *forward) counted(open func() (io.ReadCloser, error)) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) {
		r, err := open()
		if err != nil {
			return nil, err
		}
		f.sent.Store(0)
		return &counter{r, &f.sent}, nil
	}
}

type counter struct {
	io.ReadCloser
	sent *atomic.Int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.sent.Add(int64(n))
	return n, err
}

// forwardOf is the way of a blob that this package has staged.
func forwardOf(b *repository.Staged) *forward { return b.Forward.(*forward) }
