package cache

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"

	"dray/cache/disk"
	"dray/cache/memory"
)

// Options of a cache.
type Options struct {
	// Disk holds the blobs. The caller closes it after Run has returned.
	Disk *disk.Dir
	// MemoryBytes bounds the bytes of small objects in memory (see Put and Bytes). Zero means 64 MiB.
	MemoryBytes int64
	// StallTimeout ends a request to an origin that sends no bytes for this time. Zero means 30 s.
	StallTimeout time.Duration
	// MaxResumes bounds how often one fetch is resumed after its origin broke off. The count starts
	// again each time at least 32 MiB have arrived without a break. Zero means 5.
	MaxResumes int
	// Abandon says what happens to a fetch that all readers have left.
	Abandon Abandon
	// Logger gets events that no method returns to its caller. Nil discards them.
	Logger *slog.Logger
}

// Cache gets bytes by digest. All methods may be called concurrently.
type Cache struct {
	*resources
	*objects
	*together
	fetcher *fetcher
	flights *flights
}

// New returns a cache, which can be used at once. Run does its background work.
func New(opts Options) *Cache {
	c := &Cache{resources: &resources{disk: opts.Disk, log: cmp.Or(opts.Logger, slog.New(slog.DiscardHandler))}}
	c.buffers.New = func() any { b := make([]byte, bufferSize); return &b }
	c.objects = &objects{c.resources, memory.New(cmp.Or(opts.MemoryBytes, 64<<20))}
	c.together = newTogether(c.resources)
	c.fetcher = &fetcher{c.resources, cmp.Or(opts.StallTimeout, 30*time.Second), cmp.Or(opts.MaxResumes, 5), c.Open}
	c.flights = newFlights(c.fetcher, opts.Abandon)
	c.m = newMetrics(c.flights.number, c.memory.Size)
	return c
}

// Run does the background work of cache and disk until ctx ends. It then closes the cache, makes
// the published blobs durable, and returns nil.
func (c *Cache) Run(ctx context.Context) error {
	diskCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	done := make(chan error, 1)
	go func() { done <- c.disk.Run(diskCtx) }()
	<-ctx.Done()
	c.Close()
	stop()
	return <-done
}

// Close cancels the flights and waits for them. After that, Open serves held blobs, and passes
// other blobs through without storing them. Run calls Close, so only the owner of a cache that
// never runs has to call Close. Further calls do nothing.
func (c *Cache) Close() { c.flights.close() }

// Open returns a reader of the blob as soon as the origin has answered, or at once if the blob is
// held. If the blob can be neither read nor fetched, Open returns the error of the origin
// unchanged. The error may come from the origin of another caller with the same [Blob.Via]. If
// b.Size is known and the origin gives a larger size, Open returns ErrSize. Any other size that the
// origin gives replaces b.Size. ctx bounds the wait of the caller and the reads of the reader. A
// flight that Open started does not end with ctx.
func (c *Cache) Open(ctx context.Context, b Blob, origin Origin) (*Reader, error) {
	if p, ok := c.memory.Get(b.Digest); ok {
		return c.fetcher.reader(ctx, b, origin, memoryBytes(p), SourceMemory), nil
	}
	for range maxLooks {
		blob, err := c.disk.Open(ctx, b.Digest)
		switch {
		case err == nil:
			return c.fetcher.reader(ctx, b, origin, diskBytes{blob}, SourceDisk), nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case errors.Is(err, ErrDigest):
			return nil, err
		case !errors.Is(err, ErrNotFound):
			c.degraded(&localError{"open", err}, b.Digest)
			c.unreadable(ctx, b.Digest, err)
			return c.fetcher.passThrough(ctx, b, origin, nil)
		}
		r, err := c.flights.open(ctx, b, origin)
		if !errors.Is(err, errLookAgain) {
			return r, err
		}
	}
	c.degraded(&localError{"evicted", ErrFull}, b.Digest) // the blob was evicted as soon as it was fetched
	return c.fetcher.passThrough(ctx, b, origin, nil)
}

// maxLooks bounds how often Open looks on disk for a blob that a flight has just published.
const maxLooks = 3

// OpenHeld is Open without a fetch. It returns ErrNotFound if neither memory nor disk holds the
// blob.
func (c *Cache) OpenHeld(ctx context.Context, d digest.Digest) (*Reader, error) {
	return c.openHeld(ctx, Blob{Digest: d})
}

func (c *Cache) openHeld(ctx context.Context, b Blob) (*Reader, error) {
	if p, ok := c.memory.Get(b.Digest); ok {
		b.Size = int64(len(p))
		return c.fetcher.reader(ctx, b, notHere, memoryBytes(p), SourceMemory), nil
	}
	blob, err := c.disk.Open(ctx, b.Digest)
	if err != nil {
		return nil, err
	}
	b.Size = blob.Size()
	return c.fetcher.reader(ctx, b, notHere, diskBytes{blob}, SourceDisk), nil
}

// notHere is the [Origin] of a reader that starts no fetch. It always fails.
func notHere(context.Context, int64) (Stream, error) { return Stream{}, ErrNotFound }

// Stat returns the length of a blob in bytes, and whether memory or disk holds the blob.
func (c *Cache) Stat(d digest.Digest) (size int64, ok bool) {
	if p, ok := c.memory.Get(d); ok {
		return int64(len(p)), true
	}
	return c.disk.Stat(d)
}

// Holding says where the bytes of a blob are.
type Holding struct {
	// Size is the length of the blob in bytes; -1 if neither memory nor disk holds it.
	Size int64
	// InMemory says that memory holds the blob.
	InMemory bool
	// Disk describes the blob on disk; nil if it is not there.
	Disk *disk.Info
	// Arriving says that a fetch of the blob is under way. Open joins that fetch.
	Arriving bool
}

// Held reports whether memory or disk holds the blob. If so, Open starts a fetch only when the held
// copy turns out to be damaged.
func (h Holding) Held() bool { return h.InMemory || h.Disk != nil }

// Inspect returns where a blob is. Inspect does not count as a use of the blob, so it does not
// affect eviction.
func (c *Cache) Inspect(d digest.Digest) Holding {
	h := Holding{Size: -1, Arriving: c.flights.has(d)}
	if p, ok := c.memory.Peek(d); ok {
		h.InMemory, h.Size = true, int64(len(p))
	}
	if info, ok := c.disk.Lookup(d); ok {
		h.Disk, h.Size = &info, info.Size
	}
	return h
}

// Gone says why a blob is not on disk any more, if that is known.
func (c *Cache) Gone(d digest.Digest) (disk.Gone, bool) { return c.disk.Gone(d) }

// Retain prevents the eviction of a blob on disk until release is called. Once Retain has returned
// nil, the blob is on stable storage. Retain returns ErrNotFound if the disk does not hold the
// blob; see [disk.Dir.Retain].
func (c *Cache) Retain(ctx context.Context, d digest.Digest) (release func(), err error) {
	return c.disk.Retain(ctx, d)
}

// Delete removes a blob from memory and disk. Readers that have it open can read on. A missing blob
// is no error.
func (c *Cache) Delete(ctx context.Context, d digest.Digest) error {
	c.memory.Remove(d)
	return c.disk.Delete(ctx, d)
}

// Purge does the work of [disk.Dir.Purge], for an operator. It also removes a blob that is only in
// memory. A missing blob is no error.
func (c *Cache) Purge(ctx context.Context, d digest.Digest, unless disk.Unless) error {
	if err := c.disk.Purge(ctx, d, unless); err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	c.memory.Remove(d)
	return nil
}

// Check returns an error if the disk has no room for a new blob. It also returns an error if
// content passed through uncached in the last 5 minutes because the disk failed. Check measures the
// free space, and does not write to the disk.
func (c *Cache) Check() error {
	return errors.Join(c.disk.CheckRoom(), c.trouble.recent())
}

// Collectors returns the metrics of the cache, without the metrics of its disk.
func (c *Cache) Collectors() []prometheus.Collector { return c.m.collectors() }
