package cache

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"
)

// directBytes are the bytes of a blob as its origin gives them, passed through without the disk.
// The newest byte is withheld until more bytes come or the blob ends. If the bytes are read from
// byte 0 on, they are hashed, and the last byte is handed out only if the digest matches.
type directBytes struct {
	*fetcher
	blob   Blob
	origin Origin

	// A directBytes can replace an earlier bytesAt. verifyEarlier waits until that bytesAt has
	// verified the bytes that it handed out. verifyEarlier is nil if finish need not wait.
	verifyEarlier func(context.Context) error
	off           int64           // the offset of the next byte to hand out
	at            int64           // the offset of the next byte of x; below off while bytes are fetched again to hash them
	check         digest.Verifier // hashes the bytes from byte 0 up to at; nil if the reader has not read from byte 0 without a gap
	withheld      []byte          // the withheld byte, if any
	done          bool

	mu     sync.Mutex // guards the fields below; leaf lock
	x      *fetch     // nil before the first read
	closed bool
}

// passThrough returns a reader with a fetch of its own. If x is nil, it starts a new fetch.
// Otherwise it uses x, a fetch from byte 0 that the origin has already answered.
func (f *fetcher) passThrough(ctx context.Context, b Blob, origin Origin, x *fetch) (*Reader, error) {
	if x == nil {
		x = f.fetch(ctx, origin, 0, b.Size)
		if err := x.begin(); err != nil {
			x.close()
			return nil, err
		}
	}
	d := &directBytes{fetcher: f, blob: b, origin: origin, check: b.Digest.Verifier()}
	d.use(x)
	r := f.reader(ctx, b, origin, d, SourceDirect)
	context.AfterFunc(r.ctx, x.cancel) // if x comes from a flight, ctx alone does not cancel it
	return r, nil
}

// start asks the origin for the bytes from d.at on. It returns ErrSize if the size that the origin
// gives differs from the known size.
func (d *directBytes) start(ctx context.Context) error {
	x := d.fetcher.fetch(ctx, d.origin, d.at, d.blob.Size)
	if err := x.connect(); err != nil {
		x.close()
		return err
	}
	d.use(x)
	return nil
}

// [directBytes.use] continues with a fetch that the origin has answered.
func (d *directBytes) use(x *fetch) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		x.cancel()
	}
	d.x = x
}

// replay hashes the bytes before d.off, so that the whole blob can be verified in the end. It reads
// these bytes from prev, which has handed them out. If prev cannot be read, [directBytes.skip]
// later fetches the bytes again. Their hash then says nothing about the bytes that prev handed out.
// So [directBytes.finish] also waits until prev has verified its bytes.
func (d *directBytes) replay(prev bytesAt) {
	d.check = d.blob.Digest.Verifier()
	if d.off == 0 {
		return
	}
	if n, err := io.Copy(d.check, io.NewSectionReader(prev.raw(), 0, d.off)); err == nil && n == d.off {
		return
	}
	d.check = d.blob.Digest.Verifier()
	d.at, d.verifyEarlier = 0, prev.waitVerified
}

// readAt implements bytesAt.
func (d *directBytes) readAt(ctx context.Context, p []byte, off int64) (int, error) {
	if off != d.off {
		d.restartAt(off)
	}
	if d.done {
		return 0, io.EOF
	}
	if x := d.current(); x == nil {
		if err := d.start(ctx); err != nil {
			return 0, fmt.Errorf("fetch %s: %w", d.blob.Digest, err)
		}
	}
	if err := d.skip(); err != nil {
		return 0, fmt.Errorf("fetch %s: %w", d.blob.Digest, err)
	}
	n, err := d.next(ctx, p)
	d.off += int64(n)
	if err != nil && err != io.EOF {
		return n, fmt.Errorf("fetch %s: %w", d.blob.Digest, err)
	}
	return n, err
}

// restartAt starts over at the offset off. The bytes that follow are verified only if off is 0.
func (d *directBytes) restartAt(off int64) {
	d.mu.Lock()
	x := d.x
	d.x = nil
	if x != nil {
		d.blob.Size = x.size
	}
	d.mu.Unlock()
	if x != nil {
		x.close()
	}
	d.off, d.at, d.withheld, d.done, d.check, d.verifyEarlier = off, off, nil, false, nil, nil
	if off == 0 {
		d.check = d.blob.Digest.Verifier()
	}
}

// skip fetches the bytes between d.at and d.off, and only hashes them, because the reader has them
// already.
func (d *directBytes) skip() error {
	if d.at >= d.off {
		return nil
	}
	n, err := io.CopyN(d.check, d.current(), d.off-d.at)
	d.at += n
	return noEOF(err)
}

// [directBytes.next] puts the withheld byte into p, reads more bytes behind it, and withholds the
// newest byte.
func (d *directBytes) next(ctx context.Context, p []byte) (int, error) {
	if len(p) == 1 {
		var two [2]byte
		n, err := d.next(ctx, two[:])
		copy(p, two[:n])
		return n, err
	}
	for {
		held := copy(p, d.withheld)
		n, err := d.current().Read(p[held:])
		if err == io.EOF {
			return d.finish(ctx, p)
		}
		if err != nil {
			return 0, err
		}
		if d.check != nil {
			d.check.Write(p[held : held+n]) // never fails
		}
		d.at += int64(n)
		have := held + n - 1
		d.withheld = append(d.withheld[:0], p[have])
		if have > 0 {
			return have, nil
		}
	}
}

// finish hands out the withheld byte. If d.check is not nil, it first checks that the digest
// matches.
func (d *directBytes) finish(ctx context.Context, p []byte) (int, error) {
	if d.verifyEarlier != nil {
		if err := d.verifyEarlier(ctx); err != nil {
			return 0, err
		}
	}
	if d.check != nil && !d.check.Verified() {
		d.m.corrupt.WithLabelValues("direct").Inc()
		d.blob.ended(ErrCorrupt)
		return 0, ErrCorrupt
	}
	d.done = true
	d.current().close()
	if len(d.withheld) == 0 {
		return 0, io.EOF
	}
	return copy(p, d.withheld), nil
}

func (d *directBytes) current() *fetch {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.x
}

// total implements bytesAt. Only the goroutine that reads may call it.
func (d *directBytes) total() int64 {
	if x := d.current(); x != nil {
		return x.size
	}
	return d.blob.Size
}

// raw implements bytesAt. It returns no bytes, because raw is called only on a bytesAt that reads
// from a file or that is replaced. A directBytes reads from no file, and is never replaced.
func (d *directBytes) raw() io.ReaderAt { return bytes.NewReader(nil) }

func (d *directBytes) waitVerified(context.Context) error { return nil }

// close implements bytesAt.
func (d *directBytes) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	if d.x != nil {
		d.x.cancel()
	}
	return nil
}
