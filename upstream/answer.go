package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// answerTimeout bounds the reading of everything that is not a blob: manifests, lists, the texts of
// errors. Blobs have no limit here, because only whoever wants the bytes knows how long to wait for
// them.
const answerTimeout = 20 * time.Second

var errStalled = errors.New("the answer stopped")

// answer is the body of an answer together with the request behind it, so that a reader is not at
// the mercy of a connection that stays open and silent.
type answer struct {
	io.ReadCloser
	cancel  context.CancelFunc
	stalled atomic.Bool
	permit  *permit // nil without a Limiter
}

// sent makes one round trip under a context of its own.
func sent(via http.RoundTripper, req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(req.Context())
	resp, err := via.RoundTrip(req.WithContext(ctx))
	if err != nil {
		cancel()
		return nil, err
	}
	resp.Body = &answer{ReadCloser: resp.Body, cancel: cancel}
	return resp, nil
}

func (a *answer) Close() error {
	err := a.ReadCloser.Close()
	a.cancel()
	if a.permit != nil {
		a.permit.end()
	}
	return err
}

// within gives the answer up when it has not been read in time. The caller stops the timer.
func within(resp *http.Response, d time.Duration) *time.Timer {
	a, ok := resp.Body.(*answer)
	return time.AfterFunc(d, func() {
		if ok {
			a.stalled.Store(true)
			a.cancel()
		}
	})
}

// whole reads an answer of at most limit bytes; one byte more tells that there are more.
func whole(resp *http.Response, limit int64) ([]byte, error) {
	defer within(resp, answerTimeout).Stop()
	p, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if a, ok := resp.Body.(*answer); ok && err != nil && a.stalled.Load() {
		return nil, errStalled
	}
	return p, err
}

// discard empties and closes an answer that is not needed, so that its connection can serve again.
func discard(resp *http.Response) {
	defer within(resp, answerTimeout/4).Stop()
	_, _ = io.CopyN(io.Discard, resp.Body, 16<<10)
	_ = resp.Body.Close()
}
