package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

const (
	// resumePause is the pause before the second resumption of a fetch. The pause doubles with each
	// further resumption, until it is 32 * resumePause.
	resumePause = 100 * time.Millisecond
	// endPatience bounds the wait for the end of a body after its last byte.
	endPatience = time.Second
)

// errNoRanges says that an origin sent the whole blob instead of a part.
var errNoRanges = errors.New("origin ignores ranges")

// fetcher sends requests to origins.
type fetcher struct {
	*resources
	stall      time.Duration // after this time without bytes, a request to an origin ends
	maxResumes int
	open       func(context.Context, Blob, Origin) (*Reader, error) // Cache.Open
}

// fetch reads one blob from its origin. If the origin breaks off, the fetch asks again for the
// bytes that are still missing. Only one goroutine uses a fetch, but any may call cancel.
type fetch struct {
	*fetcher
	origin Origin
	ctx    context.Context
	giveUp context.CancelCauseFunc // cancels ctx, with a reason

	off        int64 // the offset of the next byte
	size       int64 // length of the whole blob in bytes, or -1 if unknown
	end        int64 // the offset at which to stop; -1 means the end of the blob
	partOnly   bool  // fail with errNoRanges if the origin ignores the range
	whole      bool  // the origin's newest answer ignored the range
	resumes    int
	sinceBreak int64   // bytes since the origin last broke off
	broken     error   // an error that the body returned together with bytes; the next Read handles it
	answer     *answer // nil before the first answer and between two answers
	done       bool
}

// fetch prepares a fetch that begins at the offset off. sizeHint is the length of the whole blob,
// or negative if unknown. The fetch uses it if the origin does not give the length.
func (f *fetcher) fetch(ctx context.Context, origin Origin, off, sizeHint int64) *fetch {
	x := &fetch{fetcher: f, origin: origin, off: off, size: max(sizeHint, -1), end: -1}
	x.ctx, x.giveUp = context.WithCancelCause(ctx)
	return x
}

// begin sends the first request. A size in the answer replaces the size hint. If the size is larger
// than a known hint, begin returns ErrSize, because an origin could otherwise make a blob endless.
func (f *fetch) begin() error {
	size, err := f.request()
	switch {
	case err != nil:
		return err
	case f.size >= 0 && size > f.size:
		f.disconnect()
		f.m.corrupt.WithLabelValues("origin").Inc()
		return fmt.Errorf("origin announced %d bytes instead of %d: %w", size, f.size, ErrSize)
	case size >= 0:
		f.size = size
	}
	return nil
}

// connect sends a further request. It returns ErrSize if the size in the answer differs from the
// known size.
func (f *fetch) connect() error {
	size, err := f.request()
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

// request asks the origin for the bytes from f.off on. It returns the size of the whole blob, or a
// negative number if the origin does not give the size.
func (f *fetch) request() (size int64, err error) {
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
	if f.whole = s.Whole; f.whole && f.partOnly {
		f.disconnect()
		return 0, errNoRanges
	}
	if s.End > 0 && s.End <= f.off {
		f.disconnect()
		return 0, fmt.Errorf("origin ends at byte %d: %w", s.End, io.ErrUnexpectedEOF)
	}
	return s.Size, nil
}

// moveTo makes the fetch go on at another offset, by a new request.
func (f *fetch) moveTo(off int64) {
	f.disconnect()
	f.off, f.broken, f.resumes = off, nil, 0
}

func (f *fetch) disconnect() {
	if f.answer != nil {
		f.answer.close()
		f.answer = nil
	}
}

// cancel makes the fetch end.
func (f *fetch) cancel() { f.giveUp(nil) }

func (f *fetch) close() {
	f.cancel()
	f.disconnect()
}

// Read returns the next bytes, or io.EOF at f.end or at the end of the blob. It returns ErrSize if
// the origin sends bytes beyond f.size.
func (f *fetch) Read(p []byte) (int, error) {
	for !f.done {
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
			return 0, fmt.Errorf("origin sent more than %d bytes: %w", f.size, ErrSize)
		}
		f.off, f.sinceBreak = f.off+int64(n), f.sinceBreak+int64(n)
		f.broken = err
		if n > 0 {
			return n, nil
		}
		if f.atEnd(err) {
			f.done = true
			break
		}
		if err := f.resume(err); err != nil {
			return 0, err
		}
	}
	return 0, io.EOF
}

// atEnd reports whether the blob ends at f.off. err is the error that the body returned at f.off. A
// blob of unknown size ends where its body ends.
func (f *fetch) atEnd(err error) bool {
	if f.size < 0 && err == io.EOF {
		f.size = f.off
	}
	return f.off == f.size // an error after the last byte does not matter
}

// readBody reads from the answer. If there is no answer, or if the answer ended early (see
// [Stream.End]), readBody first asks the origin for the bytes from f.off on. readBody discards the
// bytes that the answer has before f.off (see [Stream.Skip]).
func (f *fetch) readBody(p []byte) (n int, err error) {
	if f.answer == nil || f.answer.end > 0 && f.off >= f.answer.end && f.off != f.size {
		f.disconnect()
		if err := f.connect(); err != nil {
			return 0, err
		}
	}
	patience := f.stall
	if f.off == f.size {
		patience = min(patience, endPatience)
	}
	if f.answer.unwanted > 0 {
		buf := f.buffers.Get().(*[]byte)
		defer f.buffers.Put(buf)
		if err := f.answer.skipBytes(*buf, patience); err != nil {
			return 0, err
		}
	}
	if f.answer.end == 0 {
		return f.answer.read(p, patience)
	}
	left := f.answer.end - f.off
	if n, err = f.answer.read(p[:min(int64(len(p)), left)], patience); int64(n) == left {
		err = nil
	}
	return n, err
}

// resumeGain is a number of bytes. When so many bytes have come without a break, resumptions are
// counted from zero again. Without that, the fetch of a large blob over a bad line would reach
// maxResumes although it makes progress.
const resumeGain = 32 << 20

// resume continues a broken fetch at f.off, or returns the error that prevents this.
func (f *fetch) resume(cause error) error {
	if cause == io.EOF {
		cause = io.ErrUnexpectedEOF
	}
	f.disconnect()
	if f.sinceBreak >= resumeGain {
		f.resumes = 0
	}
	f.sinceBreak = 0
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
				return context.Cause(f.ctx)
			}
		}
		f.m.resumes.Inc()
		if cause = f.connect(); cause == nil {
			f.broken = nil
			return nil
		}
	}
}
