package cache

import (
	"context"
	"io"
	"slices"
	"sort"
	"sync"
	"time"
)

const (
	// wakeStep and wakeDelay bound how often readers are woken: after so many bytes,
	// or so much time, whichever comes first. 64 KiB pieces would double the cost of a herd.
	wakeStep  = 256 << 10
	wakeDelay = 2 * time.Millisecond
)

// span is a part of a file, to excluded.
type span struct{ from, to int64 }

// growing is a file that is written while many read it: by one goroutine that appends,
// or, where the length is announced, by several that write apart from each other. Before it is
// complete the last byte is withheld: of the announced length, or the newest one
// where the length is not known. Flights and uploads are made of it.
type growing struct {
	src  io.ReaderAt
	free func() error // closes src; called once, when the last user has left

	mu      sync.Mutex    // guards below; leaf lock
	users   int           // the writer and the readers
	lonely  *time.Timer   // runs while there are no readers; nil where nobody cares
	grace   time.Duration // how long it runs
	length  int64         // announced, or -1
	written int64         // bytes from the beginning on without a gap
	beyond  []span        // what is written behind the first gap, in order, no two touching
	arrived int64         // bytes written in all
	woken   int64         // arrived when the readers were last woken
	wishes  []int64       // where readers wait behind the first gap
	wish    chan struct{} // told of a new wish; nil where nobody listens
	over    bool          // complete, or failed if err is set
	err     error         // what every reader gets from now on
	changed chan struct{} // closed to wake readers; nil when none waits
	delayed *time.Timer   // wakes readers later; nil before the first use
	armed   bool
}

// newGrowing returns a file with one user, its writer.
func newGrowing(src io.ReaderAt, length int64, free func() error) *growing {
	return &growing{src: src, free: free, users: 1, length: length}
}

// join adds a user; false when the last one has left.
func (g *growing) join() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.users == 0 {
		return false
	}
	g.users++
	if g.lonely != nil {
		g.lonely.Stop()
	}
	return true
}

// leave ends one use.
func (g *growing) leave() error {
	g.mu.Lock()
	g.users--
	last, free := g.users == 0, g.free
	if g.users == 1 && g.lonely != nil && !g.over {
		g.lonely.Reset(g.grace)
	}
	g.mu.Unlock()
	if last {
		return free()
	}
	return nil
}

// advance says that n more bytes can be read from the end on.
func (g *growing) advance(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.written += int64(n)
	g.more(n)
}

// arrive says that n more bytes can be read at off, which nobody has said before.
func (g *growing) arrive(off int64, n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	to := off + int64(n)
	i := sort.Search(len(g.beyond), func(i int) bool { return g.beyond[i].from >= off })
	if i < len(g.beyond) && g.beyond[i].from == to { // what follows is there
		to = g.beyond[i].to
		g.beyond = slices.Delete(g.beyond, i, i+1)
	}
	switch {
	case off == g.written:
		g.written = to
	case i > 0 && g.beyond[i-1].to == off:
		g.beyond[i-1].to = to
	default:
		g.beyond = slices.Insert(g.beyond, i, span{off, to})
	}
	g.more(n)
}

// more counts n new bytes and wakes readers now or soon. Needs mu.
func (g *growing) more(n int) {
	g.arrived += int64(n)
	switch {
	case g.woken == 0, g.arrived-g.woken >= wakeStep:
		g.wake()
	case g.changed != nil && !g.armed:
		g.armed = true
		if g.delayed == nil {
			g.delayed = time.AfterFunc(wakeDelay, g.wakeLate)
		} else {
			g.delayed.Reset(wakeDelay)
		}
	}
}

func (g *growing) wakeLate() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.armed = false
	g.wake()
}

// wake wakes the readers that wait. Needs mu.
func (g *growing) wake() {
	g.woken = g.arrived
	if g.changed != nil {
		close(g.changed)
		g.changed = nil
	}
}

// complete lets readers have the rest: the bytes were verified. free closes what src has become.
func (g *growing) complete(free func() error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.free = free
	g.length = g.written
	g.end()
}

// fail gives err to every reader.
func (g *growing) fail(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.over {
		return
	}
	g.err = err
	g.end()
}

// suspend is fail with ErrClosed, but the last user leaves by free.
func (g *growing) suspend(free func() error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.over {
		return
	}
	g.err, g.free = ErrClosed, free
	g.end()
}

// end needs mu.
func (g *growing) end() {
	g.over = true
	if g.delayed != nil {
		g.delayed.Stop()
	}
	if g.lonely != nil {
		g.lonely.Stop()
	}
	g.wake()
}

// total returns the announced or final length, or -1.
func (g *growing) total() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.length
}

// failure returns what fail was called with.
func (g *growing) failure() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err
}

// visible returns where what readers may have from off on ends. Needs mu.
func (g *growing) visible(off int64) int64 {
	end := g.written
	for _, s := range g.beyond {
		if s.from <= off && off < s.to {
			end = s.to
		}
	}
	switch {
	case g.over:
		return end
	case g.length >= 0:
		return min(end, g.length-1)
	default:
		return end - 1
	}
}

// hope notes where a reader waits; the returned function ends that. Needs mu.
func (g *growing) hope(off int64) (end func()) {
	if g.wish == nil || off <= g.written {
		return func() {}
	}
	g.wishes = append(g.wishes, off)
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if i := slices.Index(g.wishes, off); i >= 0 {
			g.wishes = slices.Delete(g.wishes, i, i+1)
		}
	}
}

// wait returns what is closed at the next change. Needs mu.
func (g *growing) wait() <-chan struct{} {
	if g.changed == nil {
		g.changed = make(chan struct{})
	}
	return g.changed
}

// verdict waits until the file is over and returns why it failed, if it did.
func (g *growing) verdict(ctx context.Context) error {
	for {
		g.mu.Lock()
		over, err, changed := g.over, g.err, g.wait()
		g.mu.Unlock()
		if over {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// readAt reads what there is at off, waiting for the first byte of it until ctx ends.
func (g *growing) readAt(ctx context.Context, p []byte, off int64) (int, error) {
	limit, err := g.await(ctx, off)
	if err != nil {
		return 0, err
	}
	n, err := g.src.ReadAt(p[:min(int64(len(p)), limit-off)], off)
	if n > 0 {
		return n, nil
	}
	return 0, &localError{reasonRead, noEOF(err)}
}

// await waits until there is something at off, or ctx ends, and returns where that ends;
// io.EOF when nothing will ever be there.
func (g *growing) await(ctx context.Context, off int64) (limit int64, err error) {
	for {
		g.mu.Lock()
		if g.err != nil {
			defer g.mu.Unlock()
			return 0, g.err
		}
		if limit := g.visible(off); off < limit {
			g.mu.Unlock()
			return limit, nil
		}
		if g.over {
			g.mu.Unlock()
			return 0, io.EOF
		}
		changed, end := g.wait(), g.hope(off)
		g.mu.Unlock()
		select {
		case g.wish <- struct{}{}: // full or nil: never
		default:
		}
		select {
		case <-changed:
		case <-ctx.Done():
			end()
			return 0, context.Cause(ctx)
		}
		end()
	}
}
