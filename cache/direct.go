package cache

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"
)

// directBytes are the bytes of a blob as its origin gives them, passed through
// without the disk. Read from byte 0 on they are hashed, and the newest byte is
// withheld until more come or the digest of all agrees.
type directBytes struct {
	*fetcher
	blob   Blob
	origin Origin

	confirm func(context.Context) error // for bytes handed out before, that cannot be checked again; may be nil
	off     int64                       // of the next byte to hand out
	at      int64                       // of the next byte of x to use; below off after a restart from 0
	check   digest.Verifier             // of the bytes before at; nil when these did not begin at 0
	last    []byte                      // the byte withheld, if any
	over    bool

	mu     sync.Mutex // guards below; leaf lock
	x      *fetch     // nil before the first read
	closed bool
}

// passThrough returns a reader that fetches for itself. x, if not nil, is a
// fetch from byte 0 that was already answered.
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
	context.AfterFunc(r.ctx, x.cancel) // one that was handed over was begun by a flight
	return r, nil
}

// start asks the origin for the bytes from at on. Its size must be the one known, if one is.
func (d *directBytes) start(ctx context.Context) error {
	x := d.fetcher.fetch(ctx, d.origin, d.at, d.blob.Size)
	if err := x.connect(); err != nil {
		x.close()
		return err
	}
	d.use(x)
	return nil
}

// use goes on with a fetch that has its answer.
func (d *directBytes) use(x *fetch) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		x.cancel()
	}
	d.x = x
}

// replay hashes the bytes before off from where they were read, to verify the whole
// in the end. If they cannot be read again, they are fetched again; then old has to
// confirm for those that were handed out.
func (d *directBytes) replay(old bytesAt) {
	d.check = d.blob.Digest.Verifier()
	if d.off == 0 {
		return
	}
	if n, err := io.Copy(d.check, io.NewSectionReader(old.raw(), 0, d.off)); err == nil && n == d.off {
		return
	}
	d.check = d.blob.Digest.Verifier()
	d.at, d.confirm = 0, old.verdict
}

// readAt implements bytesAt.
func (d *directBytes) readAt(ctx context.Context, p []byte, off int64) (int, error) {
	if off != d.off {
		d.move(off)
	}
	if d.over {
		return 0, io.EOF
	}
	if x := d.now(); x == nil {
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

// move starts over at off, unverified unless that is the beginning.
func (d *directBytes) move(off int64) {
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
	d.off, d.at, d.last, d.over, d.check, d.confirm = off, off, nil, false, nil, nil
	if off == 0 {
		d.check = d.blob.Digest.Verifier()
	}
}

// skip drops what was handed out before a restart.
func (d *directBytes) skip() error {
	if d.at >= d.off {
		return nil
	}
	n, err := io.CopyN(d.check, d.now(), d.off-d.at)
	d.at += n
	return noEOF(err)
}

// next reads into p, with the withheld byte in front and the newest one withheld.
func (d *directBytes) next(ctx context.Context, p []byte) (int, error) {
	if len(p) == 1 {
		var two [2]byte
		n, err := d.next(ctx, two[:])
		copy(p, two[:n])
		return n, err
	}
	for {
		held := copy(p, d.last)
		n, err := d.now().Read(p[held:])
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
		d.last = append(d.last[:0], p[have])
		if have > 0 {
			return have, nil
		}
	}
}

// finish hands out the withheld byte if the digest agrees.
func (d *directBytes) finish(ctx context.Context, p []byte) (int, error) {
	if d.confirm != nil {
		if err := d.confirm(ctx); err != nil {
			return 0, err
		}
	}
	if d.check != nil && !d.check.Verified() {
		d.m.corrupt.WithLabelValues("direct").Inc()
		return 0, ErrCorrupt
	}
	d.over = true
	d.now().close()
	if len(d.last) == 0 {
		return 0, io.EOF
	}
	return copy(p, d.last), nil
}

func (d *directBytes) now() *fetch {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.x
}

// total implements bytesAt. It is for the goroutine that reads.
func (d *directBytes) total() int64 {
	if x := d.now(); x != nil {
		return x.size
	}
	return d.blob.Size
}

func (d *directBytes) raw() io.ReaderAt { return bytes.NewReader(nil) } // it is never failed over

func (d *directBytes) verdict(context.Context) error { return nil }

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
