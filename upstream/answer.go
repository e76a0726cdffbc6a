package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"dray/upstream/oci"
)

// answerTimeout bounds the time to read a manifest, a list, the text of an error, or (in
// noDocument) the start of a blob. Reading a whole blob has no limit here, because only the reader
// of the blob knows how long to wait.
const answerTimeout = 20 * time.Second

var errStalled = errors.New("the answer stalled")

// answer is the body of an HTTP answer, and counts the bytes that are read from it. It can cancel
// the request, so that a silent connection does not block the reader for ever.
type answer struct {
	io.ReadCloser
	cancel   context.CancelFunc
	stalled  atomic.Bool
	permit   *permit // nil without a Limiter
	received prometheus.Counter
	bytes    atomic.Int64      // read so far; Close may be called during a Read
	ended    func(bytes int64) // called once, by Close; may be nil
}

// roundTrip makes one round trip. The body of the answer is an *answer: each Read adds its number
// of bytes to counter.
func roundTrip(via http.RoundTripper, req *http.Request, counter prometheus.Counter) (*http.Response, error) {
	ctx, cancel := context.WithCancel(req.Context())
	resp, err := via.RoundTrip(req.WithContext(ctx))
	if err != nil {
		cancel()
		return nil, err
	}
	resp.Body = &answer{ReadCloser: resp.Body, cancel: cancel, received: counter}
	return resp, nil
}

func (a *answer) Read(p []byte) (int, error) {
	n, err := a.ReadCloser.Read(p)
	a.received.Add(float64(n))
	a.bytes.Add(int64(n))
	return n, err
}

func (a *answer) Close() error {
	err := a.ReadCloser.Close()
	a.cancel()
	if a.permit != nil {
		a.permit.release()
	}
	if a.ended != nil {
		a.ended(a.bytes.Load())
		a.ended = nil
	}
	return err
}

// abortAfter cancels the request when the time d has passed, and marks its answer as stalled. The
// caller stops the returned timer after reading the answer.
func abortAfter(resp *http.Response, d time.Duration) *time.Timer {
	a, ok := resp.Body.(*answer)
	return time.AfterFunc(d, func() {
		if ok {
			a.stalled.Store(true)
			a.cancel()
		}
	})
}

// readAll returns the body of an answer, decompressed. If the body is longer than limit, readAll
// returns its first limit+1 bytes, so that the caller notices this. The error is errStalled if
// reading takes longer than answerTimeout.
func readAll(resp *http.Response, limit int64) ([]byte, error) {
	defer abortAfter(resp, answerTimeout).Stop()
	var p []byte
	text, err := oci.Text(resp)
	if err == nil {
		p, err = io.ReadAll(io.LimitReader(text, limit+1))
	}
	if a, ok := resp.Body.(*answer); ok && err != nil && a.stalled.Load() {
		return nil, errStalled
	}
	return p, err
}

// drain reads up to 16 KiB of an answer that nobody needs, and closes the answer. If the answer is
// shorter than that, the connection can be reused.
func drain(resp *http.Response) {
	defer abortAfter(resp, answerTimeout/4).Stop()
	_, _ = io.CopyN(io.Discard, resp.Body, 16<<10)
	_ = resp.Body.Close()
}
