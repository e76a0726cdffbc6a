package cache

import (
	"context"
	"io"
	"sync"
	"time"
)

// maxEmptyReads bounds the consecutive reads of a body that give neither bytes nor an error.
const maxEmptyReads = 100

// answer is an origin's answer to one request.
type answer struct {
	ctx       context.Context // when it ends, the body is closed
	stop      context.CancelCauseFunc
	body      io.Reader
	unwanted  int64       // bytes to discard at the beginning of body
	end       int64       // see Stream.End
	follows   bool        // see Stream.Follows
	closeBody func()      // closes body, and returns when body is closed
	keepOpen  func() bool // after a call of keepOpen, the end of ctx does not close body
}

func newAnswer(ctx context.Context, stop context.CancelCauseFunc, s Stream) *answer {
	a := &answer{ctx: ctx, stop: stop, body: s.Body, unwanted: s.Skip, end: s.End, follows: s.Follows}
	a.closeBody = sync.OnceFunc(func() { s.Body.Close() }) // nobody needs the error of a body that was given up
	a.keepOpen = context.AfterFunc(ctx, a.closeBody)       // the body may ignore its context
	return a
}

func (a *answer) close() {
	a.keepOpen()
	a.stop(nil)
	a.closeBody()
}

// skipBytes reads and discards the bytes that the caller does not want. timeout bounds each single
// read.
func (a *answer) skipBytes(buf []byte, timeout time.Duration) error {
	for a.unwanted > 0 {
		n, err := a.read(buf[:min(int64(len(buf)), a.unwanted)], timeout)
		a.unwanted -= int64(n)
		if err != nil {
			return noEOF(err)
		}
	}
	return nil
}

// read reads from the body. timeout bounds the wait for bytes: when it has passed, read returns
// ErrStalled.
func (a *answer) read(p []byte, timeout time.Duration) (int, error) {
	stop := a.stop
	timer := time.AfterFunc(timeout, func() { stop(ErrStalled) })
	defer timer.Stop()
	for range maxEmptyReads {
		n, err := a.body.Read(p)
		if err != nil && err != io.EOF {
			err = stalled(a.ctx, err)
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
	return 0, io.ErrNoProgress
}
