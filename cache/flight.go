package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
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
	handOff *fetch // of a flight without file, for the first reader to take over
	ahead   bool   // started for readers of whom none has joined yet
}

// member is one caller who waits for a flight. One who joins before there is a file is
// counted as its user when it comes, so that a fast flight does not end without them.
type member struct {
	*flight
	source Source
	early  bool
	used   bool // the use of the file went to a reader
}

// flights are the fetches under way, one per digest. They are ended by close, and by nothing else.
type flights struct {
	*fetcher
	abandoned Abandon
	ctx       context.Context // of the flights
	cancel    context.CancelCauseFunc
	running   sync.WaitGroup

	mu       sync.Mutex // guards below; leaf lock
	byDigest map[digest.Digest]*flight
	closed   bool // no more flights
}

func newFlights(f *fetcher, a Abandon) *flights {
	a.FinishPercent, a.Grace = cmp.Or(a.FinishPercent, 50), cmp.Or(a.Grace, 10*time.Second)
	s := &flights{fetcher: f, abandoned: a, byDigest: map[digest.Digest]*flight{}}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	return s
}

// close cancels the flights and waits for them; there will be no more.
func (s *flights) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel(ErrClosed)
	s.running.Wait()
}

// number returns how many flights are under way.
func (s *flights) number() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.byDigest)
}

// open joins the flight of a blob, or starts it, and returns a reader as soon as the
// origin has answered.
func (s *flights) open(ctx context.Context, b Blob, origin Origin) (*Reader, error) {
	f := s.join(b, origin)
	if f == nil {
		s.degraded(&localError{"closed", ErrClosed}, b.Digest)
		return s.passThrough(ctx, b, origin, nil)
	}
	defer s.leave(f)
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
		return s.passThrough(ctx, b, origin, s.takeHandOff(f.flight))
	case f.file != nil && (f.early || f.file.join()):
		f.used = true
		return s.reader(ctx, b, origin, growingBytes{f.file}, f.source), nil
	case f.file != nil && f.file.failure() != nil: // it has ended, and all who were in time have left
		if _, ours := errors.AsType[*localError](f.file.failure()); ours {
			return s.passThrough(ctx, b, origin, nil)
		}
		return nil, f.file.failure()
	}
	return nil, errLookAgain
}

// join makes the caller a member of the flight of a digest, started if there was none; nil after
// the cache was closed.
func (s *flights) join(b Blob, origin Origin) *member {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.byDigest[b.Digest]; f != nil {
		f.waiting++
		m := &member{flight: f, source: SourceFlight, early: f.file == nil}
		if f.ahead && !b.Ahead {
			m.source, f.ahead = SourceOrigin, false
		}
		return m
	}
	if s.closed {
		return nil
	}
	f := &flight{digest: b.Digest, via: b.Via, ready: make(chan struct{}), waiting: 1, ahead: b.Ahead}
	s.byDigest[b.Digest] = f
	s.running.Go(func() { s.run(f, b, origin) })
	return &member{flight: f, source: SourceOrigin, early: true}
}

// deliver lets the callers have the file.
func (s *flights) deliver(f *flight, file *growing) {
	s.mu.Lock()
	f.file = file
	file.users += f.waiting // nobody else knows the file yet
	s.mu.Unlock()
	close(f.ready)
}

// leave ends the wait of one caller. The last one drops a hand-off that nobody took.
func (s *flights) leave(m *member) {
	s.mu.Lock()
	m.waiting--
	file, rest := m.file, m.handOff
	if m.waiting > 0 {
		rest = nil
	}
	if rest != nil {
		m.handOff = nil
	}
	s.mu.Unlock()
	if rest != nil {
		rest.close()
	}
	if m.early && !m.used && file != nil {
		if err := file.leave(); err != nil {
			s.log.Warn("cannot close blob", "digest", m.digest, "error", err)
		}
	}
}

// takeHandOff returns the answer of the origin that a failed flight left, to one caller.
func (s *flights) takeHandOff(f *flight) *fetch {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := f.handOff
	f.handOff = nil
	return x
}

// remove takes the flight out of the table: the next caller looks on disk.
func (s *flights) remove(f *flight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byDigest[f.digest] == f {
		delete(s.byDigest, f.digest)
	}
}

// run does the work of a flight.
func (s *flights) run(f *flight, b Blob, origin Origin) {
	defer s.remove(f)
	if _, held := s.disk.Stat(b.Digest); held { // published since the caller looked
		close(f.ready)
		return
	}
	x := s.fetcher.fetch(s.ctx, origin, 0, b.Size)
	work := b.Split.begin(x)
	defer work.leave()
	if f.err = x.begin(); f.err != nil {
		x.close()
		s.remove(f) // who looks again must not meet this flight
		close(f.ready)
		return
	}
	in, err := s.create(x.size)
	if err != nil {
		x.end = -1
		s.fail(f, x, local("create", err))
		return
	}
	defer x.close()
	file := newGrowing(in, x.size, in.Abort)
	fill := s.fill
	if work.join(x) {
		file.wish = make(chan struct{}, 1)
		fill = work.fill
	}
	s.watch(f, file, x)
	s.deliver(f, file)
	if err = fill(file, in, x); err == nil {
		err = s.publish(file, in, b.Digest)
	}
	s.unread(file, err)
	s.finish(file, b.Digest, err)
	if err := file.leave(); err != nil {
		s.log.Warn("cannot close blob", "digest", b.Digest, "error", err)
	}
}

// roomPatience bounds how long a flight waits for a disk that is still being read after the start.
const roomPatience = 2 * time.Second

// create makes room for a blob.
func (s *flights) create(size int64) (*disk.Ingest, error) {
	ctx, cancel := context.WithTimeout(s.ctx, roomPatience)
	defer cancel()
	return s.disk.Create(ctx, size)
}

// fail ends a flight that has an answer of the origin but no room for it.
func (s *flights) fail(f *flight, x *fetch, why *localError) {
	s.mu.Lock()
	f.local = why
	if f.waiting > 0 {
		f.handOff, x = x, nil
	}
	s.mu.Unlock()
	close(f.ready)
	s.degraded(why, f.digest)
	if x != nil {
		x.close()
	}
}

// fill moves the bytes from the origin to the file.
func (s *flights) fill(g *growing, in *disk.Ingest, x *fetch) error {
	buf := s.buffers.Get().(*[]byte)
	defer s.buffers.Put(buf)
	for {
		n, err := x.Read(*buf)
		if n > 0 {
			if _, err := in.Write((*buf)[:n]); err != nil {
				return local("write", err)
			}
			g.advance(n)
			s.m.fetched.Add(float64(n))
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// publish verifies the digest of a file that is whole and lets the readers have its end.
func (s *flights) publish(g *growing, in *disk.Ingest, d digest.Digest) error {
	blob, err := in.Commit(s.ctx, d)
	switch {
	case err == nil:
		g.complete(blob.Close)
		return nil
	case errors.Is(err, ErrCorrupt), errors.Is(err, ErrSize), s.ctx.Err() != nil:
		return err
	default:
		return local("commit", err)
	}
}

// finish tells the readers how the flight ended.
func (s *flights) finish(g *growing, d digest.Digest, err error) {
	if err == nil {
		return
	}
	if why, ok := errors.AsType[*localError](err); ok {
		g.fail(why)
		s.degraded(why, d)
		return
	}
	if errors.Is(err, ErrCorrupt) || errors.Is(err, ErrSize) {
		s.m.corrupt.WithLabelValues("origin").Inc()
	}
	g.fail(fmt.Errorf("fetch %s: %w", d, err))
}
