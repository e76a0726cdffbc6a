package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// maxEmptyReads of a body in a row that give neither bytes nor an error.
const maxEmptyReads = 100

// answer is what an origin gives to one request.
type answer struct {
	ctx    context.Context // the body is closed when it ends
	stop   context.CancelCauseFunc
	body   io.Reader
	skip   int64       // bytes of body that nobody wants
	shut   func()      // closes body; returns when it is closed
	unhook func() bool // keeps the end of ctx from closing body
}

func newAnswer(ctx context.Context, stop context.CancelCauseFunc, s Stream) *answer {
	a := &answer{ctx: ctx, stop: stop, body: s.Body, skip: s.Skip}
	a.shut = sync.OnceFunc(func() { s.Body.Close() }) // what a body says when given up helps nobody
	a.unhook = context.AfterFunc(ctx, a.shut)         // in case it does not watch its context
	return a
}

// close gives the answer up.
func (a *answer) close() {
	a.unhook()
	a.stop(nil)
	a.shut()
}

// drop reads what is to be skipped. That may take longer than patience, which each read has for
// itself.
func (a *answer) drop(buffers *sync.Pool, patience time.Duration) error {
	if a.skip <= 0 {
		return nil
	}
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for a.skip > 0 {
		n, err := a.read((*buf)[:min(int64(len(*buf)), a.skip)], patience)
		a.skip -= int64(n)
		if err != nil {
			return noEOF(err)
		}
	}
	return nil
}

// read reads from the body, which must give something before patience ends.
func (a *answer) read(p []byte, patience time.Duration) (int, error) {
	stop := a.stop
	timer := time.AfterFunc(patience, func() { stop(ErrStalled) })
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

// stalled adds to an error that it comes from the stall timeout.
func stalled(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), ErrStalled) && !errors.Is(err, ErrStalled) {
		return fmt.Errorf("%w: %w", ErrStalled, err)
	}
	return err
}
