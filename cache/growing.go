package cache

import (
	"context"
	"io"
	"math"
	"slices"
	"sync"
	"time"
)

const (
	// wakeStep and wakeDelay bound how often readers are woken: after wakeStep new bytes or after
	// wakeDelay, whichever comes first. Waking many readers every 64 KiB would cost twice as much.
	wakeStep  = 256 << 10
	wakeDelay = 2 * time.Millisecond
)

// growing is a file that many readers read while it is written. One goroutine appends to it. If the
// length is announced, several goroutines may write different parts instead. Until the file is
// complete, one byte is withheld: the last byte of the announced length, or the newest byte if the
// length is not known. Flights and uploads write to growing files.
//
// The writer and each reader are users, which join and leave. The last user closes the file. If a
// reader finds no bytes at its offset, the method await waits for the channel g.changed. The writer
// reports new bytes (advance, arrive) and its end (complete, fail, suspend). Each report closes
// g.changed, at once or a little later (wakeLocked). The reader then looks again.
type growing struct {
	src      io.ReaderAt
	free     func() error // closes src; called once, when the last user has left
	demanded func()       // called after each new demand; nil if nothing is fetched on demand

	mu          sync.Mutex    // guards the fields below; leaf lock
	users       int           // the writer and the readers
	unreadTimer *time.Timer   // runs while there are no readers; nil for uploads, and if Abandon.StopAbove is 0
	grace       time.Duration // how long unreadTimer runs
	length      int64         // the announced length, or -1 if unknown; after complete, the final length
	arrivals                  // the parts that were written
	arrived     int64         // bytes written in total
	woken       int64         // value of arrived when the readers were last woken
	demands     []span        // ranges that readers wait for, in the order in which the readers began to wait; all begin beyond the first missing byte (see await)
	ended       bool          // complete, or failed if err is set
	err         error         // returned to every reader from now on
	changed     chan struct{} // closed to wake readers; nil if no reader waits
	delayed     *time.Timer   // wakes readers later; nil before the first use
	armed       bool          // g.delayed is running
}

// newGrowing returns a file with one user, its writer.
func newGrowing(src io.ReaderAt, length int64, free func() error) *growing {
	return &growing{src: src, free: free, users: 1, length: length}
}

// join adds a user. It returns false if the last user has left, because the file is closed then.
func (g *growing) join() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.users == 0 {
		return false
	}
	g.users++
	if g.unreadTimer != nil {
		g.unreadTimer.Stop()
	}
	return true
}

// leave removes a user. If no user is left, it closes the file and returns the error of closing it.
func (g *growing) leave() error {
	g.mu.Lock()
	g.users--
	last, free := g.users == 0, g.free
	if g.users == 1 && g.unreadTimer != nil && !g.ended {
		g.unreadTimer.Reset(g.grace)
	}
	g.mu.Unlock()
	if last {
		return free()
	}
	return nil
}

// advance reports that n more bytes can be read at the end.
func (g *growing) advance(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.written += int64(n)
	g.moreLocked(n)
}

// arrive reports that n more bytes can be read at off. These bytes must not have been reported
// before.
func (g *growing) arrive(off int64, n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.add(off, off+int64(n))
	g.moreLocked(n)
}

// moreLocked counts n new bytes and wakes readers now or soon. It needs mu.
func (g *growing) moreLocked(n int) {
	g.arrived += int64(n)
	switch {
	case g.woken == 0, g.arrived-g.woken >= wakeStep:
		g.wakeLocked()
	case g.changed != nil && !g.armed:
		g.armed = true
		if g.delayed == nil {
			g.delayed = time.AfterFunc(wakeDelay, g.wake)
		} else {
			g.delayed.Reset(wakeDelay)
		}
	}
}

// wake is called when the timer g.delayed fires.
func (g *growing) wake() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.armed = false
	g.wakeLocked()
}

// wakeLocked wakes the waiting readers. It needs mu.
func (g *growing) wakeLocked() {
	g.woken = g.arrived
	if g.changed != nil {
		close(g.changed)
		g.changed = nil
	}
}

// complete lets readers have the last byte. The caller has verified the digest. From now on,
// freeFile replaces the function that newGrowing got.
func (g *growing) complete(freeFile func() error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.free = freeFile
	g.length = g.written
	g.endLocked()
}

// fail makes every reader get err from now on. It does nothing if the file has ended.
func (g *growing) fail(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended {
		return
	}
	g.err = err
	g.endLocked()
}

// suspend makes every reader get ErrClosed from now on, and freeFile replaces the function that
// newGrowing got. suspend does nothing if the file has ended.
func (g *growing) suspend(freeFile func() error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended {
		return
	}
	g.err, g.free = ErrClosed, freeFile
	g.endLocked()
}

// endLocked ends the file and wakes all readers. It needs mu.
func (g *growing) endLocked() {
	g.ended = true
	if g.delayed != nil {
		g.delayed.Stop()
	}
	if g.unreadTimer != nil {
		g.unreadTimer.Stop()
	}
	g.wakeLocked()
}

// total returns the announced or final length, or -1.
func (g *growing) total() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.length
}

// failure returns the error that the method fail or suspend has set, or nil.
func (g *growing) failure() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err
}

// readableEnd returns the offset up to which a reader at off may read. It needs mu.
func (g *growing) readableEnd(off int64) int64 { return min(g.end(off), g.limit()) }

// limit returns the offset past which no reader may read yet, wherever it reads. It needs mu.
func (g *growing) limit() int64 {
	switch {
	case g.ended:
		return math.MaxInt64
	case g.length >= 0:
		return g.length - 1
	default:
		return g.written - 1
	}
}

// withdraw removes a demand. It needs mu.
func (g *growing) withdraw(d span) {
	if i := slices.Index(g.demands, d); i >= 0 {
		g.demands = slices.Delete(g.demands, i, i+1)
	}
}

// waitedFor returns the demands, and the offset of the first gap.
func (g *growing) waitedFor() (demands []span, mark int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.demands), g.written
}

// [growing.lags] reports whether hashing is far behind the arrival of the bytes. The file is hashed
// in order, so the bytes beyond the first gap cannot be hashed yet. Hashing lags if these bytes are
// more than the bytes that are still missing.
func (g *growing) lags() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.arrived-g.written > g.length-g.arrived
}

// wait returns a channel that is closed at the next change. It needs mu.
func (g *growing) wait() <-chan struct{} {
	if g.changed == nil {
		g.changed = make(chan struct{})
	}
	return g.changed
}

// waitVerified waits until the file is complete, and so verified. It returns an error if the file
// fails or ctx ends.
func (g *growing) waitVerified(ctx context.Context) error {
	for {
		g.mu.Lock()
		ended, err, changed := g.ended, g.err, g.wait()
		g.mu.Unlock()
		if ended {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// readAt reads bytes at off. If there are none yet, it waits for them until ctx ends. For
// demandEnd, see await.
func (g *growing) readAt(ctx context.Context, p []byte, off, demandEnd int64) (int, error) {
	limit, err := g.await(ctx, off, demandEnd)
	if err != nil {
		return 0, err
	}
	n, err := g.src.ReadAt(p[:min(int64(len(p)), limit-off)], off)
	if n > 0 {
		return n, nil
	}
	return 0, &localError{reasonRead, noEOF(err)}
}

// await waits until there are bytes at off, or ctx ends. It returns the offset at which these bytes
// end. It returns io.EOF if there will never be any bytes at off. If off is past the first missing
// byte, and bytes are fetched on demand, await adds a demand for the bytes [off, demandEnd) to
// g.demands, and removes it on return. If demandEnd <= off, the demand reaches to the end of the
// file.
func (g *growing) await(ctx context.Context, off, demandEnd int64) (limit int64, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for demands := false; ; {
		if g.err != nil {
			return 0, g.err
		}
		if limit := g.readableEnd(off); off < limit {
			return limit, nil
		}
		if g.ended {
			return 0, io.EOF
		}
		changed, begins := g.wait(), !demands && g.demanded != nil && off > g.written
		if begins {
			demands = true
			if demandEnd <= off {
				demandEnd = g.length
			}
			g.demands = append(g.demands, span{off, demandEnd})
			defer g.withdraw(span{off, demandEnd})
		}
		g.mu.Unlock()
		if begins {
			g.demanded()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		g.mu.Lock()
		if err != nil {
			return 0, err
		}
	}
}
