package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/cache/disk"
)

// errLookAgain says that what was sought has appeared on disk meanwhile, or that only
// the origin of another caller refused it.
var errLookAgain = errors.New("look again")

// flight is the one fetch of a digest under way.
type flight struct {
	digest digest.Digest
	via    string
	ready  chan struct{} // closed when the origin has answered

	// Set before ready is closed; file under Cache.mu.
	err   error       // the origin's error
	file  *growing    // what to read; nil: look at err, then local
	local *localError // why the readers are on their own
	// Guarded by Cache.mu.
	waiting int    // callers between joining and having their reader
	spare   *fetch // of a flight without file, for the first reader to take over
	ahead   bool   // begun for readers of whom none has come
}

// seat is one caller's place in a flight. Who boards before there is a file is
// counted as its user when it comes, so that a fast flight does not end without them.
type seat struct {
	*flight
	source Source
	early  bool
	used   bool // the use of the file went to a reader
}

// ride joins the flight of a blob, or starts it, and returns a reader as soon as the
// origin has answered.
func (c *Cache) ride(ctx context.Context, b Blob, origin Origin) (*Reader, error) {
	f := c.board(b, origin)
	if f == nil {
		c.degraded(&localError{"closed", ErrClosed}, b.Digest)
		return c.passThrough(ctx, b, origin, nil)
	}
	defer c.alight(f)
	select {
	case <-f.ready:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	switch {
	case f.err != nil && f.via != b.Via:
		return nil, errLookAgain
	case f.err != nil:
		return nil, f.err
	case f.local != nil:
		return c.passThrough(ctx, b, origin, c.takeSpare(f.flight))
	case f.file != nil && (f.early || f.file.join()):
		f.used = true
		return c.reader(ctx, b, origin, growingBytes{f.file}, f.source), nil
	case f.file != nil && f.file.failure() != nil: // it has ended, and all who were in time have left
		if _, ours := errors.AsType[*localError](f.file.failure()); ours {
			return c.passThrough(ctx, b, origin, nil)
		}
		return nil, f.file.failure()
	}
	return nil, errLookAgain
}

// board takes a seat in the flight of a digest, started if there was none; nil after
// the cache was closed.
func (c *Cache) board(b Blob, origin Origin) *seat {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.flights[b.Digest]; f != nil {
		f.waiting++
		s := &seat{flight: f, source: SourceFlight, early: f.file == nil}
		if f.ahead && !b.Ahead {
			s.source, f.ahead = SourceOrigin, false
		}
		return s
	}
	if c.closed {
		return nil
	}
	f := &flight{digest: b.Digest, via: b.Via, ready: make(chan struct{}), waiting: 1, ahead: b.Ahead}
	c.flights[b.Digest] = f
	c.flying.Go(func() { c.fly(f, b, origin) })
	return &seat{flight: f, source: SourceOrigin, early: true}
}

// depart lets the callers have the file.
func (c *Cache) depart(f *flight, file *growing) {
	c.mu.Lock()
	f.file = file
	file.users += f.waiting // nobody else knows the file yet
	c.mu.Unlock()
	close(f.ready)
}

// alight ends the wait of one caller. The last one drops a spare that nobody took.
func (c *Cache) alight(s *seat) {
	c.mu.Lock()
	s.waiting--
	file, spare := s.file, s.spare
	if s.waiting > 0 {
		spare = nil
	}
	if spare != nil {
		s.spare = nil
	}
	c.mu.Unlock()
	if spare != nil {
		spare.close()
	}
	if s.early && !s.used && file != nil {
		if err := file.leave(); err != nil {
			c.log.Warn("cannot close blob", "digest", s.digest, "error", err)
		}
	}
}

// takeSpare returns the answer of the origin that a failed flight left, to one caller.
func (c *Cache) takeSpare(f *flight) *fetch {
	c.mu.Lock()
	defer c.mu.Unlock()
	spare := f.spare
	f.spare = nil
	return spare
}

// land takes the flight off the board: the next caller looks on disk.
func (c *Cache) land(f *flight) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.flights[f.digest] == f {
		delete(c.flights, f.digest)
	}
}

// fly runs a flight from take-off to landing.
func (c *Cache) fly(f *flight, b Blob, origin Origin) {
	defer c.land(f)
	if _, held := c.disk.Stat(b.Digest); held { // published since the caller looked
		close(f.ready)
		return
	}
	x := c.newFetch(c.ctx, origin, 0, b.Size)
	crew := b.Split.begin(x)
	defer crew.leave()
	if f.err = x.connect(true); f.err != nil {
		x.close()
		c.land(f) // who looks again must not meet this flight
		close(f.ready)
		return
	}
	in, err := c.create(x.size)
	if err != nil {
		x.end = -1
		c.ground(f, x, local("create", err))
		return
	}
	defer x.close()
	file := newGrowing(in, x.size, in.Abort)
	fill := c.fill
	if crew.join(x) {
		file.wish = make(chan struct{}, 1)
		fill = crew.fill
	}
	c.watch(f, file, x)
	c.depart(f, file)
	err = fill(file, in, x, b.Digest)
	c.unread(file, err)
	c.finish(file, b.Digest, err)
	if err := file.leave(); err != nil {
		c.log.Warn("cannot close blob", "digest", b.Digest, "error", err)
	}
}

// roomPatience bounds how long a flight waits for a disk that is still being read after the start.
const roomPatience = 2 * time.Second

// create makes room for a blob.
func (c *Cache) create(size int64) (*disk.Ingest, error) {
	ctx, cancel := context.WithTimeout(c.ctx, roomPatience)
	defer cancel()
	return c.disk.Create(ctx, size)
}

// ground ends a flight that has an answer of the origin but no room for it.
func (c *Cache) ground(f *flight, x *fetch, why *localError) {
	c.mu.Lock()
	f.local = why
	if f.waiting > 0 {
		f.spare, x = x, nil
	}
	c.mu.Unlock()
	close(f.ready)
	c.degraded(why, f.digest)
	if x != nil {
		x.close()
	}
}

// fill moves the bytes from the origin to the file and publishes them.
func (c *Cache) fill(g *growing, in *disk.Ingest, x *fetch, d digest.Digest) error {
	buf := c.buffers.Get().(*[]byte)
	defer c.buffers.Put(buf)
	for {
		n, err := x.Read(*buf)
		if n > 0 {
			if _, err := in.Write((*buf)[:n]); err != nil {
				return local("write", err)
			}
			g.advance(n)
			c.m.fetched.Add(float64(n))
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	return c.publish(g, in, d)
}

// publish verifies the digest of a file that is whole and lets the readers have its end.
func (c *Cache) publish(g *growing, in *disk.Ingest, d digest.Digest) error {
	blob, err := in.Commit(c.ctx, d)
	switch {
	case err == nil:
		g.complete(blob.Close)
		return nil
	case errors.Is(err, ErrCorrupt), errors.Is(err, ErrSize), c.ctx.Err() != nil:
		return err
	default:
		return local("commit", err)
	}
}

// finish tells the readers how the flight ended.
func (c *Cache) finish(g *growing, d digest.Digest, err error) {
	if err == nil {
		return
	}
	if why, ok := errors.AsType[*localError](err); ok {
		g.fail(why)
		c.degraded(why, d)
		return
	}
	if errors.Is(err, ErrCorrupt) || errors.Is(err, ErrSize) {
		c.m.corrupt.WithLabelValues("origin").Inc()
	}
	g.fail(fmt.Errorf("fetch %s: %w", d, err))
}

// passThrough returns a reader that fetches for itself. spare, if not nil, is a
// fetch from byte 0 that was already answered.
func (c *Cache) passThrough(ctx context.Context, b Blob, origin Origin, spare *fetch) (*Reader, error) {
	x := spare
	if x == nil {
		x = c.newFetch(ctx, origin, 0, b.Size)
		if err := x.connect(true); err != nil {
			x.close()
			return nil, err
		}
	}
	d := &directBytes{cache: c, blob: b, origin: origin, check: b.Digest.Verifier()}
	d.use(x)
	r := c.reader(ctx, b, origin, d, SourceDirect)
	context.AfterFunc(r.ctx, x.cancel) // a spare was begun by a flight
	return r, nil
}
