package cache

import (
	"context"
	"errors"
	"io"
	"sync"

	"dray/cache/disk"
)

// windowPieces bounds how far the workers that fetch in order may be ahead of the first gap in the
// file. All of these workers share one bound: this number of pieces, times Split.Streams. Because
// of it, pieces are still in the page cache when they are hashed. When the hash lags (see
// growing.lags), there is no such bound.
const windowPieces = 2

// workers fetch one blob in parts. One worker is the leader, which is the goroutine of the flight;
// the others are helpers. Each worker fetches one piece after another. The leader fetches the
// pieces in order, which the hash needs. So do the first helpers, but while there are no extra
// helpers, they first fetch the bytes that readers wait for. Extra helpers fetch only such bytes
// (see demand.go), and stop when nobody waits any more. A helper whose request is refused returns
// its piece and stops, and no more helpers start. When no helper is left, the leader fetches all
// missing bytes by one request.
//
// The leader's stream may follow another fetch (see Stream.Follows). While it does, the leader
// reads one piece after another from this stream, and all helpers are extra helpers.
type workers struct {
	*Split
	*fetcher
	origin Origin
	size   int64
	ctx    context.Context
	cancel context.CancelFunc
	g      *growing
	in     *disk.Ingest
	team   sync.WaitGroup // the helpers and the hash

	mu       sync.Mutex // guards the fields below; g.mu may be taken under it
	helpers  int        // including extra helpers and helpers that have not begun; each uses a slot
	extras   int
	idle     int    // workers that wait for a piece
	free     pieces // pieces that no one fetches
	fetching int    // pieces that are being fetched
	turn     bool   // each claim of an extra helper flips it; if it becomes true and the hash lags, the helper takes the next piece in order
	refusal  refusal
	followed int64 // the end of the leader's piece while the leader's stream follows another fetch; 0 if it follows none
	err      error
	changed  chan struct{} // closed to wake the workers that wait
}

// refusal says how the workers of a fetch are limited after the origin has refused a part.
type refusal int

const (
	noRefusal     refusal = iota
	helperRefused         // no more helpers start
	rangesRefused         // the origin ignores ranges: no more helpers start, and no more pieces are handed out
)

// begin returns the workers for x. If the size of the blob is known and large enough for a fetch in
// parts, and a slot is free, begin takes slots and limits x to the first piece.
func (s *Split) begin(x *fetch) *workers {
	w := &workers{Split: s, fetcher: x.fetcher, origin: x.origin, changed: make(chan struct{})}
	x.origin = func(ctx context.Context, from int64) (Stream, error) {
		if x.end < 0 {
			return w.origin(ctx, from)
		}
		return s.First(ctx, from, x.end)
	}
	if w.worthwhile(x.size) {
		if w.helpers = s.Slots.take(w.helpersFor(x.size)); w.helpers > 0 {
			x.end = s.Piece
		}
	}
	return w
}

func (w *workers) helpersFor(size int64) int {
	return int(min(int64(w.Streams), (size+w.Piece-1)/w.Piece)) - 1
}

// decide reports whether the blob is fetched in parts, now that the origin has answered. If begin
// knew the size, it has limited x to the first piece. If it did not, x has asked for the whole
// blob, and decide limits x to the first piece for a fetch in parts.
func (w *workers) decide(x *fetch) bool {
	if x.answer.follows && w.worthwhile(x.size) {
		w.releaseSlots()
		x.end, w.followed = w.Piece, w.Piece
		return true
	}
	if x.end < 0 && !x.whole && !x.answer.follows && w.worthwhile(x.size) {
		if w.helpers = w.Slots.take(w.helpersFor(x.size)); w.helpers > 0 {
			x.end = w.Piece
		}
	}
	if x.whole || x.answer.follows || x.size <= x.end {
		x.end = -1
	}
	if x.end < 0 {
		w.releaseSlots()
	}
	return x.end >= 0
}

// releaseSlots gives back the slots that were taken for helpers which have not started. No helper
// may run when it is called.
func (w *workers) releaseSlots() {
	if w.helpers > 0 { // no helper runs, so mu is not needed
		w.Slots.give(w.helpers)
		w.helpers = 0
	}
}

// fill moves the bytes from the origin to the file.
func (w *workers) fill(g *growing, in *disk.Ingest, x *fetch) error {
	w.mu.Lock() // readers may have demands already
	w.g, w.in, w.size = g, in, x.size
	w.ctx, w.cancel = context.WithCancel(x.ctx)
	defer w.cancel()
	w.divide(x.end)
	w.mu.Unlock()
	if err := w.lead(x); err != nil {
		w.fail(err)
	}
	w.mu.Lock()
	w.refusal = max(w.refusal, helperRefused)
	w.mu.Unlock()
	w.team.Wait()
	return w.err
}

// divide makes pieces of the bytes from an offset on, and starts the helpers and the hash. It needs
// mu.
func (w *workers) divide(from int64) {
	w.free = piecesOf(from, w.size, w.Piece)
	w.fetching = 1 // the leader's first piece
	for range w.helpers {
		var p span
		if len(w.free) > 0 { // take a whole piece before serveDemands divides the free pieces
			p = w.free[0]
			w.remove(0, p)
		}
		w.team.Go(func() { w.help(roleHelper, p) })
	}
	w.team.Go(w.hash)
	w.serveDemands()
}

// lead fetches the first piece from x and then other pieces, until all have arrived.
func (w *workers) lead(x *fetch) error {
	role, p := roleLeader, span{x.off, x.end}
	err := w.copy(x, &p)
	if err != nil && w.followed == 0 { // only the leader sets followed, so no mu is needed here
		return err
	}
	for {
		w.stillFollows(x)
		if _, ours := errors.AsType[*localError](err); ours {
			return err
		}
		if err == nil {
			w.pieceDone()
		} else {
			w.refused(p, err)
			role = roleWaiting // the leader waits until all helpers have stopped
		}
		var alone bool
		switch p, alone, err = w.next(role); {
		case err != nil:
			return err
		case alone:
			return w.fetchRest(x)
		case p == span{}:
			return nil
		case w.followed > 0:
			err = w.followPiece(x, &p)
		default:
			x.disconnect()
			err = w.fetchPiece(&p)
		}
	}
}

// followPiece fetches a piece for the leader from x, which followed another fetch when the leader
// last checked.
func (w *workers) followPiece(x *fetch, p *span) error {
	w.mu.Lock()
	w.followed = p.to
	w.mu.Unlock()
	if x.off != p.from {
		x.moveTo(p.from)
	}
	x.end = p.to
	return w.copy(x, p)
}

// stillFollows notes whether x still follows another fetch. If x has stopped following,
// stillFollows starts helpers.
func (w *workers) stillFollows(x *fetch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.followed == 0 || x.answer != nil && x.answer.follows {
		return
	}
	w.followed = 0
	if w.refusal > noRefusal {
		return
	}
	for range w.Slots.take(min(w.Streams-1-w.helpers, len(w.free))) {
		w.helpers++
		w.team.Go(func() { w.help(roleHelper, span{}) })
	}
	w.serveDemands()
}

// help fetches pieces, beginning with p, until there are no more for its role or a fetch fails.
func (w *workers) help(r role, p span) {
	defer w.helperDone(r)
	for {
		if p == (span{}) {
			var err error
			if p, _, err = w.next(r); err != nil || p == (span{}) {
				return
			}
		}
		if err := w.fetchPiece(&p); err != nil {
			if _, ours := errors.AsType[*localError](err); ours {
				w.fail(err)
			}
			w.refused(p, err)
			return
		}
		w.pieceDone()
		p = span{}
	}
}

// role is the role of a worker that asks for a piece.
type role int

const (
	roleHelper role = iota
	roleExtra       // a helper for the bytes that readers wait for
	roleLeader
	roleWaiting // the leader after a refused piece: it waits for the helpers
)

// [workers.next] waits for a piece to fetch and returns it, or an empty piece if no more are left.
// An extra helper gets an empty piece when no reader waits for bytes. The leader gets an empty
// piece only when no helper fetches a piece that it could give back (see refused). If alone is
// true, the leader must fetch all missing bytes by one request.
func (w *workers) next(r role) (p span, alone bool, err error) {
	leader := r == roleLeader || r == roleWaiting
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		over := w.refusal == rangesRefused || leader && w.helpers == 0 && (w.followed == 0 || r == roleWaiting)
		switch {
		case w.err != nil:
			return span{}, false, w.err
		case w.ctx.Err() != nil:
			return span{}, false, context.Cause(w.ctx)
		case over && leader && w.fetching == 0:
			w.refusal = max(w.refusal, helperRefused)
			return span{}, true, nil
		case len(w.free) == 0 && (!leader || w.fetching == 0), over && !leader:
			return span{}, false, nil
		case !over && r != roleWaiting:
			if p = w.claim(r); p != (span{}) || r == roleExtra {
				return p, false, nil
			}
		}
		w.wait(r)
	}
}

// wait waits until something changes. It needs mu, and releases it meanwhile.
func (w *workers) wait(r role) {
	changed := w.changed
	if r != roleWaiting {
		w.idle++
		defer func() { w.idle-- }()
	}
	w.mu.Unlock()
	defer w.mu.Lock()
	select {
	case <-changed:
	case <-w.ctx.Done():
	}
}

// wakeLocked wakes the waiting workers. It needs mu.
func (w *workers) wakeLocked() {
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *workers) pieceDone() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fetching--
	w.wakeLocked()
}

// [workers.refused] gives the missing part of a piece back for other workers. If the origin ignores
// ranges, all helpers stop.
func (w *workers) refused(p span, err error) {
	if w.ctx.Err() == nil {
		w.m.refusedParts.Inc()
		w.log.Debug("range of blob refused, using fewer streams", "from", p.from, "to", p.to, "error", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fetching--
	w.refusal = max(w.refusal, helperRefused)
	if errors.Is(err, errNoRanges) {
		w.refusal = rangesRefused
	}
	w.free = w.free.with(p)
	w.wakeLocked()
}

// helperDone ends the work of one helper and frees its slot for other fetches.
func (w *workers) helperDone(r role) {
	w.mu.Lock()
	w.helpers--
	if r == roleExtra {
		w.extras--
	}
	w.wakeLocked()
	w.mu.Unlock()
	w.Slots.give(1)
}

func (w *workers) fail(err error) {
	w.mu.Lock()
	if w.err == nil {
		w.err = err
	}
	w.mu.Unlock()
	w.cancel()
}

// fetchPiece fetches a piece. When it returns, p is the part that is still missing.
func (w *workers) fetchPiece(p *span) error {
	y := w.fetch(w.ctx, func(ctx context.Context, from int64) (Stream, error) { return w.Part(ctx, from, p.to) }, p.from, w.size)
	defer y.close()
	y.partOnly, y.end = true, p.to
	if err := y.connect(); err != nil {
		return err
	}
	return w.copy(y, p)
}

// copy writes the bytes that y gives. The piece p begins at y.off, and shrinks with each write.
func (w *workers) copy(y *fetch, p *span) error {
	return w.each(y, func(b []byte, off int64) error {
		err := w.write(b, off)
		p.from = y.off
		return err
	})
}

func (w *workers) each(y *fetch, use func(b []byte, off int64) error) error {
	buf := w.buffers.Get().(*[]byte)
	defer w.buffers.Put(buf)
	for w.ctx.Err() == nil {
		at := y.off
		n, err := y.Read(*buf)
		if n > 0 {
			if err := use((*buf)[:n], at); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return context.Cause(w.ctx)
}

func (w *workers) write(b []byte, off int64) error {
	n, err := w.in.WriteAt(b, off)
	if n > 0 {
		w.g.arrive(off, n)
	}
	if err != nil {
		return local("write", err)
	}
	return nil
}

// fetchRest fetches all missing bytes by one request. Only the leader calls it, when no helper
// fetches a piece. Bytes that have arrived are not written again, because they may have been
// hashed.
func (w *workers) fetchRest(x *fetch) error {
	if len(w.free) == 0 {
		return nil
	}
	first, last := w.free[0], w.free[len(w.free)-1]
	if x.off != first.from || x.answer == nil {
		x.disconnect()
		x = w.fetch(w.ctx, w.origin, first.from, w.size)
		defer x.close()
		if err := x.connect(); err != nil {
			if err = x.resume(err); err != nil {
				return err
			}
		}
	}
	if x.end = last.to; x.end == w.size {
		x.end = -1
	}
	return w.each(x, func(b []byte, off int64) error {
		for _, p := range w.free {
			from, to := max(p.from, off), min(p.to, off+int64(len(b)))
			if from >= to {
				continue
			}
			if err := w.write(b[from-off:to-off], from); err != nil {
				return err
			}
		}
		return nil
	})
}

// hashStep bounds how many bytes are hashed between two looks at the context.
const hashStep = 16 << 20

// hash hashes the file up to its first gap, and goes on as the gap moves, until all is hashed.
func (w *workers) hash() {
	buf := w.buffers.Get().(*[]byte)
	defer w.buffers.Put(buf)
	for w.in.Size() < w.size && w.ctx.Err() == nil {
		w.g.mu.Lock()
		mark, changed := w.g.written, w.g.wait()
		w.g.mu.Unlock()
		if mark == w.in.Size() {
			select {
			case <-changed:
			case <-w.ctx.Done():
			}
			continue
		}
		if err := w.in.Advance(min(mark, w.in.Size()+hashStep), *buf); err != nil {
			w.fail(local("hash", err))
			return
		}
	}
}
