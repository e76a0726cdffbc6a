// Package cache gets bytes by digest: from memory, from disk, from a flight under
// way, or by starting one fetch.
//
// Invariants:
//   - One flight per digest, whoever asks and for whichever range. It belongs to the
//     cache: its context is detached from every caller's and bounded by lack of
//     progress, and no reader, slow or leaving, affects another.
//   - A reader that reads from byte 0 never receives the last byte before the digest
//     of the whole is known to match, so wrong bytes always look cut off, never complete.
//   - The cache may fail, the pull may not: when the disk does, each reader goes on
//     with a fetch of its own, and the failure is counted.
//   - Errors of an origin are handed on as they are and never remembered.
package cache

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/cache/disk"
)

// Errors of this package beside those of an origin; test for them with errors.Is.
var (
	// ErrNotFound says that neither memory nor disk holds the blob.
	ErrNotFound = disk.ErrNotFound
	// ErrFull says that the disk has no room now.
	ErrFull = disk.ErrFull
	// ErrTooLarge says that the blob could never be held, or is longer than the caller allows.
	ErrTooLarge = disk.ErrTooLarge
	// ErrCorrupt says that the bytes given do not have the digest they should have.
	ErrCorrupt = disk.ErrCorrupt
	// ErrSize says that there were more or fewer bytes than announced.
	ErrSize = disk.ErrSize
	// ErrDigest says that a digest is malformed or of an algorithm that is not supported.
	ErrDigest = disk.ErrDigest
	// ErrInUse says that a blob is open or pinned, and was left alone for that.
	ErrInUse = disk.ErrInUse
	// ErrStalled says that an origin gave nothing for Options.StallTimeout.
	ErrStalled = errors.New("origin makes no progress")
	// ErrAborted is what followers of an upload get that was given up without a reason.
	ErrAborted = errors.New("upload aborted")
	// ErrClosed says that the reader, upload or cache is closed.
	ErrClosed = errors.New("closed")
)

// Blob names bytes.
type Blob struct {
	Digest digest.Digest
	Size   int64 // length in bytes; below zero: not known
	// Via names the place that the caller's origin asks. Callers share one fetch
	// whatever they name, but the refusal of one place says nothing about another:
	// who named another one asks there.
	Via string
	// Split says how a large blob is fetched in several parts at once; nil: never.
	Split *Split
	// Ahead says that the caller does not read, and fetches for those who come. It counts as no opening, and who joins its fetch first
	// has [SourceOrigin], as if they had begun it.
	Ahead bool
}

// Stream is the answer of an origin.
type Stream struct {
	Body io.ReadCloser // from Skip bytes before the byte asked for to the end
	Size int64         // length of the whole blob; below zero: not known
	// Whole says that the origin sends all although it was asked for a part.
	Whole bool
	// Skip is how many bytes Body gives before the one asked for. They are read and dropped.
	Skip int64
}

// Origin fetches a blob from byte from on. One that cannot start there returns an
// error. It returns soon after ctx ends; Body is then closed, maybe during a Read. It
// may be called again, later and concurrently.
type Origin func(ctx context.Context, from int64) (Stream, error)

// Options of a cache.
type Options struct {
	// Disk holds the blobs. The caller closes it after Run has returned.
	Disk *disk.Dir
	// MemoryBytes bounds the small objects kept in memory (Put, Bytes). Zero means 64 MiB.
	MemoryBytes int64
	// StallTimeout ends a request to an origin that gives nothing for so long. Zero means 30 s.
	StallTimeout time.Duration
	// MaxResumes bounds how often one fetch is continued after its origin broke, counted anew when it has got 32 MiB since. Zero means 5.
	MaxResumes int
	// Abandon says what becomes of a fetch whose readers have all left.
	Abandon Abandon
	// Logger gets what no caller is told. Nil discards.
	Logger *slog.Logger
}

// Cache gets bytes by digest. All methods may be called concurrently.
type Cache struct {
	opts     Options
	log      *slog.Logger
	disk     *disk.Dir
	memory   *memory
	together *together
	m        *metrics
	buffers  sync.Pool // of *[]byte, bufferSize long

	ctx    context.Context // of the flights
	cancel context.CancelCauseFunc
	flying sync.WaitGroup

	mu      sync.Mutex // guards below; leaf lock
	flights map[digest.Digest]*flight
	closed  bool // no more flights
}

// bufferSize of one read from an origin: pieces of this size end up in large folios of the page cache.
const bufferSize = 256 << 10

// New returns a cache. It serves at once; Run does its background work.
func New(opts Options) *Cache {
	if opts.MemoryBytes == 0 {
		opts.MemoryBytes = 64 << 20
	}
	if opts.StallTimeout == 0 {
		opts.StallTimeout = 30 * time.Second
	}
	if opts.MaxResumes == 0 {
		opts.MaxResumes = 5
	}
	if opts.Abandon.FinishPercent == 0 {
		opts.Abandon.FinishPercent = 50
	}
	if opts.Abandon.Grace == 0 {
		opts.Abandon.Grace = 10 * time.Second
	}
	c := &Cache{opts: opts, log: opts.Logger, disk: opts.Disk, flights: map[digest.Digest]*flight{}}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.memory, c.together = newMemory(opts.MemoryBytes), newTogether()
	c.buffers.New = func() any { b := make([]byte, bufferSize); return &b }
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	c.m = newMetrics(c)
	return c
}

// Run does the background work of cache and disk until ctx ends. It then cancels
// the flights, waits for them, and makes durable what was published. From then on
// Open serves what is held and passes the rest through.
func (c *Cache) Run(ctx context.Context) error {
	diskCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	done := make(chan error, 1)
	go func() { done <- c.disk.Run(diskCtx) }()
	<-ctx.Done()
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel(ErrClosed)
	c.flying.Wait()
	stop()
	return <-done
}

// Open returns a reader of the blob, and its origin's error as it is when the blob
// is not held and cannot be fetched. The refusal may have been that of an origin of
// the same Via. It returns as soon as the origin has answered. Size of
// b is believed only where the origin does not say. ctx bounds the wait of the caller and the reads
// of the reader; a flight it started goes on without it.
func (c *Cache) Open(ctx context.Context, b Blob, origin Origin) (*Reader, error) {
	if p, ok := c.memory.get(b.Digest); ok {
		return c.reader(ctx, b, origin, memoryBytes(p), SourceMemory), nil
	}
	for range maxLooks {
		blob, err := c.disk.Open(ctx, b.Digest)
		switch {
		case err == nil:
			return c.reader(ctx, b, origin, diskBytes{blob}, SourceDisk), nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case errors.Is(err, ErrDigest):
			return nil, err
		case !errors.Is(err, ErrNotFound):
			c.degraded(&localError{"open", err}, b.Digest)
			return c.passThrough(ctx, b, origin, nil)
		}
		r, err := c.ride(ctx, b, origin)
		if !errors.Is(err, errLookAgain) {
			return r, err
		}
	}
	c.degraded(&localError{"evicted", ErrFull}, b.Digest) // what was fetched is gone at once, again and again
	return c.passThrough(ctx, b, origin, nil)
}

// maxLooks bounds how often Open looks on disk for what a flight has just put there.
const maxLooks = 3

// Stat returns the length of a blob held in memory or on disk.
func (c *Cache) Stat(d digest.Digest) (size int64, ok bool) {
	if p, ok := c.memory.get(d); ok {
		return int64(len(p)), true
	}
	return c.disk.Stat(d)
}

// Pin keeps a blob that is on disk from being evicted until release is called; see [disk.Dir.Pin].
func (c *Cache) Pin(d digest.Digest) (release func(), ok bool) { return c.disk.Pin(d) }

// Delete removes a blob from memory and disk. Who reads it reads on. A missing blob is no error.
func (c *Cache) Delete(ctx context.Context, d digest.Digest) error {
	c.memory.remove(d)
	return c.disk.Delete(ctx, d)
}

// Purge is Delete by an operator: see [disk.Dir.Purge]. What is only in memory is dropped, too.
func (c *Cache) Purge(ctx context.Context, d digest.Digest, force bool) error {
	if err := c.disk.Purge(ctx, d, force); err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	c.memory.remove(d)
	return nil
}

// localError is a failure of the cache itself, never of an origin.
type localError struct {
	reason string // a metric label
	err    error
}

func (e *localError) Error() string { return "cache " + e.reason + ": " + e.err.Error() }
func (e *localError) Unwrap() error { return e.err }

// reasonRead is the reason of a localError that a reader met by itself.
const reasonRead = "read"

// local makes an error of the disk a localError; reason is what was being done.
func local(reason string, err error) *localError {
	switch {
	case errors.Is(err, ErrFull):
		reason = "full"
	case errors.Is(err, ErrTooLarge):
		reason = "too large"
	}
	return &localError{reason, err}
}

// degraded counts a failure that a pull survives.
func (c *Cache) degraded(e *localError, d digest.Digest) {
	c.m.degraded.WithLabelValues(e.reason).Inc()
	c.log.Warn("blob passed through uncached", "digest", d, "error", e)
}
