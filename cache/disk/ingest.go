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
)

// Ingest is a blob that is being written, either in order by Write, or in any order by WriteAt
// followed by Advance. Only one goroutine calls Write, Advance and Commit. WriteAt, ReadAt, Size,
// Reopen and Abort may be called from any goroutine. The creator always calls Abort in the end.
type Ingest struct {
	home      *ingests
	name      string
	file      *os.File
	want      int64 // announced length in bytes, or -1
	hash      hash.Hash
	size      atomic.Int64  // number of bytes, from offset 0 on, that Write has written or Advance has hashed
	written   atomic.Int64  // bytes given to WriteAt
	writeLock chan struct{} // lets one goroutine write at a time; without it, the kernel makes the others wait in a busy loop

	key      string // the next process finds the ingest under this key; empty if the ingest ends with this process
	note     []byte // what the owner of the ingest stores for the next process
	unhashed int64  // bytes that an earlier process wrote and that are not yet hashed

	mu       sync.Mutex
	ended    bool  // committed, aborted, suspended, or about to be
	reserved int64 // bytes of room that are reserved for the blob
	occupied int64 // the part of reserved that the file system has allocated
}

// ingests creates the files that are to become blobs. Some of these files outlive the process.
type ingests struct {
	*resources
	scan    *scanner
	evictor *evictor
	sync    *syncer

	// Guarded by account.mu.
	former    []Left                   // ingests and blobs that earlier processes left; nil after Recover
	committed map[string]digest.Digest // blobs that Keep protects, by key
}

// Create starts an ingest of size bytes and reserves room for them. If size is negative, the length
// is unknown, and room is reserved as the blob grows. Create returns ErrFull or ErrTooLarge when
// there is no room. If size is not negative, Create first waits until dray has listed the blobs on
// disk, or until ctx ends.
func (s *ingests) Create(ctx context.Context, size int64) (*Ingest, error) {
	in := s.ingest(s.ingestName(), max(size, -1))
	if size >= 0 {
		if err := s.evictor.reserve(ctx, blocks(size), size); err != nil {
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

// ingest returns an Ingest without a file.
func (s *ingests) ingest(name string, want int64) *Ingest {
	return &Ingest{home: s, name: name, want: want, hash: sha256.New(), writeLock: make(chan struct{}, 1)}
}

func (in *Ingest) create() error {
	return in.home.evictor.withRoom(func() (err error) {
		if err = in.home.fault(OpCreate, in.name); err == nil {
			in.file, err = in.home.root.OpenFile(in.name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		}
		return err
	})
}

// allocate asks the file system for blocks for the announced length. A lack of room then shows
// early, and writes are cheaper. allocate returns nil if the file system cannot allocate in
// advance.
func (in *Ingest) allocate() error {
	done, err := allocate(in.file, in.want)
	if isFull(err) && in.home.evictor.makeRoom(in.reserved, in.want) {
		done, err = allocate(in.file, in.want)
	}
	if done {
		in.gotBlocks(in.reserved)
	}
	return err
}

// gotBlocks records that the file system has allocated n bytes of the reservation in total.
func (in *Ingest) gotBlocks(n int64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if n = min(n, in.reserved); !in.ended && n > in.occupied {
		in.home.occupied(n - in.occupied)
		in.occupied = n
	}
}

// Size returns the number of bytes written so far. Bytes given to WriteAt count once Advance has
// passed them.
func (in *Ingest) Size() int64 { return in.size.Load() }

// ReadAt implements io.ReaderAt over the bytes written so far.
func (in *Ingest) ReadAt(p []byte, off int64) (int, error) {
	if err := in.home.fault(OpRead, in.name); err != nil {
		return 0, err
	}
	return in.file.ReadAt(p, off)
}

// Reopen opens the file a second time, for a reader that needs a file offset of its own. Reopen
// returns errors.ErrUnsupported on systems that cannot open a file twice.
func (in *Ingest) Reopen() (*os.File, error) {
	if err := in.home.fault(OpOpen, in.name); err != nil {
		return nil, err
	}
	return openAgain(in.file)
}

// Write appends p. It returns ErrSize when there are more bytes than announced, and ErrFull or
// ErrTooLarge when there is no room. Even with an error, the bytes that it reports as written stay,
// and a later Write continues after them.
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

// WriteAt writes part of a blob of announced length. Parts may come in any order, but callers write
// no byte twice. A byte counts as written once Advance has passed it. WriteAt returns ErrSize for
// bytes outside of the blob.
func (in *Ingest) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > in.want {
		return 0, fmt.Errorf("write at %d: outside of %d bytes: %w", off, in.want, ErrSize)
	}
	n, err := in.writeAt(p, off)
	in.gotBlocks(blocks(in.written.Add(int64(n))))
	if err != nil {
		return n, fmt.Errorf("write at %d: %w", off, asFull(err))
	}
	return n, nil
}

// Advance hashes the bytes from Size up to a later offset. It reads them from the file into buf,
// piece by piece. WriteAt must have written all of them.
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

// writeAt writes p at off. If the file system is full, writeAt evicts blobs and tries once more.
func (in *Ingest) writeAt(p []byte, off int64) (n int, err error) {
	n, err = in.writePart(p, off)
	if isFull(err) && in.home.evictor.makeRoom(blocks(int64(len(p)-n)), max(in.want, off+int64(len(p)))) {
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
	in.writeLock <- struct{}{}
	defer func() { <-in.writeLock }()
	return in.file.WriteAt(p, off)
}

// grow enlarges the reservation to at least n bytes.
func (in *Ingest) grow(n int64) error {
	in.mu.Lock()
	missing := blocks(n) - in.reserved
	in.mu.Unlock()
	if missing <= 0 {
		return nil
	}
	home := in.home
	step := max(missing, growStep)
	err := home.evictor.reserve(context.Background(), step, n)
	if err != nil && step > missing { // the blob may need less than a step
		step = missing
		err = home.evictor.reserve(context.Background(), step, n)
	}
	if err != nil {
		return err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.ended {
		home.release(step, step)
		return fs.ErrClosed
	}
	in.reserved += step
	return nil
}

// Commit verifies the digest and the length, publishes the blob, and returns it open. It also
// succeeds if the blob is already held. If Commit returns an error, such as ErrCorrupt or ErrSize,
// nothing is published. ctx bounds only the wait for other calls that work on the same digest.
// [Dir.Run] makes the bytes durable later.
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
	if err := in.noteDigest(dg); err != nil {
		return nil, asFull(err)
	}
	if !in.end() {
		return nil, fs.ErrClosed
	}
	if e := home.soundEntry(dg, name); e != nil {
		return in.duplicate(e), nil
	}
	if err := in.publish(name); err != nil {
		in.undoEnd()
		return nil, asFull(err)
	}
	return in.addEntry(dg), nil
}

// [Ingest.end] marks the ingest as ended by the caller. It returns false if another caller has
// ended it.
func (in *Ingest) end() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	was := in.ended
	in.ended = true
	return !was
}

func (in *Ingest) undoEnd() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.ended = false
}

// check returns an error for a wrong digest or length. No blob is published without this check.
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
		return fmt.Errorf("the bytes have the digest %s: %w", got, ErrCorrupt)
	}
	return nil
}

// soundEntry returns the entry of a digest, or nil if there is none. It adds a reference to the
// entry that it returns. If the entry is suspect, or its file is missing or has another length,
// soundEntry takes the entry out of the index and returns nil. The caller has taken the name and is
// about to replace the file.
func (s *ingests) soundEntry(dg digest.Digest, name string) *entry {
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
	s.unindex(e)
	s.mu.Unlock()
	e.unlinked.Store(true)
	s.unref(e)
	return nil
}

// publish moves the file into blobs/, where readers look, by one rename. It does not sync the file.
// The write permission marks the file as unsynced until [Dir.Run] has synced it.
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
		err = in.home.evictor.withRoom(func() error { return root.MkdirAll(path.Dir(name), 0o755) })
		if err != nil {
			return err
		}
		err = root.Rename(in.name, name)
	}
	return err
}

// addEntry turns the reservation into an entry of the index, and returns the open blob.
func (in *Ingest) addEntry(dg digest.Digest) *Blob {
	e := &entry{key: keyOf(dg), size: in.size.Load()}
	if info, err := in.file.Stat(); err == nil {
		e.touch.Store(info.ModTime().UnixNano())
	}
	e.refs.Add(1)
	in.home.addEntry(e, in.reserved, in.occupied)
	in.home.sync.nudge()
	return &Blob{home: in.home.resources, entry: e, file: in.file}
}

// [Ingest.duplicate] ends the ingest of a blob that is already held. It unlinks the file of the
// ingest. The returned Blob reads from that file, and the blocks stay reserved until the Blob is
// closed.
func (in *Ingest) duplicate(e *entry) *Blob {
	extra := in.reserved
	if err := in.unlink(); err != nil {
		in.home.log.Warn("cannot remove unfinished file", "error", err)
		extra = 0 // the file still exists, so Blob.Close must not release its blocks
	}
	in.home.release(0, in.reserved-in.occupied)
	return &Blob{home: in.home.resources, entry: e, file: in.file, extra: extra}
}

// Abort removes the unfinished file and gives its room back. A Commit that is still verifying then
// fails. Abort can be deferred, because it does nothing if Commit already publishes the blob, or if
// Suspend or Abort was called before.
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
		reserved = pending // the blocks of the file stay reserved
	}
	in.home.release(reserved, pending)
	if in.key != "" {
		err = errors.Join(err, in.home.removeNote(in.key))
	}
	return errors.Join(err, in.file.Close())
}

// unlink removes the unfinished file from ingest/.
func (in *Ingest) unlink() error {
	if err := in.home.fault(OpUnlink, in.name); err != nil {
		return err
	}
	return in.home.root.Remove(in.name)
}
