package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
)

// touchEvery is the time in which [contents.touch] records at most one use of a blob.
const touchEvery = time.Hour

// contents has the methods by which callers read and remove held blobs.
type contents struct {
	*resources
	scan       *scanner
	evictor    *evictor
	sync       *syncer
	checks     *checker
	quarantine *quarantine
}

// Open returns the blob, or ErrNotFound. A suspect blob, which an unclean stop may have damaged, is
// verified first. The verification reads the whole blob. ctx bounds the verification and the wait
// for other calls that work on the same digest.
func (c *contents) Open(ctx context.Context, dg digest.Digest) (*Blob, error) {
	name, err := blobPath(dg)
	if err != nil {
		return nil, err
	}
	e, err := c.find(ctx, dg, name)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dg, err)
	}
	b, err := c.openEntry(e, name)
	if err != nil {
		c.unref(e)
		return nil, fmt.Errorf("open %s: %w", dg, err)
	}
	e.hit()
	c.touch(e, name)
	return b, nil
}

// Peek is Open for maintenance and inspection: it does not count as a use of the blob. A blob that
// is not yet verified counts as not held.
func (c *contents) Peek(dg digest.Digest) (*Blob, error) {
	e, ok := c.reference(dg)
	if !ok {
		return nil, fmt.Errorf("open %s: %w", dg, ErrNotFound)
	}
	b, err := c.openEntry(e, e.path())
	if err != nil {
		c.unref(e)
		return nil, fmt.Errorf("open %s: %w", dg, err)
	}
	return b, nil
}

// Use has the same effect on eviction as an Open of each of the blobs. It ignores blobs that are
// not held.
func (c *contents) Use(blobs ...digest.Digest) {
	for _, dg := range blobs {
		name, err := blobPath(dg)
		if err != nil {
			continue
		}
		if e, _ := c.held(dg); e != nil {
			e.hit()
			c.touch(e, name)
			c.unref(e)
		}
	}
}

// Stat returns the length of a blob in bytes, and whether the blob is held. A blob that is not yet
// verified counts as not held.
func (c *contents) Stat(dg digest.Digest) (size int64, ok bool) {
	e, ok := c.reference(dg)
	if !ok {
		return 0, false
	}
	defer c.unref(e)
	return e.size, true
}

// Retain keeps a held blob from being evicted until release is called. Once Retain has returned
// without an error, the blob is on stable storage. A blob that was retained several times stays
// until each release has been called. Calling the same release again does nothing. A suspect blob
// is verified first. Retain returns ErrNotFound when the blob is not held.
func (c *contents) Retain(ctx context.Context, dg digest.Digest) (release func(), err error) {
	name, err := blobPath(dg)
	if err != nil {
		return nil, err
	}
	e, err := c.find(ctx, dg, name)
	if err != nil {
		return nil, fmt.Errorf("retain %s: %w", dg, err)
	}
	c.mu.RLock()
	clean := e.clean
	c.mu.RUnlock()
	if !clean {
		if err := c.sync.syncNow(e); err != nil {
			c.unref(e)
			return nil, fmt.Errorf("retain %s: %w", dg, asFull(err))
		}
	}
	return c.retain(e), nil
}

// Delete removes a blob. Readers that have it open can read on. A missing blob is no error.
func (c *contents) Delete(ctx context.Context, dg digest.Digest) error {
	err := c.with(ctx, "delete", dg, func(e *entry) error { return c.evictor.remove(ctx, e) })
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// Unless says which uses of a blob keep [Dir.Purge] from removing it.
type Unless int

// The uses that protect a blob from a purge.
const (
	UnlessInUse  Unless = iota // the blob is open or pinned, or has a use that UnlessNeeded names
	UnlessNeeded               // a push needs the blob, or an upload has ended as this blob and is not forgotten yet
)

// Purge is Delete by an operator. If the blob has one of the uses that the parameter unless names,
// Purge does not remove it, and returns ErrInUse. It returns ErrNotFound for a blob that is not
// held.
func (c *contents) Purge(ctx context.Context, dg digest.Digest, unless Unless) error {
	return c.with(ctx, "purge", dg, func(e *entry) error {
		return c.evictor.removeIf(ctx, e, func() bool {
			if unless == UnlessNeeded {
				return c.users(e) < retainWeight && c.claimed[dg].received == 0
			}
			return c.users(e) == 1 && c.claimed[dg] == claims{} // this call has the only reference
		})
	})
}

// Discard moves a blob to quarantine/ because its bytes were found to be wrong, and counts it as
// corrupt. If the blob is not held, Discard counts nothing and returns nil.
func (c *contents) Discard(ctx context.Context, dg digest.Digest) error {
	err := c.with(ctx, "discard", dg, func(e *entry) error {
		c.m.corrupt.Inc()
		c.log.Error("removed corrupt blob from the cache", "digest", dg)
		return c.quarantine.put(ctx, e)
	})
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// DiscardUnreadable moves a blob to quarantine/ because reading it failed, and counts it as
// corrupt. A blob that a push needs is moved only if readErr, the error of the read, says that its
// file is too short. After any other error such a blob stays, because it may be the only copy and
// may become readable again. DiscardUnreadable returns ErrNotFound for a blob that is not held.
func (c *contents) DiscardUnreadable(ctx context.Context, dg digest.Digest, readErr error) error {
	return c.with(ctx, "discard", dg, func(e *entry) error {
		c.mu.RLock()
		needed := c.users(e) >= retainWeight || c.claimed[dg].received > 0
		c.mu.RUnlock()
		if needed && !errors.Is(readErr, io.ErrUnexpectedEOF) {
			return nil
		}
		c.m.corrupt.Inc()
		c.log.Error("removed unreadable blob from the cache", "digest", dg, "error", readErr)
		return c.quarantine.put(ctx, e)
	})
}

// [contents.with] calls visit for the entry of a blob, and holds a reference to the entry during
// the call. The entry may be suspect. Errors begin with op, such as "delete".
func (c *contents) with(ctx context.Context, op string, dg digest.Digest, visit func(*entry) error) error {
	name, err := blobPath(dg)
	if err != nil {
		return err
	}
	e, _, err := c.scan.lookup(ctx, dg, name)
	if err == nil {
		defer c.unref(e)
		err = visit(e)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", op, dg, err)
	}
	return nil
}

// reference adds a reference to the entry of a blob and returns the entry. It returns false if the
// blob is not held or not yet verified.
func (c *contents) reference(dg digest.Digest) (*entry, bool) {
	name, err := blobPath(dg)
	if err != nil {
		return nil, false
	}
	e, suspect, err := c.scan.lookup(context.Background(), dg, name)
	if err != nil {
		return nil, false
	}
	if suspect {
		c.unref(e)
		return nil, false
	}
	return e, true
}

// find adds a reference to the entry of a blob and returns the entry. It verifies a suspect entry
// first.
func (c *contents) find(ctx context.Context, dg digest.Digest, name string) (*entry, error) {
	e, suspect, err := c.scan.lookup(ctx, dg, name)
	if err != nil || !suspect {
		return e, err
	}
	if err := c.checks.verify(ctx, e, name); err != nil {
		c.unref(e)
		return nil, err
	}
	return e, nil
}

// openEntry opens the file of a referenced entry. It drops the entry, and returns ErrNotFound, when
// the file is gone or has another length.
func (c *contents) openEntry(e *entry, name string) (*Blob, error) {
	if err := c.fault(OpOpen, name); err != nil {
		return nil, err
	}
	file, size, err := c.openFile(e, name)
	switch {
	case err == nil && size == e.size:
		return &Blob{home: c.resources, entry: e, file: file, again: true}, nil
	case err == nil:
		if err := file.Close(); err != nil {
			return nil, err
		}
		c.m.corrupt.Inc()
		c.log.Error("removed blob of wrong length from the cache", "digest", e.digest())
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	if err := c.evictor.remove(context.Background(), e); err != nil {
		return nil, err
	}
	return nil, ErrNotFound
}

// openFile returns an open file of an entry, and the file's length in bytes. It takes an idle file
// ([idleFiles]) or opens the file. It closes an idle file that another program has removed.
func (c *contents) openFile(e *entry, name string) (*os.File, int64, error) {
	var info syscall.Stat_t
	if f := c.files.take(e); f != nil {
		err := syscall.Fstat(int(f.Fd()), &info) // without the allocation of f.Stat
		if err == nil && info.Nlink > 0 {
			return f, info.Size, nil
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, 0, err
		}
	}
	f, err := c.open(name)
	if err != nil {
		return nil, 0, err
	}
	if err := syscall.Fstat(int(f.Fd()), &info); err != nil {
		return nil, 0, errors.Join(os.NewSyscallError("fstat", err), f.Close())
	}
	return f, info.Size, nil
}

// touch records a use as the modification time of the file. So the next process knows the order of
// last use.
func (c *contents) touch(e *entry, name string) {
	now := time.Now()
	last := e.touch.Load()
	if now.UnixNano()-last < int64(touchEvery) || !e.touch.CompareAndSwap(last, now.UnixNano()) {
		return
	}
	if err := c.root.Chtimes(name, now, now); err != nil {
		c.log.Warn("cannot record use of blob", "digest", e.digest(), "error", err)
	}
}
