package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

const (
	// resumePause before the second continuation of a fetch; it doubles with each further one.
	resumePause = 100 * time.Millisecond
	// endPatience bounds the wait for a body to say that it ends where its size says so.
	endPatience = time.Second
	// maxEmptyReads of a body in a row that give neither bytes nor an error.
	maxEmptyReads = 100
)

// fetch reads one blob from its origin and survives an origin that breaks: it then
// goes on from the byte it has reached. It is used by one goroutine.
type fetch struct {
	cache  *Cache
	origin Origin
	ctx    context.Context
	cancel context.CancelFunc
	giveUp context.CancelCauseFunc // cancel with a reason

	off     int64 // of the next byte
	size    int64 // of the whole blob, or -1
	end     int64 // where to stop; -1: at the end of the blob
	part    bool  // an origin that sends all in place of a part is refused
	whole   bool  // the origin's newest answer was all, although a part was asked for
	resumes int
	gained  int64 // bytes since the origin last broke
	broken  error // seen together with bytes
	skip    int64 // bytes of body that lie before off
	body    io.ReadCloser
	attempt context.Context // of body, which is closed when it ends
	stop    context.CancelCauseFunc
	shut    func()      // closes body; returns when it is closed
	unhook  func() bool // keeps the end of attempt from closing body
	over    bool
}

// newFetch prepares a fetch of bytes from off on; hint is the length of the whole if the origin does not say it.
func (c *Cache) newFetch(ctx context.Context, origin Origin, off, hint int64) *fetch {
	f := &fetch{cache: c, origin: origin, off: off, size: max(hint, -1), end: -1}
	f.ctx, f.giveUp = context.WithCancelCause(ctx)
	f.cancel = func() { f.giveUp(nil) }
	return f
}

// connect asks the origin for the bytes from off on. first: its size decides, otherwise it must agree.
func (f *fetch) connect(first bool) error {
	f.cache.m.requests.Inc()
	attempt, stop := context.WithCancelCause(f.ctx)
	timer := time.AfterFunc(f.cache.opts.StallTimeout, func() { stop(ErrStalled) })
	s, err := f.origin(attempt, f.off)
	timer.Stop()
	if err != nil {
		err = stalled(attempt, err)
		stop(nil)
		return err
	}
	f.attempt, f.stop, f.body, f.skip = attempt, stop, s.Body, s.Skip
	f.shut = sync.OnceFunc(func() { s.Body.Close() }) // what a body says when given up helps nobody
	f.unhook = context.AfterFunc(attempt, f.shut)     // in case it does not watch its context
	if f.whole = s.Whole; f.whole && f.part {
		f.disconnect()
		return errNoRanges
	}
	switch {
	case s.Size < 0:
	case first || f.size < 0:
		f.size = s.Size
	case s.Size != f.size:
		f.disconnect()
		return fmt.Errorf("origin now has %d bytes instead of %d: %w", s.Size, f.size, ErrSize)
	}
	return nil
}

// disconnect gives up the body, if there is one.
func (f *fetch) disconnect() {
	if f.body == nil {
		return
	}
	f.unhook()
	f.stop(nil)
	f.shut()
	f.body = nil
}

// close ends the fetch; cancel does so from another goroutine.
func (f *fetch) close() {
	f.cancel()
	f.disconnect()
}

// Read gives the next bytes, or io.EOF at the end of the blob. It returns ErrSize
// when there is more than the origin announced.
func (f *fetch) Read(p []byte) (int, error) {
	for !f.over {
		if f.end >= 0 {
			if f.off >= f.end {
				return 0, io.EOF
			}
			p = p[:min(int64(len(p)), f.end-f.off)] // an origin may send more than it was asked for
		}
		n, err := 0, f.broken
		if err == nil {
			n, err = f.readBody(p)
		}
		if f.size >= 0 && f.off+int64(n) > f.size {
			return 0, fmt.Errorf("origin gives more than %d bytes: %w", f.size, ErrSize)
		}
		f.off, f.gained = f.off+int64(n), f.gained+int64(n)
		f.broken = err
		if n > 0 {
			return n, nil
		}
		if f.ended(err) {
			f.over = true
			break
		}
		if err := f.resume(err); err != nil {
			return 0, err
		}
	}
	return 0, io.EOF
}

// ended says whether err, seen at off, is the end of the blob.
func (f *fetch) ended(err error) bool {
	if f.size < 0 && err == io.EOF {
		f.size = f.off
	}
	return f.off == f.size // whatever happens behind the last byte
}

// readBody reads from the body, behind what is to be skipped.
func (f *fetch) readBody(p []byte) (int, error) {
	if f.skip > 0 {
		if err := f.drop(); err != nil {
			return 0, err
		}
	}
	return f.readSome(p)
}

// drop reads what is to be skipped. That may take longer than any timeout, which each read has for itself.
func (f *fetch) drop() error {
	buf := f.cache.buffers.Get().(*[]byte)
	defer f.cache.buffers.Put(buf)
	for f.skip > 0 {
		n, err := f.readSome((*buf)[:min(int64(len(*buf)), f.skip)])
		f.skip -= int64(n)
		if err != nil {
			return noEOF(err)
		}
	}
	return nil
}

// readSome reads from the body, which must give something before the stall timeout.
func (f *fetch) readSome(p []byte) (int, error) {
	patience := f.cache.opts.StallTimeout
	if f.off == f.size {
		patience = min(patience, endPatience)
	}
	stop := f.stop
	timer := time.AfterFunc(patience, func() { stop(ErrStalled) })
	defer timer.Stop()
	for range maxEmptyReads {
		n, err := f.body.Read(p)
		if err != nil && err != io.EOF {
			err = stalled(f.attempt, err)
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
	return 0, io.ErrNoProgress
}

// resumeGain is how many bytes make up for what broke before them: over a bad line a large blob breaks more often than a small one.
const resumeGain = 32 << 20

// resume continues a broken fetch at off, or returns why it cannot.
func (f *fetch) resume(cause error) error {
	if cause == io.EOF {
		cause = io.ErrUnexpectedEOF
	}
	f.disconnect()
	if f.gained >= resumeGain {
		f.resumes = 0
	}
	f.gained = 0
	for {
		if f.ctx.Err() != nil {
			return context.Cause(f.ctx)
		}
		if f.resumes >= f.cache.opts.MaxResumes || errors.Is(cause, ErrSize) || errors.Is(cause, errNoRanges) {
			return fmt.Errorf("read origin at byte %d: %w", f.off, cause)
		}
		if f.resumes++; f.resumes > 1 {
			f.pause(resumePause << min(f.resumes-2, 5))
		}
		f.cache.m.resumes.Inc()
		if cause = f.connect(false); cause == nil {
			f.broken = nil
			return nil
		}
	}
}

func (f *fetch) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-f.ctx.Done():
	}
}

// stalled adds to an error that it comes from the stall timeout.
func stalled(attempt context.Context, err error) error {
	if errors.Is(context.Cause(attempt), ErrStalled) && !errors.Is(err, ErrStalled) {
		return fmt.Errorf("%w: %w", ErrStalled, err)
	}
	return err
}
