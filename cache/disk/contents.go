package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// touchEvery bounds how often the last use of a blob is written to its file.
const touchEvery = time.Hour

// Blob is an open blob. It is not evicted before it is closed.
type Blob struct {
	dir   *Dir
	entry *entry
	file  *os.File
	once  sync.Once
	extra int64 // reservation of a second copy whose file this is
}

// Digest returns the identity of the blob.
func (b *Blob) Digest() digest.Digest { return b.entry.digest() }

// Size returns its length in bytes.
func (b *Blob) Size() int64 { return b.entry.size }

// File returns the file, for sendfile. It belongs to the blob: do not close or write it.
func (b *Blob) File() *os.File { return b.file }

// ReadAt is io.ReaderAt; it may be called concurrently.
func (b *Blob) ReadAt(p []byte, off int64) (int, error) {
	if err := b.dir.fault(OpRead, b.file.Name()); err != nil {
		return 0, err
	}
	return b.file.ReadAt(p, off)
}

// Close ends the use of the blob. Further calls do nothing.
func (b *Blob) Close() error {
	var err error
	b.once.Do(func() {
		err = b.file.Close()
		b.dir.unpin(b.entry)
		if b.extra > 0 {
			b.dir.release(b.extra, 0)
		}
	})
	return err
}

// Open returns the blob, or ErrNotFound. A blob from an unclean stop is verified
// first, which takes as long as reading it does; ctx bounds only that.
func (d *Dir) Open(ctx context.Context, dg digest.Digest) (*Blob, error) {
	name, err := blobPath(dg)
	if err != nil {
		return nil, err
	}
	e, err := d.find(ctx, dg, name)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dg, err)
	}
	b, err := d.openEntry(e, name)
	if err != nil {
		d.unpin(e)
		return nil, fmt.Errorf("open %s: %w", dg, err)
	}
	e.hit()
	d.touch(e, name)
	return b, nil
}

// Peek is Open for those who look after the directory: it counts as no use of the blob.
// One that is yet to be verified is not held.
func (d *Dir) Peek(dg digest.Digest) (*Blob, error) {
	e, ok := d.pin(dg)
	if !ok {
		return nil, fmt.Errorf("open %s: %w", dg, ErrNotFound)
	}
	name, err := blobPath(dg)
	if err == nil {
		var b *Blob
		if b, err = d.openEntry(e, name); err == nil {
			return b, nil
		}
	}
	d.unpin(e)
	return nil, fmt.Errorf("open %s: %w", dg, err)
}

// Use counts as an Open of each blob that is held, as far as eviction is concerned.
func (d *Dir) Use(blobs ...digest.Digest) {
	for _, dg := range blobs {
		name, err := blobPath(dg)
		if err != nil {
			continue
		}
		if e := d.held(dg); e != nil {
			e.hit()
			d.touch(e, name)
			d.unpin(e)
		}
	}
}

// Stat returns the length of a held blob. A blob that is yet to be verified is not held.
func (d *Dir) Stat(dg digest.Digest) (size int64, ok bool) {
	e, ok := d.pin(dg)
	if !ok {
		return 0, false
	}
	defer d.unpin(e)
	return e.size, true
}

// needed is what one who needs a blob adds to entry.pins, as readers add one. They are
// counted apart because nobody, not even an operator, takes away what a push needs.
const needed = 1 << 16

// Pin keeps a held blob until release is called; further calls
// of release do nothing. Pins are counted. ok is false when the blob is not held.
func (d *Dir) Pin(dg digest.Digest) (release func(), ok bool) {
	e, ok := d.pin(dg)
	if !ok {
		return nil, false
	}
	return d.need(e), true
}

// need turns the caller's pin of an entry into one of somebody who needs the blob. It lasts until release.
func (d *Dir) need(e *entry) (release func()) {
	e.pins.Add(needed - 1)
	return sync.OnceFunc(func() {
		e.pins.Add(1 - needed)
		d.unpin(e)
	})
}

// Keep pins a held blob, as Pin does, and returns once the blob is on stable storage. A blob from an unclean stop is
// verified first. It returns ErrNotFound when the blob is not held.
func (d *Dir) Keep(ctx context.Context, dg digest.Digest) (release func(), err error) {
	name, err := blobPath(dg)
	if err != nil {
		return nil, err
	}
	e, err := d.find(ctx, dg, name)
	if err != nil {
		return nil, fmt.Errorf("keep %s: %w", dg, err)
	}
	d.mu.RLock()
	clean := e.clean
	d.mu.RUnlock()
	if !clean {
		if err := d.syncNow(e); err != nil {
			d.unpin(e)
			return nil, fmt.Errorf("keep %s: %w", dg, asFull(err))
		}
	}
	return d.need(e), nil
}

func (d *Dir) pin(dg digest.Digest) (*entry, bool) {
	name, err := blobPath(dg)
	if err != nil {
		return nil, false
	}
	e, err := d.lookup(context.Background(), dg, name)
	if err != nil {
		return nil, false
	}
	d.mu.RLock()
	suspect := e.suspect
	d.mu.RUnlock()
	if suspect {
		d.unpin(e)
		return nil, false
	}
	return e, true
}

// Delete removes a blob. Who has it open reads on. A missing blob is no error.
func (d *Dir) Delete(ctx context.Context, dg digest.Digest) error {
	name, err := blobPath(dg)
	if err != nil {
		return err
	}
	e, err := d.lookup(ctx, dg, name)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("delete %s: %w", dg, err)
	}
	defer d.unpin(e)
	if err := d.remove(ctx, e); err != nil {
		return fmt.Errorf("delete %s: %w", dg, err)
	}
	return nil
}

// Purge is Delete by an operator: it returns ErrInUse for a blob that is open or pinned and leaves it alone. With
// force it does so only for one that a push needs. It returns ErrNotFound for a blob that is not held.
func (d *Dir) Purge(ctx context.Context, dg digest.Digest, force bool) error {
	name, err := blobPath(dg)
	if err != nil {
		return err
	}
	e, err := d.lookup(ctx, dg, name)
	if err != nil {
		return fmt.Errorf("purge %s: %w", dg, err)
	}
	defer d.unpin(e)
	idle := func() bool {
		if force {
			return e.pins.Load() < needed && d.kept[dg] <= d.operatorPins(dg)
		}
		return e.pins.Load() == 1 && d.kept[dg] == 0 // the one is this call
	}
	if err := d.removeIf(ctx, e, idle); err != nil {
		return fmt.Errorf("purge %s: %w", dg, err)
	}
	return nil
}

// Discard moves a blob whose bytes were found to be wrong to quarantine/, and counts it.
func (d *Dir) Discard(ctx context.Context, dg digest.Digest) error {
	d.m.corrupt.Inc()
	d.log.Error("corrupt blob dropped from cache", "digest", dg)
	name, err := blobPath(dg)
	if err != nil {
		return err
	}
	e, err := d.lookup(ctx, dg, name)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("discard %s: %w", dg, err)
	}
	defer d.unpin(e)
	return d.quarantine(ctx, e)
}

// remove dooms and unlinks an entry that the caller has pinned.
func (d *Dir) remove(ctx context.Context, e *entry) error {
	return d.removeIf(ctx, e, func() bool { return true })
}

// removeIf is remove, unless allowed, which is asked under mu, says no: then it is ErrInUse.
func (d *Dir) removeIf(ctx context.Context, e *entry, allowed func() bool) error {
	if err := d.takeName(ctx, e.digest()); err != nil {
		return err
	}
	d.mu.Lock()
	switch {
	case e.gone:
		d.yieldName(e.digest())
	case !allowed():
		d.yieldName(e.digest())
		d.mu.Unlock()
		return ErrInUse
	default:
		d.doom(e)
	}
	d.mu.Unlock()
	d.sweep()
	if !d.left(e) {
		return errUnlink
	}
	return nil
}

// find returns the entry, pinned and verified.
func (d *Dir) find(ctx context.Context, dg digest.Digest, name string) (*entry, error) {
	e, err := d.lookup(ctx, dg, name)
	if err != nil {
		return nil, err
	}
	d.mu.RLock()
	suspect := e.suspect
	d.mu.RUnlock()
	if !suspect {
		return e, nil
	}
	if err := d.verify(ctx, e, name); err != nil {
		d.unpin(e)
		return nil, err
	}
	return e, nil
}

// lookup returns the entry, pinned. Before the directory has been read, the file
// system is asked about what the index does not have.
func (d *Dir) lookup(ctx context.Context, dg digest.Digest, name string) (*entry, error) {
	if e := d.held(dg); e != nil {
		return e, nil
	}
	select {
	case <-d.scanDone:
		return nil, ErrNotFound
	default:
	}
	if err := d.takeName(ctx, dg); err != nil {
		return nil, err
	}
	defer d.freeName(dg)
	if e := d.held(dg); e != nil {
		return e, nil
	}
	info, err := d.root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, ErrNotFound
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, ErrNotFound
	}
	e := newEntry(keyOf(dg), info.Size(), info.Mode().Perm(), info.ModTime())
	e.pins.Add(1)
	d.mu.Lock()
	defer d.mu.Unlock()
	if other := d.index.get(dg); other != nil { // the scan came first
		other.pins.Add(1)
		return other, nil
	}
	d.insert(e)
	d.policy.add(e)
	return e, nil
}

// held returns the entry of the index, pinned, or nil.
func (d *Dir) held(dg digest.Digest) *entry {
	d.mu.RLock()
	defer d.mu.RUnlock()
	e := d.index.get(dg)
	if e != nil {
		e.pins.Add(1)
	}
	return e
}

// insert puts an entry into index and account, not into the policy. Needs mu.
func (d *Dir) insert(e *entry) {
	d.index.put(e)
	d.used += e.blocks()
	if e.suspect {
		d.suspects[e] = struct{}{}
	}
}

// openEntry opens the file of a pinned entry and drops the entry when the file is
// gone or has another length.
func (d *Dir) openEntry(e *entry, name string) (*Blob, error) {
	if err := d.fault(OpOpen, name); err != nil {
		return nil, err
	}
	file, err := d.openFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err == nil {
		info, serr := file.Stat()
		if serr == nil && info.Size() == e.size {
			return &Blob{dir: d, entry: e, file: file}, nil
		}
		if err := errors.Join(serr, file.Close()); err != nil {
			return nil, err
		}
		d.m.corrupt.Inc()
		d.log.Error("blob of wrong length dropped from cache", "digest", e.digest())
	}
	if err := d.remove(context.Background(), e); err != nil {
		return nil, err
	}
	return nil, ErrNotFound
}

// verify reads a pinned suspect and clears it, or drops it and returns ErrNotFound.
func (d *Dir) verify(ctx context.Context, e *entry, name string) error {
	if err := d.takeName(ctx, e.digest()); err != nil {
		return err
	}
	d.mu.RLock()
	suspect, gone := e.suspect, e.gone
	d.mu.RUnlock()
	if gone || !suspect {
		d.freeName(e.digest())
		if gone {
			return ErrNotFound
		}
		return nil
	}
	err := d.checkFile(ctx, e, name)
	if err == nil {
		d.m.verified.Inc()
		d.mu.Lock()
		e.suspect = false
		delete(d.suspects, e)
		d.dirty[e] = struct{}{}
		d.yieldName(e.digest())
		d.mu.Unlock()
		d.nudge()
		return nil
	}
	if !errors.Is(err, ErrCorrupt) && !errors.Is(err, fs.ErrNotExist) {
		d.freeName(e.digest())
		return err
	}
	d.m.corrupt.Inc()
	d.log.Error("blob of an unclean stop dropped from cache", "digest", e.digest(), "error", err)
	d.mu.Lock()
	d.doom(e)
	d.mu.Unlock()
	d.sweep()
	return ErrNotFound
}

// checkFile hashes the file of an entry.
func (d *Dir) checkFile(ctx context.Context, e *entry, name string) error {
	if err := d.fault(OpRead, name); err != nil {
		return err
	}
	f, err := d.openFile(name)
	if err != nil {
		return err
	}
	defer f.Close()
	v := e.digest().Verifier()
	n, err := io.CopyBuffer(v, contextReader{ctx, f}, make([]byte, 256<<10))
	if err != nil {
		return err
	}
	if n != e.size || !v.Verified() {
		return ErrCorrupt
	}
	return nil
}

// contextReader stops reading when its context ends.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.Read(p)
}

// touch records a use in the file, so that the order of last use outlives the process.
func (d *Dir) touch(e *entry, name string) {
	now := time.Now()
	last := e.touch.Load()
	if now.UnixNano()-last < int64(touchEvery) || !e.touch.CompareAndSwap(last, now.UnixNano()) {
		return
	}
	if err := d.root.Chtimes(name, now, now); err != nil {
		d.log.Warn("cannot record use of blob", "digest", e.digest(), "error", err)
	}
}
