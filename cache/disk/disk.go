package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// Op names a step that [Options.Fault] may fail.
type Op string

// The steps at which [Options.Fault] is asked.
const (
	OpCreate  Op = "create"
	OpWrite   Op = "write"
	OpRead    Op = "read" // of an unfinished file or of an open blob
	OpOpen    Op = "open"
	OpPublish Op = "publish"
	OpSync    Op = "sync"
	OpUnlink  Op = "unlink"
	OpList    Op = "list" // of a directory of blobs, at the start
)

// Options says where a directory is and what it may take.
type Options struct {
	// Path of the directory; created when missing.
	Path string
	// MaxBytes bounds blobs and reservations, counted in blocks of 4 KiB. Zero
	// leaves MinFreeBytes as the only bound.
	MaxBytes int64
	// MinFreeBytes of the file system are left to others.
	MinFreeBytes int64
	// Scrub says how what is held is verified again in the background.
	Scrub Scrub
	// Logger gets what has no caller to be returned to. Nil discards.
	Logger *slog.Logger
	// Fault, when set, is asked before the step on the named file is done; an error
	// takes its place. It exists for tests of failing disks.
	Fault func(op Op, name string) error
}

// Dir is an open directory of blobs. All methods may be called concurrently.
type Dir struct {
	opts Options
	log  *slog.Logger
	root *os.Root
	lock *os.File
	seq  atomic.Uint64 // of names in ingest/
	m    *metrics

	shards   sync.Map // name to *os.Root
	scanning atomic.Bool
	closing  atomic.Bool   // the scan ends early
	scrubbed atomic.Int64  // when the last full pass ended, in Unix seconds; 0: none did
	aside    chan struct{} // full while one changes quarantine/; capacity 1
	scanDone chan struct{} // closed when the directory has been read
	wake     chan struct{} // tells Run that blobs wait to be synced; capacity 1
	pinning  chan struct{} // full while one changes pins; capacity 1

	mu          sync.RWMutex // guards all below; leaf lock
	index       index
	busy        map[digest.Digest]chan struct{} // names being published, verified or unlinked
	policy      policy
	used        int64 // blocks of blobs, in bytes, until they are unlinked and closed
	reserved    int64 // blocks promised to ingests
	quarantined int64 // the part of used that is of files in quarantine/
	pending     int64 // the part of reserved that the file system has not yet given
	dirty       map[*entry]struct{}
	suspects    map[*entry]struct{}
	removed     map[digest.Digest]struct{} // what left the index while it is being read; nil afterwards
	doomed      []*entry                   // out of the index, not yet unlinked
	pins        map[string]Pin
	kept        map[digest.Digest]int    // how many pins, and keys of owed, name a blob
	former      []Left                   // of former processes, not yet handed over
	owed        map[string]digest.Digest // what former processes committed under a key
	sweeping    chan struct{}            // closed when the sweep under way is over
}

// Open takes possession of the directory and removes what was left unfinished. It
// returns ErrLocked when the directory is in use. It does not wait for the blobs
// to be listed: that is done by Run, or by the first reservation.
func Open(opts Options) (*Dir, error) {
	log := opts.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(opts.Path, 0o755); err != nil {
		return nil, fmt.Errorf("open cache directory: %w", err)
	}
	root, err := os.OpenRoot(opts.Path)
	if err != nil {
		return nil, fmt.Errorf("open cache directory: %w", err)
	}
	d := &Dir{
		opts: opts, log: log, root: root,
		scanDone: make(chan struct{}), wake: make(chan struct{}, 1),
		index: newIndex(), busy: map[digest.Digest]chan struct{}{},
		policy: newPolicy(opts.MaxBytes), dirty: map[*entry]struct{}{}, suspects: map[*entry]struct{}{},
		removed: map[digest.Digest]struct{}{}, pinning: make(chan struct{}, 1), aside: make(chan struct{}, 1),
		pins: map[string]Pin{}, kept: map[digest.Digest]int{}, owed: map[string]digest.Digest{},
	}
	d.m = newMetrics(d)
	if err := d.prepare(); err != nil {
		return nil, errors.Join(fmt.Errorf("open cache directory %s: %w", opts.Path, err), d.Close())
	}
	return d, nil
}

// Close gives the directory up. Run must have returned; blobs still open stay readable.
func (d *Dir) Close() error {
	d.closing.Store(true)
	if d.scanning.CompareAndSwap(false, true) {
		close(d.scanDone) // nobody begins it any more
	}
	<-d.scanDone
	var err error
	if d.lock != nil {
		err = d.lock.Close() // releases the lock with it
	}
	for _, l := range d.Recover() {
		if l.Ingest != nil {
			err = errors.Join(err, l.Ingest.Suspend())
		}
	}
	return errors.Join(err, d.closeShards(), d.root.Close())
}

// prepare locks the directory, lays it out, tidies ingest/, reads the pins and counts quarantine/.
func (d *Dir) prepare() error {
	lock, err := d.root.OpenFile("lock", os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	d.lock = lock
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return ErrLocked
		}
		return fmt.Errorf("lock: %w", err)
	}
	for _, name := range []string{"blobs", "ingest", "pins", "quarantine"} {
		if err := d.root.Mkdir(name, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return errors.Join(d.tidy(), d.loadPins(), d.trimQuarantine())
}

// fault asks the injected fault, if there is one.
func (d *Dir) fault(op Op, name string) error {
	if d.opts.Fault == nil {
		return nil
	}
	return d.opts.Fault(op, name)
}

// ingestName returns a name in ingest/ that no other ingest has.
func (d *Dir) ingestName() string {
	return "ingest/" + strconv.FormatUint(d.seq.Add(1), 10)
}
