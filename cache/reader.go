package cache

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"dray/cache/disk"
)

// Reader reads a blob. It may seek anywhere, also to bytes that have not arrived yet.
//
// A Reader that reads from byte 0 to the end gets the last byte only when the digest of the whole
// matches. Otherwise it gets ErrCorrupt or ErrSize, or the error of the origin. The bytes before
// the last one come unverified, as they arrive. So a caller that reads only a range must verify the
// bytes, unless Source is SourceMemory or SourceDisk. If the caller has sought to an offset other
// than 0, and Source is or becomes SourceDirect, even the last byte is unverified.
//
// Read and Seek are for one goroutine. Close may be called from any goroutine and ends a Read under
// way.
type Reader struct {
	*fetcher
	blob       Blob
	origin     Origin
	ctx        context.Context
	pos        int64
	sequential int64 // bytes read from 0 on without a gap
	noReopen   bool  // Stretch has failed to open the file a second time, or to seek in it

	mu          sync.Mutex // guards the fields below; leaf lock
	at          bytesAt
	source      Source
	cancel      context.CancelFunc // ends ctx; nil while the bytes are held, because reading held bytes does not wait
	closed      bool
	stretchFile *os.File // the file of a fetch under way, opened a second time by Stretch
}

var (
	_ bytesAt = memoryBytes(nil)
	_ bytesAt = diskBytes{}
	_ bytesAt = growingBytes{}
	_ bytesAt = (*directBytes)(nil)
)

// reader returns a Reader that gets its bytes from src.
func (f *fetcher) reader(ctx context.Context, b Blob, origin Origin, src bytesAt, source Source) *Reader {
	if !b.Ahead {
		f.m.opens.WithLabelValues(string(source)).Inc()
	}
	r := &Reader{fetcher: f, blob: b, origin: origin, ctx: ctx, at: src, source: source}
	if source != SourceMemory && source != SourceDisk {
		r.ctx, r.cancel = context.WithCancel(ctx)
	}
	return r
}

// Size returns the length of the blob in bytes, or -1 while it is not known.
func (r *Reader) Size() int64 {
	at, _ := r.current()
	return at.total()
}

// Source says where the bytes come from. It changes to SourceDirect if the cache fails while the
// blob is read.
func (r *Reader) Source() Source {
	_, source := r.current()
	return source
}

// Held reports whether the reader reads a complete blob from disk (SourceDisk). Unlike
// [Holding.Held], it is false for a blob in memory.
func (r *Reader) Held() bool { return r.Source() == SourceDisk }

// Until says that the caller will not read beyond the given offset, unless the caller seeks. While
// the reader waits for bytes, the fetch of the blob prefers the bytes before this offset to later
// bytes.
func (r *Reader) Until(end int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if g, ok := r.at.(growingBytes); ok {
		g.until = end
		r.at = g
	}
}

// minStretch is the least number of bytes for which Stretch returns the file of a fetch under way.
const minStretch = 16 << 10

// Stretch waits until there are bytes at the position of the reader. It returns a file whose offset
// is this position, and how many bytes sendfile can send from it (at most n). After sending them,
// the caller calls Passed. If the file is nil, the caller must use Read: the bytes are in no file,
// or too few have arrived. Stretch returns an error only if the reader is closed or its context has
// ended. After any other error, the file is nil, and Read handles the error.
func (r *Reader) Stretch(n int64) (*os.File, int64, error) {
	if err := r.ended(); err != nil {
		return nil, 0, err
	}
	var f *os.File
	var err error
	switch at, _ := r.current(); at := at.(type) {
	case diskBytes:
		if n = min(n, at.total()-r.pos); n <= 0 {
			return nil, 0, nil
		}
		f = at.File()
	case growingBytes:
		if n < minStretch || r.noReopen {
			return nil, 0, nil
		}
		limit, failed := at.await(r.ctx, r.pos, at.until)
		if n = min(n, limit-r.pos); failed != nil || n < minStretch {
			return nil, 0, nil // Read handles the error
		}
		f, err = r.reopened(at)
	default:
		return nil, 0, nil
	}
	if err == nil {
		_, err = f.Seek(r.pos, io.SeekStart)
	}
	if err != nil {
		r.noReopen = true
		return nil, 0, nil
	}
	return f, n, nil
}

// Passed moves the reader past the n bytes of the last stretch that were sent. err is the error
// that ended the sending, or nil. If err is not nil, Passed tries to read the next byte of the
// file. If it cannot, the file is the cause of err: Passed returns nil, and the next Read gets the
// bytes from the origin, without the file. If the next byte can be read, Passed returns err.
func (r *Reader) Passed(n int64, err error) error {
	r.advance(n)
	if err == nil {
		return nil
	}
	at, _ := r.current()
	var next [1]byte
	if _, unreadable := at.raw().ReadAt(next[:], r.pos); unreadable != nil {
		return nil
	}
	return err
}

// [Reader.reopened] returns the file of a fetch under way, opened a second time, so that this
// reader has a file offset of its own. Later calls return the same file. Reader.Close closes it.
func (r *Reader) reopened(g growingBytes) (*os.File, error) {
	r.mu.Lock()
	f := r.stretchFile
	r.mu.Unlock()
	if f != nil {
		return f, nil
	}
	f, err := g.reopen()
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	closed := r.closed
	if !closed {
		r.stretchFile = f
	}
	r.mu.Unlock()
	if closed {
		return nil, errors.Join(ErrClosed, f.Close())
	}
	return f, nil
}

// advance moves the position past n bytes that were read.
func (r *Reader) advance(n int64) {
	if r.pos == r.sequential {
		r.sequential += n
	}
	r.pos += n
}

func (r *Reader) current() (bytesAt, Source) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.at, r.source
}

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	if err := r.ended(); err != nil {
		return 0, err
	}
	at, _ := r.current()
	if size := at.total(); size > 0 && r.pos >= size {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := at.readAt(r.ctx, p, r.pos)
	if why, ok := errors.AsType[*localError](err); ok && r.ended() == nil {
		if at, err = r.failOver(at, why); err == nil {
			n, err = at.readAt(r.ctx, p, r.pos)
		}
	}
	r.advance(int64(n))
	if err != nil && err != io.EOF {
		err = cmp.Or(r.ended(), err)
	}
	return n, err
}

// [Reader.ended] returns the reason why the reader ended, or nil.
func (r *Reader) ended() error {
	r.mu.Lock()
	closed := r.closed
	r.mu.Unlock()
	if closed {
		return ErrClosed
	}
	if r.ctx.Err() != nil {
		return context.Cause(r.ctx)
	}
	return nil
}

// rejoin makes the reader go on with a new fetch of the blob, which it starts or joins like any
// other caller. failOver calls it when the fetch behind prev has turned out to have wrong bytes
// (reasonAgain). rejoin returns ErrCorrupt if the bytes that the reader has handed out differ from
// the bytes of the new fetch. It cannot check that for a reader of a range.
func (r *Reader) rejoin(prev bytesAt) (bytesAt, error) {
	again, err := r.open(r.ctx, r.blob, r.origin)
	if err != nil {
		return nil, err
	}
	if err := again.follow(r, prev); err != nil {
		return nil, errors.Join(err, again.Close())
	}
	at, source := again.current()
	r.mu.Lock()
	closed, file := r.closed, r.stretchFile
	if !closed {
		r.at, r.source, r.stretchFile = at, source, nil
	}
	r.mu.Unlock()
	if closed {
		return nil, errors.Join(ErrClosed, again.Close())
	}
	if file != nil {
		err = file.Close()
	}
	if err := errors.Join(err, prev.close()); err != nil {
		r.log.Warn("cannot close blob", "digest", r.blob.Digest, "error", err)
	}
	return at, nil
}

// [Reader.follow] moves r, the reader of a new fetch, to the position of orig, the reader that has
// to go on with the new fetch. prev has the bytes that orig has read. If orig has read from byte 0
// without a gap, follow compares these bytes with r's, and returns ErrCorrupt if they differ.
func (r *Reader) follow(orig *Reader, prev bytesAt) error {
	if was, now := prev.total(), r.Size(); was >= 0 && now >= 0 && was != now {
		return fmt.Errorf("fetch %s: %d bytes instead of %d: %w", r.blob.Digest, now, was, ErrSize)
	}
	if orig.pos != orig.sequential {
		_, err := r.Seek(orig.pos, io.SeekStart)
		return err
	}
	sum, want := sha256.New(), sha256.New()
	if _, err := io.CopyN(sum, r, orig.pos); err != nil {
		return noEOF(err)
	}
	if _, err := io.Copy(want, io.NewSectionReader(prev.raw(), 0, orig.pos)); err != nil {
		return err
	}
	if !bytes.Equal(sum.Sum(nil), want.Sum(nil)) {
		return fmt.Errorf("fetch %s: %w", r.blob.Digest, ErrCorrupt)
	}
	return nil
}

// failOver replaces prev, whose error is the given cause. For reasonAgain, the reader goes on
// with a new fetch. For other reasons, it gets the blob directly from the origin, from its position
// on. If the reader has read from byte 0 without a gap, the whole blob is still verified.
func (r *Reader) failOver(prev bytesAt, cause *localError) (bytesAt, error) {
	if cause.reason == reasonAgain {
		return r.rejoin(prev)
	}
	if cause.reason == reasonRead { // for all other reasons, the flight has already counted the failure
		r.degraded(cause, r.blob.Digest)
	}
	r.m.opens.WithLabelValues(string(SourceDirect)).Inc()
	d := &directBytes{fetcher: r.fetcher, blob: Blob{Digest: r.blob.Digest, Size: prev.total(), Observer: r.blob.Observer}, origin: r.origin, off: r.pos, at: r.pos}
	if r.pos == r.sequential {
		d.replay(prev)
	}
	if _, wasDisk := prev.(diskBytes); wasDisk && errors.Is(cause, io.ErrUnexpectedEOF) {
		if err := r.disk.Discard(r.ctx, r.blob.Digest); err != nil {
			r.log.Warn("cannot discard blob", "digest", r.blob.Digest, "error", err)
		}
	}
	r.mu.Lock()
	closed := r.closed
	if !closed {
		r.at, r.source = d, SourceDirect
		if r.cancel == nil {
			r.ctx, r.cancel = context.WithCancel(r.ctx)
		}
	}
	r.mu.Unlock()
	if closed {
		return nil, ErrClosed
	}
	if err := prev.close(); err != nil {
		r.log.Warn("cannot close blob", "digest", r.blob.Digest, "error", err)
	}
	return d, nil
}

// Seek implements io.Seeker. It refuses positions outside of the blob. While Size is not known, it
// refuses only negative positions and io.SeekEnd.
func (r *Reader) Seek(offset int64, whence int) (int64, error) {
	size := r.Size()
	switch whence {
	case io.SeekCurrent:
		offset += r.pos
	case io.SeekEnd:
		if size < 0 {
			return 0, errors.New("seek from the end: length is not known yet")
		}
		offset += size
	}
	if offset < 0 || size >= 0 && offset > size {
		return 0, fmt.Errorf("seek to %d: outside of the blob", offset)
	}
	r.pos = offset
	return offset, nil
}

// Wait waits until the fetch behind the reader has ended, and returns the error of a failed fetch.
// If Source is SourceDirect, bytes are fetched only as they are read, and Wait returns at once.
func (r *Reader) Wait() error {
	at, _ := r.current()
	return at.waitVerified(r.ctx)
}

// Close ends the reader. It affects neither other readers nor the flight. Further calls do nothing.
func (r *Reader) Close() error {
	r.mu.Lock()
	closed, at, cancel, stretchFile := r.closed, r.at, r.cancel, r.stretchFile
	r.closed = true
	r.mu.Unlock()
	if closed {
		return nil
	}
	if cancel != nil {
		cancel()
	}
	if stretchFile != nil {
		return errors.Join(stretchFile.Close(), at.close())
	}
	return at.close()
}

// diskBytes are the bytes of a blob on disk.
type diskBytes struct{ *disk.Blob }

func (d diskBytes) readAt(_ context.Context, p []byte, off int64) (int, error) {
	if off >= d.Size() {
		return 0, io.EOF
	}
	n, err := d.ReadAt(p, off)
	if n > 0 {
		return n, nil
	}
	return 0, &localError{reasonRead, noEOF(err)}
}

func (d diskBytes) total() int64     { return d.Size() }
func (d diskBytes) raw() io.ReaderAt { return d.Blob }
func (d diskBytes) close() error     { return d.Close() }

func (d diskBytes) waitVerified(context.Context) error { return nil } // the blob was verified before it was published

// growingBytes are the bytes of a flight under way.
type growingBytes struct {
	*growing
	until int64 // see Reader.Until; 0 means the end
}

func (g growingBytes) readAt(ctx context.Context, p []byte, off int64) (int, error) {
	return g.growing.readAt(ctx, p, off, g.until)
}

func (g growingBytes) raw() io.ReaderAt { return g.src }

// reopen opens the file a second time, so that the caller has a file offset of its own.
func (g growingBytes) reopen() (*os.File, error) {
	if f, ok := g.src.(interface{ Reopen() (*os.File, error) }); ok {
		return f.Reopen()
	}
	return nil, errors.ErrUnsupported
}

func (g growingBytes) close() error { return g.leave() }
