package disk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"
)

// Options says where a directory is and how much space it may take.
type Options struct {
	// Path of the directory. It is created if it is missing.
	Path string
	// Pins is the directory that contains pins/. It is created if it is missing. Empty means Path. If
	// it is another directory, the pins survive the loss of Path.
	Pins string
	// MaxBytes bounds the total size of blobs and reservations, each rounded up to 4 KiB. Zero leaves
	// MinFreeBytes as the only bound.
	MaxBytes int64
	// MinFreeBytes is how many bytes of the file system stay free for other programs.
	MinFreeBytes int64
	// Scrub says how held blobs are verified again in the background.
	Scrub Scrub
	// Logger gets events that no method returns to its caller. Nil discards them.
	Logger *slog.Logger
	// Fault, if set, is called before each operation on a file, with the name of the file. If Fault
	// returns an error, the operation fails with that error. It exists for tests of failing disks.
	Fault func(op Op, name string) error
}

// Dir is an open directory of blobs. All methods may be called concurrently.
type Dir struct {
	opts Options
	*resources
	*contents
	*evictor
	*ingests
	*pins
}

// Open locks the directory and removes unfinished files, except the files of ingests that can be
// resumed. It returns ErrLocked when the directory is in use. It does not list the blobs: the first
// call that needs all blobs, such as Run or a reservation, lists them.
func Open(opts Options) (*Dir, error) {
	if err := os.MkdirAll(opts.Path, 0o755); err != nil {
		return nil, fmt.Errorf("open cache directory: %w", err)
	}
	root, err := os.OpenRoot(opts.Path)
	if err != nil {
		return nil, fmt.Errorf("open cache directory: %w", err)
	}
	a := newAccount(opts.MaxBytes, opts.MinFreeBytes)
	log := cmp.Or(opts.Logger, slog.New(slog.DiscardHandler))
	var files unix.Rlimit
	few := unix.Getrlimit(unix.RLIMIT_NOFILE, &files) == nil && files.Cur < shardFiles
	r := &resources{&tree{root: root, log: log, inject: opts.Fault, few: few, temp: "ingest/"}, a, newMetrics(a), &idleFiles{}}
	kept, err := keptTree(opts.Pins, r.tree)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open directory of pins: %w", err), root.Close())
	}
	scan, sync := &scanner{resources: r, done: make(chan struct{})}, &syncer{r, make(chan struct{}, 1)}
	ev := &evictor{resources: r, scan: scan}
	d := &Dir{
		opts: opts, resources: r, evictor: ev,
		ingests:  &ingests{resources: r, scan: scan, evictor: ev, sync: sync, committed: map[string]digest.Digest{}},
		pins:     &pins{resources: r, kept: kept, changing: make(chan struct{}, 1), byName: map[string]Pin{}},
		contents: &contents{r, scan, ev, sync, &checker{r, ev, sync}, &quarantine{r, ev, make(chan struct{}, 1)}},
	}
	if err := d.prepare(); err != nil {
		return nil, errors.Join(fmt.Errorf("open cache directory %s: %w", opts.Path, err), d.Close())
	}
	return d, nil
}

// prepare locks the directory, creates its subdirectories, tidies ingest/, reads the pins, and
// trims quarantine/.
func (d *Dir) prepare() error {
	if err := d.tree.acquire(); err != nil {
		return err
	}
	return errors.Join(d.ingests.tidy(), d.pins.load(), d.quarantine.trim())
}

// Close unlocks the directory. Run must have returned. Blobs that are open stay readable.
func (d *Dir) Close() error {
	d.contents.scan.stop()
	var err error
	for _, l := range d.Recover() {
		if l.Ingest != nil {
			err = errors.Join(err, l.Ingest.Suspend())
		}
	}
	return errors.Join(err, d.files.closeAll(), d.pins.close(), d.tree.close())
}

// boundsEvery is how often dray checks quota and free space even if nothing is reserved, because
// other programs fill the file system, too.
const boundsEvery = 10 * time.Second

// Run lists the blobs, and verifies each blob that an unclean stop may have damaged. Until ctx
// ends, it scrubs, keeps the directory within its bounds, and makes new blobs durable in groups.
// When ctx has ended, it syncs the remaining new blobs, so the next start need not verify them. It
// returns nil.
func (d *Dir) Run(ctx context.Context) error {
	if err := d.contents.scan.wait(ctx); err != nil {
		return nil // asked to stop
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { d.checks.run(ctx) })
	wg.Go(func() { d.scrub(ctx) })
	tick := time.NewTicker(boundsEvery)
	defer tick.Stop()
	d.enforceLimits()
	for {
		d.contents.sync.syncDirty()
		select {
		case <-d.contents.sync.wake:
		case <-tick.C:
			d.enforceLimits()
		case <-ctx.Done():
			wg.Wait()
			d.contents.sync.syncDirty()
			return nil
		}
	}
}

// scrub verifies held blobs until ctx ends. It returns at once if Options.Scrub has no interval.
func (d *Dir) scrub(ctx context.Context) {
	if s := d.opts.Scrub; s.Interval > 0 {
		(&scrubber{
			resources: d.resources, evictor: d.evictor, quarantine: d.quarantine, ctx: ctx,
			interval: s.Interval, rate: cmp.Or(s.BytesPerSecond, 8<<20), buf: make([]byte, scrubPiece),
		}).run()
	}
}

// Collectors returns the metrics of the directory.
func (d *Dir) Collectors() []prometheus.Collector { return d.m.collectors() }

// Stats returns how many blobs and bytes the directory holds.
func (d *Dir) Stats() Stats { return d.stats() }
