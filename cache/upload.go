package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"

	"dray/cache/disk"
)

// Upload is a blob received from a client. Callers must not write and commit at the same time. All
// other methods may be called from any goroutine. The caller of Receive must close the upload.
type Upload struct {
	*resources
	key  string // the next process finds the upload under this key; empty if the upload ends with this process
	in   *disk.Ingest
	file *growing
	once sync.Once
	// suspended says that Suspend or Keep has passed the key on, so Close must not forget it.
	suspended atomic.Bool
}

// Receive starts an upload. It returns ErrFull when there is no room.
func (c *Cache) Receive(ctx context.Context) (*Upload, error) {
	in, err := c.disk.Create(ctx, -1)
	if err != nil {
		return nil, fmt.Errorf("receive: %w", err)
	}
	return c.upload("", in), nil
}

func (c *Cache) upload(key string, in *disk.Ingest) *Upload {
	c.m.uploads.Inc()
	return &Upload{resources: c.resources, key: key, in: in, file: newGrowing(in, -1, in.Abort)}
}

// Write appends p. If it fails, for instance with ErrFull, the bytes that it reports as written
// stay, and a later Write continues at Size.
func (u *Upload) Write(p []byte) (int, error) {
	if err := u.checkOpen(); err != nil {
		return 0, err
	}
	n, err := u.in.Write(p)
	if n > 0 {
		u.file.advance(n)
		u.m.received.Add(float64(n))
	}
	return n, err
}

// ReadFrom appends the bytes of r until io.EOF. If r fails, the bytes read until then stay.
func (u *Upload) ReadFrom(r io.Reader) (int64, error) {
	buf := u.buffers.Get().(*[]byte)
	defer u.buffers.Put(buf)
	var total int64
	for {
		n, err := r.Read(*buf)
		if n > 0 {
			w, werr := u.Write((*buf)[:n])
			total += int64(w)
			if werr != nil {
				return total, werr
			}
		}
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

func (u *Upload) checkOpen() error {
	u.file.mu.Lock()
	defer u.file.mu.Unlock()
	if u.file.ended {
		return errors.Join(ErrClosed, u.file.err)
	}
	return nil
}

// Size returns the number of bytes received.
func (u *Upload) Size() int64 { return u.in.Size() }

// Follow returns a reader that begins at byte 0. The reader gets the bytes as they arrive, except
// the newest byte, which is withheld until more bytes arrive or Commit succeeds. If Abort or a
// failed Commit ends the upload, the reader gets the error. Follow may be called at any time before
// Close, also after Commit. The reader may be closed during a Read.
func (u *Upload) Follow() io.ReadCloser {
	f := &follower{file: u.file}
	f.ctx, f.cancel = context.WithCancelCause(context.Background())
	if f.joined = u.file.join(); !f.joined {
		f.cancel(ErrClosed)
	}
	return f
}

// Commit verifies the digest and publishes the blob. The blob is not evicted before the Upload is
// closed. If Commit fails with ErrCorrupt or because of the disk, nothing is published and the
// upload has ended. If Commit fails because ctx has ended, the caller may call Commit again.
func (u *Upload) Commit(ctx context.Context, d digest.Digest) (Blob, error) {
	if err := u.checkOpen(); err != nil {
		return Blob{}, err
	}
	b, err := u.in.Commit(ctx, d)
	if err != nil {
		if ctx.Err() != nil {
			return Blob{}, err
		}
		if errors.Is(err, ErrCorrupt) {
			u.m.corrupt.WithLabelValues("upload").Inc()
		}
		u.end(err)
		return Blob{}, err
	}
	u.file.complete(b.Close)
	return Blob{Digest: d, Size: b.Size()}, nil
}

// Abort ends an upload that was not committed. The readers that Follow returned get err, or
// ErrAborted if err is nil. After Commit it does nothing.
func (u *Upload) Abort(err error) {
	if err == nil {
		err = ErrAborted
	}
	u.end(err)
}

// [Upload.end] gives err to the readers that Follow returned, and drops the bytes.
func (u *Upload) end(err error) {
	u.file.mu.Lock()
	over := u.file.ended
	u.file.mu.Unlock()
	if over {
		return
	}
	u.file.fail(err)
	u.leave()
}

// Close releases the upload. An upload that is not committed is aborted. The blob of a committed
// upload may then be evicted, but the readers that Follow returned can read on. Further calls do
// nothing.
func (u *Upload) Close() error {
	u.Abort(nil)
	u.leave()
	if u.key == "" || u.suspended.Load() {
		return nil
	}
	return u.disk.Forget(u.key)
}

// leave ends the writer's use of the file. Further calls do nothing.
func (u *Upload) leave() {
	u.once.Do(func() {
		u.m.uploads.Dec()
		if err := u.file.leave(); err != nil {
			u.log.Warn("cannot close upload", "error", err)
		}
	})
}

// follower reads an upload while it grows.
type follower struct {
	file   *growing
	ctx    context.Context
	cancel context.CancelCauseFunc
	joined bool
	off    int64
	once   sync.Once
}

func (f *follower) Read(p []byte) (int, error) {
	if f.ctx.Err() != nil {
		return 0, context.Cause(f.ctx)
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := f.file.readAt(f.ctx, p, f.off, 0)
	f.off += int64(n)
	if err != nil && err != io.EOF && f.ctx.Err() != nil {
		err = context.Cause(f.ctx)
	}
	return n, err
}

func (f *follower) Close() error {
	var err error
	f.once.Do(func() {
		f.cancel(ErrClosed)
		if f.joined {
			err = f.file.leave()
		}
	})
	return err
}
