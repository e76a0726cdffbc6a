package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

const (
	// resumePause before the second continuation of a fetch; it doubles with each further one.
	resumePause = 100 * time.Millisecond
	// endPatience bounds the wait for a body to say that it ends where its size says so.
	endPatience = time.Second
)

// errNoRanges says that an origin sent all in place of a part.
var errNoRanges = errors.New("origin ignores ranges")

// fetcher asks origins.
type fetcher struct {
	*resources
	stall      time.Duration // how long an origin may give nothing
	maxResumes int
}

// fetch reads one blob from its origin and survives an origin that breaks: it then
// goes on from the byte it has reached. It is used by one goroutine.
type fetch struct {
	*fetcher
	origin Origin
	ctx    context.Context
	giveUp context.CancelCauseFunc // cancel with a reason

	off     int64 // of the next byte
	size    int64 // of the whole blob, or -1
	end     int64 // where to stop; -1: at the end of the blob
	part    bool  // an origin that sends all in place of a part is refused
	whole   bool  // the origin's newest answer was all, although a part was asked for
	resumes int
	gained  int64   // bytes since the origin last broke
	broken  error   // seen together with bytes
	answer  *answer // nil before the first one and between two
	over    bool
}

// fetch prepares a fetch of bytes from off on. hint is the length of the whole, if the origin
// does not say it.
func (f *fetcher) fetch(ctx context.Context, origin Origin, off, hint int64) *fetch {
	x := &fetch{fetcher: f, origin: origin, off: off, size: max(hint, -1), end: -1}
	x.ctx, x.giveUp = context.WithCancelCause(ctx)
	return x
}

// begin asks the origin for the first time: it decides about the size.
func (f *fetch) begin() error {
	size, err := f.ask()
	if err == nil && size >= 0 {
		f.size = size
	}
	return err
}

// connect asks the origin, which must agree about the size if that is known; else it is ErrSize.
func (f *fetch) connect() error {
	size, err := f.ask()
	switch {
	case err != nil:
		return err
	case size >= 0 && f.size >= 0 && size != f.size:
		f.disconnect()
		return fmt.Errorf("origin now has %d bytes instead of %d: %w", size, f.size, ErrSize)
	}
	f.size = max(f.size, size)
	return nil
}

// ask asks the origin for the bytes from off on, and returns the size of the whole that it gives.
func (f *fetch) ask() (size int64, err error) {
	f.m.requests.Inc()
	ctx, stop := context.WithCancelCause(f.ctx)
	timer := time.AfterFunc(f.stall, func() { stop(ErrStalled) })
	s, err := f.origin(ctx, f.off)
	timer.Stop()
	if err != nil {
		err = stalled(ctx, err)
		stop(nil)
		return 0, err
	}
	f.answer = newAnswer(ctx, stop, s)
	if f.whole = s.Whole; f.whole && f.part {
		f.disconnect()
		return 0, errNoRanges
	}
	return s.Size, nil
}

// disconnect gives up the answer, if there is one.
func (f *fetch) disconnect() {
	if f.answer != nil {
		f.answer.close()
		f.answer = nil
	}
}

// cancel has the fetch end; any goroutine may call it.
func (f *fetch) cancel() { f.giveUp(nil) }

// close ends the fetch.
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

// readBody reads from the answer, behind what is to be skipped.
func (f *fetch) readBody(p []byte) (int, error) {
	patience := f.stall
	if f.off == f.size {
		patience = min(patience, endPatience)
	}
	if err := f.answer.drop(&f.buffers, patience); err != nil {
		return 0, err
	}
	return f.answer.read(p, patience)
}

// resumeGain is how many bytes make up for what broke before them: over a bad line a large blob
// breaks more often than a small one.
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
		if f.resumes >= f.maxResumes || errors.Is(cause, ErrSize) || errors.Is(cause, errNoRanges) {
			return fmt.Errorf("read origin at byte %d: %w", f.off, cause)
		}
		if f.resumes++; f.resumes > 1 {
			select {
			case <-time.After(resumePause << min(f.resumes-2, 5)):
			case <-f.ctx.Done():
			}
		}
		f.m.resumes.Inc()
		if cause = f.connect(); cause == nil {
			f.broken = nil
			return nil
		}
	}
}
