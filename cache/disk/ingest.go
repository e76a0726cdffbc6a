package disk

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// Ingest is a blob being written, either in order by Write, or in any order by WriteAt
// with Advance behind. One goroutine writes, advances and commits; WriteAt, ReadAt, Size
// and Abort may be called from any. Whoever creates one calls Abort in the end.
type Ingest struct {
	home    *ingests
	name    string
	file    *os.File
	want    int64 // length announced, or -1
	hash    hash.Hash
	size    atomic.Int64  // of the beginning that is written and hashed
	put     atomic.Int64  // bytes given to WriteAt
	writing chan struct{} // of writing: the kernel lets one write at a time into a file, and has others spin

	key      string // under which it is kept; empty: it ends with the process
	note     []byte // kept with it
	unhashed int64  // bytes of a former process that are yet to be hashed

	mu       sync.Mutex
	over     bool  // committed, aborted, or about to be
	reserved int64 // bytes promised
	occupied int64 // of these, bytes the file system has given
}

// ingests are the files on their way to become blobs. Some of them outlive the process.
type ingests struct {
	*resources
	scan *scanner
	room *evictor
	sync *syncer

	// Guarded by account.mu.
	former []Left                   // of former processes, not yet handed over
	owed   map[string]digest.Digest // what former processes committed under a key
}

// Create reserves room for a blob of size bytes (below zero: not known, reserved as it grows) and
// starts it. It returns ErrFull or ErrTooLarge when there is none; ctx bounds the wait for the
// directory to be read.
func (s *ingests) Create(ctx context.Context, size int64) (*Ingest, error) {
	in := s.ingest(s.ingestName(), max(size, -1))
	if size >= 0 {
		if err := s.room.reserve(ctx, blocks(size), size); err != nil {
			return nil, fmt.Errorf("create: %w", err)
		}
		in.reserved = blocks(size)
	}
	err := in.create()
	if err == nil && size > 0 {
		err = in.allocate()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create: %w", asFull(err)), in.Abort())
	}
	return in, nil
}

// ingest returns one without a file.
func (s *ingests) ingest(name string, want int64) *Ingest {
	return &Ingest{home: s, name: name, want: want, hash: sha256.New(), writing: make(chan struct{}, 1)}
}

// create makes the file.
func (in *Ingest) create() (err error) {
	if err = in.home.fault(OpCreate, in.name); err == nil {
		in.file, err = in.home.root.OpenFile(in.name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	}
	return err
}

// allocate takes the announced length from the file system at once: it says early
// when there is no room, and makes the writes cheaper. Not all file systems can.
func (in *Ingest) allocate() error {
	done, err := allocate(in.file, in.want)
	if errors.Is(err, unix.ENOSPC) && in.home.room.makeRoom(in.reserved, in.want) {
		done, err = allocate(in.file, in.want)
	}
	if done {
		in.gotBlocks(in.reserved)
	}
	return err
}

// gotBlocks records that the file system has given n bytes of the reservation in all.
func (in *Ingest) gotBlocks(n int64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if n = min(n, in.reserved); !in.over && n > in.occupied {
		in.home.occupied(n - in.occupied)
		in.occupied = n
	}
}

// Size returns the number of bytes written so far; of those given to WriteAt, those advanced over.
func (in *Ingest) Size() int64 { return in.size.Load() }

// ReadAt is io.ReaderAt over what has been written so far.
func (in *Ingest) ReadAt(p []byte, off int64) (int, error) {
	if err := in.home.fault(OpRead, in.name); err != nil {
		return 0, err
	}
	return in.file.ReadAt(p, off)
}

// Reopen opens the file once more, with an offset of its own, for who reads what has been
// written while more is. It returns errors.ErrUnsupported where a system cannot do that.
func (in *Ingest) Reopen() (*os.File, error) {
	if err := in.home.fault(OpOpen, in.name); err != nil {
		return nil, err
	}
	return openAgain(in.file)
}

// Write appends. It returns ErrSize when there is more than was announced, and
// ErrFull or ErrTooLarge when there is no room; what it says was written stays, and
// a later Write continues there.
func (in *Ingest) Write(p []byte) (int, error) {
	if err := in.rehash(); err != nil {
		return 0, err
	}
	at := in.size.Load()
	if in.want >= 0 && at+int64(len(p)) > in.want {
		return 0, fmt.Errorf("write at %d: more than %d bytes: %w", at, in.want, ErrSize)
	}
	if err := in.grow(at + int64(len(p))); err != nil {
		return 0, fmt.Errorf("write at %d: %w", at, err)
	}
	n, err := in.writeAt(p, at)
	in.hash.Write(p[:n]) // never fails
	in.size.Add(int64(n))
	in.gotBlocks(blocks(at + int64(n)))
	if err != nil {
		return n, fmt.Errorf("write at %d: %w", at, asFull(err))
	}
	return n, nil
}

// WriteAt writes within a blob of announced length, in any order. Callers write no byte twice, and
// each byte counts once Advance has passed it. It returns ErrSize for a place outside of the blob.
func (in *Ingest) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > in.want {
		return 0, fmt.Errorf("write at %d: outside of %d bytes: %w", off, in.want, ErrSize)
	}
	n, err := in.writeAt(p, off)
	in.gotBlocks(blocks(in.put.Add(int64(n))))
	if err != nil {
		return n, fmt.Errorf("write at %d: %w", off, asFull(err))
	}
	return n, nil
}

// Advance hashes what WriteAt has written up to byte to, from Size on. buf is used for reading.
func (in *Ingest) Advance(to int64, buf []byte) error {
	for at := in.size.Load(); at < to; {
		n, err := in.ReadAt(buf[:min(int64(len(buf)), to-at)], at)
		in.hash.Write(buf[:n]) // never fails
		at += int64(n)
		in.size.Store(at)
		if err != nil && at < to {
			return fmt.Errorf("read at %d: %w", at, err)
		}
	}
	return nil
}

// writeAt writes p at off. When the file system is full it evicts blobs and goes on.
func (in *Ingest) writeAt(p []byte, off int64) (n int, err error) {
	n, err = in.writePart(p, off)
	if errors.Is(err, unix.ENOSPC) && in.home.room.makeRoom(blocks(int64(len(p)-n)), off) {
		var more int
		more, err = in.writePart(p[n:], off+int64(n))
		n += more
	}
	return n, err
}

func (in *Ingest) writePart(p []byte, off int64) (int, error) {
	if err := in.home.fault(OpWrite, in.name); err != nil {
		return 0, err
	}
	in.writing <- struct{}{}
	defer func() { <-in.writing }()
	return in.file.WriteAt(p, off)
}

// grow reserves what is missing for a length of n.
func (in *Ingest) grow(n int64) error {
	in.mu.Lock()
	missing := blocks(n) - in.reserved
	in.mu.Unlock()
	if missing <= 0 {
		return nil
	}
	home := in.home
	step := max(missing, growStep)
	err := home.room.reserve(context.Background(), step, n)
	if err != nil && step > missing { // a step may be more than the blob needs
		step = missing
		err = home.room.reserve(context.Background(), step, n)
	}
	if err != nil {
		return err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.over {
		home.release(step, step)
		return fs.ErrClosed
	}
	in.reserved += step
	return nil
}

// Commit verifies digest and length and publishes the blob, which it returns open. A blob already
// held is success. ErrCorrupt and ErrSize leave nothing published. ctx bounds only the wait for
// others working on the same digest. The bytes are made durable later, by Run.
func (in *Ingest) Commit(ctx context.Context, dg digest.Digest) (*Blob, error) {
	b, err := in.commit(ctx, dg)
	if err != nil {
		return nil, fmt.Errorf("commit %s: %w", dg, err)
	}
	return b, nil
}

func (in *Ingest) commit(ctx context.Context, dg digest.Digest) (*Blob, error) {
	name, err := blobPath(dg)
	if err != nil {
		return nil, err
	}
	if err := in.check(dg); err != nil {
		return nil, err
	}
	home := in.home
	if err := home.takeName(ctx, dg); err != nil {
		return nil, err
	}
	defer home.freeName(dg)
	if err := in.committing(dg); err != nil {
		return nil, asFull(err)
	}
	if !in.end() {
		return nil, fs.ErrClosed
	}
	if e := home.present(dg, name); e != nil {
		return in.duplicate(e), nil
	}
	if err := in.publish(name); err != nil {
		in.reopen()
		return nil, asFull(err)
	}
	return in.enter(dg), nil
}

// end claims the end of the ingest for the caller; false when it has ended already.
func (in *Ingest) end() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	was := in.over
	in.over = true
	return !was
}

// reopen takes end back.
func (in *Ingest) reopen() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.over = false
}

// check is the one door: nothing gets past it whose digest or length is wrong.
func (in *Ingest) check(dg digest.Digest) error {
	size := in.size.Load()
	if in.want >= 0 && size != in.want {
		return fmt.Errorf("%d bytes instead of %d: %w", size, in.want, ErrSize)
	}
	if err := in.rehash(); err != nil {
		return err
	}
	got := digest.NewDigest(digest.SHA256, in.hash)
	if dg.Algorithm() != digest.SHA256 {
		h := dg.Algorithm().Hash()
		if _, err := io.CopyBuffer(h, io.NewSectionReader(in, 0, size), make([]byte, 256<<10)); err != nil {
			return err
		}
		got = digest.NewDigest(dg.Algorithm(), h)
	}
	if got != dg {
		return fmt.Errorf("bytes are %s: %w", got, ErrCorrupt)
	}
	return nil
}

// present returns the sound entry of a digest, referenced, if its file is really there.
// Otherwise a stale entry is dropped; its file, if any, is about to be replaced.
// Needs the name.
func (s *ingests) present(dg digest.Digest, name string) *entry {
	e, _ := s.held(dg)
	if e == nil {
		return nil
	}
	info, err := s.root.Lstat(name)
	s.mu.Lock()
	if err == nil && info.Size() == e.size && !e.suspect {
		s.mu.Unlock()
		return e
	}
	s.forget(e)
	s.mu.Unlock()
	e.unlinked.Store(true)
	s.unref(e)
	return nil
}

// publish puts the file where readers look, by one rename. It is not synced: the
// write permission says so until Run has done it.
func (in *Ingest) publish(name string) error {
	root := in.home.root
	if err := in.home.fault(OpPublish, in.name); err != nil {
		return err
	}
	if err := in.file.Chmod(0o644); err != nil {
		return err
	}
	err := root.Rename(in.name, name)
	if errors.Is(err, fs.ErrNotExist) { // the first blob of its shard
		if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
			return err
		}
		err = root.Rename(in.name, name)
	}
	return err
}

// enter turns the reservation into an entry of the index.
func (in *Ingest) enter(dg digest.Digest) *Blob {
	e := &entry{key: keyOf(dg), size: in.size.Load()}
	if info, err := in.file.Stat(); err == nil {
		e.touch.Store(info.ModTime().UnixNano())
	}
	e.refs.Add(1)
	in.home.enter(e, in.reserved, in.occupied)
	in.home.sync.nudge()
	return &Blob{home: in.home.resources, entry: e, file: in.file}
}

// duplicate ends the ingest of a blob that is held already: its file serves those
// who read it, and its blocks are accounted for, until the Blob is closed.
func (in *Ingest) duplicate(e *entry) *Blob {
	extra := in.reserved
	if err := in.unlink(); err != nil {
		in.home.log.Warn("cannot remove unfinished file", "error", err)
		extra = 0 // its blocks stay taken
	}
	in.home.release(0, in.reserved-in.occupied)
	return &Blob{home: in.home.resources, entry: e, file: in.file, extra: extra}
}

// Abort removes the unfinished file and gives its room back. It does nothing while Commit is
// at work, after it has succeeded, or when called again, so that it can be deferred.
func (in *Ingest) Abort() error {
	if !in.end() {
		return nil
	}
	in.mu.Lock()
	reserved, pending := in.reserved, in.reserved-in.occupied
	in.mu.Unlock()
	if in.file == nil {
		in.home.release(reserved, pending)
		return nil
	}
	err := in.unlink()
	if err != nil && in.file.Truncate(0) != nil {
		reserved = pending // the rest stays taken
	}
	in.home.release(reserved, pending)
	if in.key != "" {
		err = errors.Join(err, in.home.removeNote(in.key))
	}
	return errors.Join(err, in.file.Close())
}

// unlink removes the unfinished file from its directory.
func (in *Ingest) unlink() error {
	if err := in.home.fault(OpUnlink, in.name); err != nil {
		return err
	}
	return in.home.root.Remove(in.name)
}
