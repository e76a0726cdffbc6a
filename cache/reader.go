package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"dray/cache/disk"
)

// Source says where the bytes of a reader come from.
type Source string

// The sources of bytes.
const (
	SourceMemory Source = "memory"
	SourceDisk   Source = "disk"
	SourceFlight Source = "flight" // joined a fetch that is under way for another reader
	SourceOrigin Source = "origin" // started the fetch, or is the first for whom one was begun ahead
	SourceDirect Source = "direct" // passed through, because the cache could not take it
)

// Reader reads a blob. It may seek anywhere, also in what has not arrived yet.
//
// Read from byte 0 to the end it gives the last byte only when the digest of the
// whole agrees; otherwise ErrCorrupt or ErrSize, or the origin's error. Bytes before
// the last one are given as they arrive: a reader of a range must verify it by itself
// unless Source is SourceMemory or SourceDisk. One that seeks while its Source is
// SourceDirect gets even the last byte unverified.
//
// Read and Seek are for one goroutine; Close may come from another and ends a Read under way.
type Reader struct {
	*fetcher
	blob    Blob
	origin  Origin
	ctx     context.Context
	cancel  context.CancelFunc
	pos     int64
	inRow   int64 // bytes read from 0 on without a gap
	closely bool  // Stretch has found that the file cannot be opened once more

	mu     sync.Mutex // guards below; leaf lock
	at     bytesAt
	source Source
	closed bool
	again  *os.File // of a fetch under way, opened once more by Stretch
}

// bytesAt is where a reader gets its bytes. A localError of readAt makes the reader pass through.
type bytesAt interface {
	readAt(ctx context.Context, p []byte, off int64) (int, error)
	total() int64                      // length of the whole, or -1
	raw() io.ReaderAt                  // what was read so far, once more
	verdict(ctx context.Context) error // waits until it is known whether what was read is right
	close() error                      // may be called during readAt
}

var (
	_ bytesAt = memoryBytes(nil)
	_ bytesAt = diskBytes{}
	_ bytesAt = growingBytes{}
	_ bytesAt = (*directBytes)(nil)
)

// reader returns a reader of at.
func (f *fetcher) reader(ctx context.Context, b Blob, origin Origin, at bytesAt, source Source) *Reader {
	if !b.Ahead {
		f.m.opens.WithLabelValues(string(source)).Inc()
	}
	r := &Reader{fetcher: f, blob: b, origin: origin, at: at, source: source}
	r.ctx, r.cancel = context.WithCancel(ctx)
	return r
}

// Size returns the length of the blob, or -1 while it is not known.
func (r *Reader) Size() int64 {
	at, _ := r.now()
	return at.total()
}

// Source says where the bytes come from. It changes to SourceDirect when the cache fails meanwhile.
func (r *Reader) Source() Source {
	_, source := r.now()
	return source
}

// File returns the file of a blob that is complete and on disk, for sendfile, and
// nil for all others. It belongs to the reader, which does not use its offset.
func (r *Reader) File() *os.File {
	if at, _ := r.now(); at != nil {
		if d, ok := at.(diskBytes); ok {
			return d.File()
		}
	}
	return nil
}

// minStretch is what is worth sending as a file, in bytes.
const minStretch = 16 << 10

// Stretch waits until there are bytes where the reader is in a fetch under way, and
// returns a file that stands there and how many of them, at most n, can be taken from it,
// for sendfile. To the reader they are then read. The file is nil where Read has to go
// on: what there is may be few, or in no file. An error is one of Read.
func (r *Reader) Stretch(n int64) (*os.File, int64, error) {
	if r.ctx.Err() != nil {
		return nil, 0, r.ended()
	}
	at, _ := r.now()
	g, ok := at.(growingBytes)
	if !ok || n < minStretch || r.closely {
		return nil, 0, nil
	}
	limit, err := g.await(r.ctx, r.pos)
	if err != nil {
		return nil, 0, nil // Read knows what to do about it
	}
	if n = min(n, limit-r.pos); n < minStretch {
		return nil, 0, nil
	}
	f, err := r.reopened(g)
	if err == nil {
		_, err = f.Seek(r.pos, io.SeekStart)
	}
	if err != nil {
		r.closely = true
		return nil, 0, nil
	}
	r.advance(n)
	return f, n, nil
}

// reopened returns the file of a fetch under way with an offset of the reader's own. It
// is closed with the reader.
func (r *Reader) reopened(g growingBytes) (*os.File, error) {
	r.mu.Lock()
	f := r.again
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
		r.again = f
	}
	r.mu.Unlock()
	if closed {
		return nil, errors.Join(ErrClosed, f.Close())
	}
	return f, nil
}

// advance moves behind n bytes that were read.
func (r *Reader) advance(n int64) {
	if r.pos == r.inRow {
		r.inRow += n
	}
	r.pos += n
}

func (r *Reader) now() (bytesAt, Source) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.at, r.source
}

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, r.ended()
	}
	at, _ := r.now()
	if size := at.total(); size > 0 && r.pos >= size {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := at.readAt(r.ctx, p, r.pos)
	if why, ok := errors.AsType[*localError](err); ok && r.ctx.Err() == nil {
		if at, err = r.failOver(at, why); err == nil {
			n, err = at.readAt(r.ctx, p, r.pos)
		}
	}
	if err != nil && err != io.EOF && r.ctx.Err() != nil {
		err = r.ended()
	}
	r.advance(int64(n))
	return n, err
}

// ended says why the reader ended.
func (r *Reader) ended() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return ErrClosed
	}
	return context.Cause(r.ctx)
}

// failOver makes the reader pass through from where it is. If it has read from byte
// 0 without a gap, it goes on to verify the whole.
func (r *Reader) failOver(old bytesAt, why *localError) (bytesAt, error) {
	if why.reason == reasonRead { // the others were counted by the flight
		r.degraded(why, r.blob.Digest)
	}
	r.m.opens.WithLabelValues(string(SourceDirect)).Inc()
	d := &directBytes{fetcher: r.fetcher, blob: Blob{Digest: r.blob.Digest, Size: old.total()}, origin: r.origin, off: r.pos, at: r.pos}
	if r.pos == r.inRow {
		d.replay(old)
	}
	if _, wasDisk := old.(diskBytes); wasDisk && errors.Is(why, io.ErrUnexpectedEOF) {
		if err := r.disk.Discard(r.ctx, r.blob.Digest); err != nil {
			r.log.Warn("cannot drop blob", "digest", r.blob.Digest, "error", err)
		}
	}
	r.mu.Lock()
	closed := r.closed
	if !closed {
		r.at, r.source = d, SourceDirect
	}
	r.mu.Unlock()
	if closed {
		return nil, ErrClosed
	}
	if err := old.close(); err != nil {
		r.log.Warn("cannot close blob", "digest", r.blob.Digest, "error", err)
	}
	return d, nil
}

// Seek implements io.Seeker. Positions behind the end are refused, and so is
// io.SeekEnd while Size is not known.
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

// Wait returns when the fetch behind the reader has ended, with its error if it failed. Where
// Source is SourceDirect nothing is fetched before it is read, and Wait returns at once.
func (r *Reader) Wait() error {
	at, _ := r.now()
	return at.verdict(r.ctx)
}

// Close ends the reader. It affects no other, and not the flight. Further calls do nothing.
func (r *Reader) Close() error {
	r.mu.Lock()
	closed, at, again := r.closed, r.at, r.again
	r.closed = true
	r.mu.Unlock()
	if closed {
		return nil
	}
	r.cancel()
	if again != nil {
		return errors.Join(again.Close(), at.close())
	}
	return at.close()
}

// memoryBytes are the bytes of an object held in memory.
type memoryBytes []byte

func (m memoryBytes) readAt(_ context.Context, p []byte, off int64) (int, error) {
	if off >= int64(len(m)) {
		return 0, io.EOF
	}
	return copy(p, m[off:]), nil
}

func (m memoryBytes) total() int64     { return int64(len(m)) }
func (m memoryBytes) raw() io.ReaderAt { return bytes.NewReader(m) }
func (m memoryBytes) close() error     { return nil }

func (m memoryBytes) verdict(context.Context) error { return nil }

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

func (d diskBytes) verdict(context.Context) error { return nil } // it was verified before it was published

// growingBytes are the bytes of a flight under way.
type growingBytes struct{ *growing }

func (g growingBytes) raw() io.ReaderAt { return g.src }

// reopen opens the file once more, with an offset of its own.
func (g growingBytes) reopen() (*os.File, error) {
	if f, ok := g.src.(interface{ Reopen() (*os.File, error) }); ok {
		return f.Reopen()
	}
	return nil, errors.ErrUnsupported
}

func (g growingBytes) close() error { return g.leave() }
