package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// tree has the files and subdirectories on disk. It uses neither [entry] nor [account].
type tree struct {
	root   *os.Root
	lock   *os.File
	log    *slog.Logger
	inject func(op Op, name string) error // Options.Fault
	seq    atomic.Uint64                  // the last number that ingestName has used
	shards sync.Map                       // name to *os.Root
	few    bool                           // there are too few descriptors to keep shards open
	temp   string                         // the prefix of the names of unfinished files

	partial atomic.Bool // a directory of blobs could not be read; see unlisted
}

// acquire locks the directory and creates its subdirectories. It returns ErrLocked if another
// process has the lock.
func (t *tree) acquire() error {
	lock, err := t.root.OpenFile("lock", os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	t.lock = lock
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return ErrLocked
		}
		return fmt.Errorf("lock: %w", err)
	}
	for _, name := range []string{"blobs", "ingest", "pins", "quarantine"} {
		if err := t.root.Mkdir(name, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return t.syncDir(".")
}

// close releases the lock and closes the directory.
func (t *tree) close() error {
	var err error
	if t.lock != nil {
		err = t.lock.Close() // also releases the lock
	}
	for _, shard := range t.shards.Range {
		err = errors.Join(err, shard.(*os.Root).Close())
	}
	return errors.Join(err, t.root.Close())
}

// fault returns the error of Options.Fault, or nil if Options.Fault is not set.
func (t *tree) fault(op Op, name string) error {
	if t.inject == nil {
		return nil
	}
	return t.inject(op, name)
}

// ingestName returns a name that no other file has, for an unfinished file.
func (t *tree) ingestName() string {
	return t.temp + strconv.FormatUint(t.seq.Add(1), 10)
}

// openIn opens a file or directory for reading.
func openIn(dir *os.Root, name string) (*os.File, error) { return dir.OpenFile(name, os.O_RDONLY, 0) }

// shardFiles is a number of files. If a process cannot have so many files open, it does not keep
// the directories of blobs (shards) open.
const shardFiles = 2048

// open opens a file of blobs/ for reading. It keeps the directories of these files (shards) open,
// because walking down to a shard costs several times as much as opening a file in it. Each
// algorithm has 256 shards at most. If the process can have only few descriptors, open walks down
// each time.
func (t *tree) open(name string) (*os.File, error) {
	dir, base := path.Split(name)
	if shard, ok := t.shards.Load(dir); ok {
		f, err := openIn(shard.(*os.Root), base)
		if !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
		return openIn(t.root, name) // the shard may have been removed and created again
	}
	if t.few {
		return openIn(t.root, name)
	}
	shard, err := t.root.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	kept, had := t.shards.LoadOrStore(dir, shard)
	if had {
		if err := shard.Close(); err != nil {
			return nil, err
		}
	}
	return openIn(kept.(*os.Root), base)
}

// statfs returns the free and the total bytes of the file system.
func (t *tree) statfs() (free, total int64, err error) {
	var s unix.Statfs_t
	if err := unix.Fstatfs(int(t.lock.Fd()), &s); err != nil {
		return 0, 0, fmt.Errorf("statfs: %w", err)
	}
	return int64(s.Bavail) * int64(s.Bsize), int64(s.Blocks) * int64(s.Bsize), nil // types differ between systems
}

// names returns the names in a directory. It logs errors, and returns the names that it could read.
func (t *tree) names(dir string) []string {
	f, err := openIn(t.root, dir)
	if err != nil {
		t.unlisted(dir, err)
		return nil
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.unlisted(dir, err)
	}
	return names
}

// unlisted records that dray could not read a directory. The directory may have blobs that are not
// in the index.
func (t *tree) unlisted(dir string, err error) {
	t.partial.Store(true)
	t.log.Warn("cannot read cache directory; dray still finds the blobs in it that clients request", "dir", dir, "error", err)
}

// check hashes the file of a blob. It returns ErrCorrupt for a wrong digest or length.
func (t *tree) check(ctx context.Context, dg digest.Digest, name string, size int64) error {
	if err := t.fault(OpRead, name); err != nil {
		return err
	}
	f, err := t.open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	v := dg.Verifier()
	n, err := io.CopyBuffer(v, contextReader{ctx, f}, make([]byte, 256<<10))
	if err != nil {
		return err
	}
	if n != size || !v.Verified() {
		return ErrCorrupt
	}
	return nil
}

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

// seal syncs the bytes of a blob and then removes the write permission of its file. Because of this
// order, a file without write permission has the right bytes even after a power cut.
func (t *tree) seal(name string) error {
	if err := t.fault(OpSync, name); err != nil {
		return err
	}
	f, err := openIn(t.root, name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := datasync(f); err != nil {
		return err
	}
	return f.Chmod(0o444)
}

// syncDirs syncs a shard and the directories between it and the root, because the shard may be new.
// acquire has synced the root.
func (t *tree) syncDirs(shard string) error {
	for dir := shard; dir != "."; dir = path.Dir(dir) {
		if err := t.syncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

func (t *tree) syncDir(name string) error {
	f, err := openIn(t.root, name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
