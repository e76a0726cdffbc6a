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

// errLookAgain tells the caller to look again: first on disk, and then for a flight. Either the
// blob has appeared on disk, or the flight failed for a reason that need not concern this caller,
// such as a refusal by an origin with another Via.
var errLookAgain = errors.New("look again")

// flight is the fetch of a digest that is under way.
type flight struct {
	digest digest.Digest
	via    string
	ready  chan struct{} // closed when the origin has answered
	// observer is the observer of the caller that started the flight; it may be nil.
	observer Observer

	// Set before ready is closed. [flight.file] is also guarded by flights.mu.
	err   error       // the origin's error
	file  *growing    // has the bytes; nil if err or local is set, or if the blob is on disk already
	local *localError // a failure of the disk, after which the callers pass the blob through
	// Guarded by flights.mu.
	waiting int    // callers between join and leave
	handOff *fetch // the origin's answer if local is set, for the first caller that takes it
	ahead   bool   // started by a prefetch; no reader has joined yet
}

// member is a caller between join and leave. If it joins before there is a file, deliver counts it
// as a user of the file. So the file stays open until the caller has its reader, however soon the
// flight ends.
type member struct {
	*flight
	source     Source
	beforeFile bool // joined before there was a file
	reading    bool // a reader has taken over the use of the file
	follows    bool // has no origin of its own; see Cache.Follow
}

// flights are the fetches under way, one per digest. Each flight has a goroutine in [flights.run],
// which does not depend on any caller:
//   - join counts a caller as waiting for the flight of its digest. The first caller starts run.
//   - run first looks on disk. If the blob is on disk by now, run closes ready without a result.
//     Otherwise it asks the origin, and then closes ready. The result is an error of the origin, a
//     growing file (deliver) or a failure of the disk (fail).
//   - The caller waits for ready. It then returns the error, makes a reader of the file, passes the
//     blob through, or looks on disk again.
//   - leave stops counting the caller as waiting. If the caller is counted as a user of the file
//     but got no reader, leave also ends that use.
//   - run fills the file, and each piece wakes the readers that wait for bytes (see growing). When
//     the digest is verified, publish lets readers have the last byte. If the flight fails, finish
//     gives every reader the error.
//   - run ends its use of the file and removes the flight. After a success, the next caller finds
//     the blob on disk. The last user of the file, run or a reader, closes it.
//
// A flight without readers may be stopped; see [Abandon]. Apart from that, only an error or
// [flights.close] ends a flight early.
type flights struct {
	*fetcher
	abandoned Abandon
	ctx       context.Context // the context of all flights
	cancel    context.CancelCauseFunc
	running   sync.WaitGroup

	mu       sync.Mutex // guards the fields below; growing.mu may be taken under it
	byDigest map[digest.Digest]*flight
	closed   bool // no more flights start
}

func newFlights(f *fetcher, a Abandon) *flights {
	a.FinishPercent, a.Grace = cmp.Or(a.FinishPercent, 50), cmp.Or(a.Grace, 10*time.Second)
	s := &flights{fetcher: f, abandoned: a, byDigest: map[digest.Digest]*flight{}}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	return s
}

// close cancels the flights and waits for them. No more flights start.
func (s *flights) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel(ErrClosed)
	s.running.Wait()
}

func (s *flights) number() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.byDigest)
}

// has reports whether the fetch of a digest is under way.
func (s *flights) has(d digest.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byDigest[d] != nil
}

// open joins the flight of a blob, or starts it. It returns a reader as soon as the origin has
// answered.
func (s *flights) open(ctx context.Context, b Blob, origin Origin) (*Reader, error) {
	f := s.join(b, origin)
	if f == nil {
		s.degraded(&localError{"closed", ErrClosed}, b.Digest)
		return s.passThrough(ctx, b, origin, nil)
	}
	return s.wait(ctx, b, origin, f)
}

// wait returns a reader for a member as soon as the origin of its flight has answered. It ends the
// membership.
func (s *flights) wait(ctx context.Context, b Blob, origin Origin, f *member) (*Reader, error) {
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
	case f.local != nil && f.follows: // leave the origin's answer to a caller that has an origin
		return nil, ErrNotFound
	case f.local != nil:
		return s.passThrough(ctx, b, origin, s.takeHandOff(f.flight))
	case f.file != nil && (f.beforeFile || f.file.join()):
		f.reading = true
		return s.reader(ctx, b, origin, growingBytes{growing: f.file}, f.source), nil
	case f.file != nil && f.file.failure() != nil: // the flight has failed, and all users of its file have left
		switch why, ours := errors.AsType[*localError](f.file.failure()); {
		case ours && why.reason == reasonAgain:
			return nil, errLookAgain
		case ours:
			return s.passThrough(ctx, b, origin, nil)
		}
		return nil, f.file.failure()
	}
	return nil, errLookAgain
}

// join makes the caller a member of the flight of a digest. If there is no flight, join starts one,
// or returns nil after close.
func (s *flights) join(b Blob, origin Origin) *member {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.joinLocked(b); m != nil {
		return m
	}
	if s.closed {
		return nil
	}
	f := &flight{digest: b.Digest, via: b.Via, ready: make(chan struct{}), waiting: 1, ahead: b.Ahead, observer: b.Observer}
	s.byDigest[b.Digest] = f
	s.running.Go(func() { s.run(f, b, origin) })
	return &member{flight: f, source: SourceOrigin, beforeFile: true}
}

// joinLocked makes the caller a member of the flight of a digest, or returns nil if there is none.
// It needs mu.
func (s *flights) joinLocked(b Blob) *member {
	f := s.byDigest[b.Digest]
	if f == nil {
		return nil
	}
	f.waiting++
	if f.observer != nil && b.Observer != nil {
		f.observer.Joined(b.Observer)
	}
	m := &member{flight: f, source: SourceFlight, beforeFile: f.file == nil}
	if f.ahead && !b.Ahead {
		m.source, f.ahead = SourceOrigin, false
	}
	return m
}

// deliver gives the file to the waiting callers, and counts each caller as a user of the file.
func (s *flights) deliver(f *flight, file *growing) {
	s.mu.Lock()
	f.file = file
	file.users += f.waiting // no other goroutine uses the file yet
	s.mu.Unlock()
	close(f.ready)
}

// leave stops counting a caller as waiting. If deliver has counted the caller as a user of the
// file, and the caller got no reader, leave also ends that use. When the last waiting caller leaves
// after a failure of the disk, leave closes the origin's answer, if no caller has taken it over.
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
	if m.beforeFile && !m.reading && file != nil {
		if err := file.leave(); err != nil {
			s.log.Warn("cannot close blob", "digest", m.digest, "error", err)
		}
	}
}

// takeHandOff returns the origin's answer of a failed flight. Only the first call returns it; later
// calls return nil.
func (s *flights) takeHandOff(f *flight) *fetch {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := f.handOff
	f.handOff = nil
	return x
}

// remove removes the flight from the table. It leaves a newer flight of the same digest there.
func (s *flights) remove(f *flight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byDigest[f.digest] == f {
		delete(s.byDigest, f.digest)
	}
}

func (s *flights) run(f *flight, b Blob, origin Origin) {
	defer s.remove(f)
	if _, held := s.disk.Stat(b.Digest); held { // published since the caller looked on disk
		close(f.ready)
		return
	}
	x := s.fetcher.fetch(s.ctx, origin, 0, b.Size)
	work := b.Split.begin(x)
	defer work.releaseSlots()
	if f.err = x.begin(); f.err != nil {
		x.close()
		s.remove(f) // a caller that looks again must not find this flight
		b.ended(f.err)
		close(f.ready)
		return
	}
	in, err := s.create(x.size)
	if err != nil {
		x.end = -1
		b.ended(err)
		s.fail(f, x, local("create", err))
		return
	}
	defer x.close()
	file := newGrowing(in, x.size, in.Abort)
	fill := s.fill
	if work.decide(x) {
		file.demanded = work.demanded
		fill = work.fill
	}
	s.watchReaders(f, file, x)
	s.deliver(f, file)
	if err = fill(file, in, x); err == nil {
		err = s.publish(file, in, b.Digest)
	}
	s.countUnread(file, err)
	s.finish(f, b, err)
	if err := file.leave(); err != nil {
		s.log.Warn("cannot close blob", "digest", b.Digest, "error", err)
	}
}

// scanPatience bounds how long a flight waits for the scan by which the disk cache finds its blobs
// when dray starts.
const scanPatience = 2 * time.Second

// create creates a file on disk for a blob of the given size. A negative size means unknown.
func (s *flights) create(size int64) (*disk.Ingest, error) {
	ctx, cancel := context.WithTimeout(s.ctx, scanPatience)
	defer cancel()
	return s.disk.Create(ctx, size)
}

// fail ends a flight when the origin has answered, but the disk cannot store the blob. The waiting
// callers pass the blob through, and the first one takes over the answer.
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
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// publish verifies the digest of a file whose bytes have all arrived, and lets the readers have the
// last byte.
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

// finish gives readers the error of a failed flight. It counts disk failures and wrong content.
func (s *flights) finish(f *flight, b Blob, err error) {
	g, again := f.file, b.ended(err)
	if err == nil {
		return
	}
	if why, ok := errors.AsType[*localError](err); ok {
		s.degraded(why, b.Digest) // before readers get the error
		g.fail(why)
		return
	}
	if errors.Is(err, ErrCorrupt) || errors.Is(err, ErrSize) {
		s.m.corrupt.WithLabelValues("origin").Inc()
	}
	if again {
		s.remove(f) // readers that go on must not find this flight
		g.fail(&localError{reasonAgain, err})
		return
	}
	g.fail(fmt.Errorf("fetch %s: %w", b.Digest, err))
}
