package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/opencontainers/go-digest"
)

// touchEvery bounds how often the last use of a blob is written to its file.
const touchEvery = time.Hour

// contents are the blobs that the directory holds, for those who read them or have them removed.
type contents struct {
	*resources
	scan       *scanner
	room       *evictor
	sync       *syncer
	checks     *checker
	quarantine *quarantine
}

// Open returns the blob, or ErrNotFound. A blob from an unclean stop is verified
// first, which takes as long as reading it does; ctx bounds only that.
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

// Peek is Open for those who look after the directory: it counts as no use of the blob.
// One that is yet to be verified is not held.
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

// Use counts as an Open of each blob that is held, as far as eviction is concerned.
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

// Stat returns the length of a held blob. A blob that is yet to be verified is not held.
func (c *contents) Stat(dg digest.Digest) (size int64, ok bool) {
	e, ok := c.reference(dg)
	if !ok {
		return 0, false
	}
	defer c.unref(e)
	return e.size, true
}

// Retain keeps a held blob until release is called, and returns once the blob is on stable storage.
// Calls are counted; further calls of release do nothing. A blob from an unclean stop is verified
// first. It returns ErrNotFound when the blob is not held.
func (c *contents) Retain(ctx context.Context, dg digest.Digest) (release func(), err error) {
	name, err := blobPath(dg)
	if err != nil {
		return nil, err
	}
	e, err := c.find(ctx, dg, name)
	if err != nil {
		return nil, fmt.Errorf("keep %s: %w", dg, err)
	}
	c.mu.RLock()
	clean := e.clean
	c.mu.RUnlock()
	if !clean {
		if err := c.sync.syncNow(e); err != nil {
			c.unref(e)
			return nil, fmt.Errorf("keep %s: %w", dg, asFull(err))
		}
	}
	return c.need(e), nil
}

// Delete removes a blob. Who has it open reads on. A missing blob is no error.
func (c *contents) Delete(ctx context.Context, dg digest.Digest) error {
	err := c.with(ctx, "delete", dg, func(e *entry) error { return c.room.remove(ctx, e) })
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// Unless says what keeps [Dir.Purge] from removing a blob.
type Unless int

// The reasons to leave a blob alone.
const (
	UnlessInUse  Unless = iota // it is open or pinned
	UnlessNeeded               // a push needs it
)

// Purge is Delete by an operator. It returns ErrInUse, and leaves the blob alone, where unless
// applies, and ErrNotFound for a blob that is not held.
func (c *contents) Purge(ctx context.Context, dg digest.Digest, unless Unless) error {
	return c.with(ctx, "purge", dg, func(e *entry) error {
		return c.room.removeIf(ctx, e, func() bool {
			if unless == UnlessNeeded {
				return c.users(e) < needed && c.claimed[dg].received == 0
			}
			return c.users(e) == 1 && c.claimed[dg] == claims{} // the one is this call
		})
	})
}

// Discard moves a blob whose bytes were found to be wrong to quarantine/, and counts it.
func (c *contents) Discard(ctx context.Context, dg digest.Digest) error {
	c.m.corrupt.Inc()
	c.log.Error("corrupt blob dropped from cache", "digest", dg)
	err := c.with(ctx, "discard", dg, func(e *entry) error { return c.quarantine.put(ctx, e) })
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// with calls work with the entry of a blob, referenced meanwhile and maybe not verified. what
// names the work in errors.
func (c *contents) with(ctx context.Context, what string, dg digest.Digest, work func(*entry) error) error {
	name, err := blobPath(dg)
	if err != nil {
		return err
	}
	e, _, err := c.scan.lookup(ctx, dg, name)
	if err == nil {
		defer c.unref(e)
		err = work(e)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", what, dg, err)
	}
	return nil
}

// reference returns the entry, referenced, unless it is yet to be verified.
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

// find returns the entry, referenced and verified.
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

// openEntry opens the file of a referenced entry and drops the entry when the file is
// gone or has another length.
func (c *contents) openEntry(e *entry, name string) (*Blob, error) {
	if err := c.fault(OpOpen, name); err != nil {
		return nil, err
	}
	file, err := c.open(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err == nil {
		info, serr := file.Stat()
		if serr == nil && info.Size() == e.size {
			return &Blob{home: c.resources, entry: e, file: file}, nil
		}
		if err := errors.Join(serr, file.Close()); err != nil {
			return nil, err
		}
		c.m.corrupt.Inc()
		c.log.Error("blob of wrong length dropped from cache", "digest", e.digest())
	}
	if err := c.room.remove(context.Background(), e); err != nil {
		return nil, err
	}
	return nil, ErrNotFound
}

// touch records a use in the file, so that the order of last use outlives the process.
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
