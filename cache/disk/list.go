package disk

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
)

// Info is what the directory knows of a blob, at one moment.
type Info struct {
	Digest digest.Digest
	Size   int64 // in bytes
	// LastUse is when the blob was last opened, to the hour.
	LastUse time.Time
	// Hits is how often the blob was asked for since its last turn of eviction; 3 stands for more.
	Hits int
	// Small says that it is in the pool of small blobs, which are evicted apart from the large ones.
	Small bool
	// Proven says that it was asked for again since it came. Others are evicted first.
	Proven bool
	// Open says that it is being read or pushed, or is needed by a push: it is not evicted now.
	Open bool
	// Pinned says that an operator keeps it; see [Dir.SetPin].
	Pinned bool
	// Suspect says that it comes from an unclean stop and is yet to be verified.
	Suspect bool
}

// listBatch is how many entries are looked at per turn of the lock.
const listBatch = 1024

// List calls yield with each blob held, in no particular order, until it returns false. Blobs that come or leave
// meanwhile may be left out. The only error is that of ctx, which also bounds the wait for the directory to be read.
func (d *Dir) List(ctx context.Context, yield func(Info) bool) error {
	if err := d.scanned(ctx); err != nil {
		return err
	}
	batch := make([]Info, 0, listBatch)
	flush := func() bool { // the lock is not held while the caller works
		d.mu.RUnlock()
		defer d.mu.RLock()
		for _, i := range batch {
			if ctx.Err() != nil || !yield(i) {
				return false
			}
		}
		batch = batch[:0]
		return true
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	for e := range d.index.all() { // a map may change between two steps
		if batch = append(batch, d.info(e)); len(batch) == listBatch && !flush() {
			return context.Cause(ctx)
		}
	}
	flush()
	return context.Cause(ctx)
}

// Lookup returns what is known of one blob, and whether it is held at all. One that is yet to be verified is.
func (d *Dir) Lookup(dg digest.Digest) (Info, bool) {
	name, err := blobPath(dg)
	if err != nil {
		return Info{}, false
	}
	e, err := d.lookup(context.Background(), dg, name)
	if err != nil {
		return Info{}, false
	}
	d.unpin(e)
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.info(e), !e.gone
}

// info needs mu.
func (d *Dir) info(e *entry) Info {
	return Info{
		Digest: e.digest(), Size: e.size, LastUse: time.Unix(0, e.touch.Load()), Hits: int(e.hits.Load()),
		Small: e.size < smallBlob, Proven: e.queue == d.policy.pool(e.size).main,
		Open: e.pins.Load() > 0, Pinned: d.kept[e.digest()] > 0, Suspect: e.suspect,
	}
}

// Victim is a blob that is evicted, and why.
type Victim struct {
	Info
	Reason Reason
}

// Plan returns what would be evicted, in this order, if n more bytes had to be found now for a blob of that
// length, and changes nothing. It returns at most so many victims as most says; they have fewer than n bytes together when
// these are too few, or when all else is open or pinned.
func (d *Dir) Plan(ctx context.Context, n int64, most int) ([]Victim, error) {
	if err := d.scanned(ctx); err != nil {
		return nil, err
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	var all []Victim
	for hand, short := d.policy.plan(), n; short > 0 && len(all) < most; {
		e, why := hand.victim(n, d.inUse)
		if e == nil {
			break
		}
		all = append(all, d.victim(e, why))
		short -= e.blocks()
	}
	return all, nil
}

// Evict does what [Dir.Plan] says. The victims are unlinked when it returns nil; who has one open reads on.
func (d *Dir) Evict(ctx context.Context, n int64, most int) ([]Victim, error) {
	if err := d.scanned(ctx); err != nil {
		return nil, err
	}
	var all []Victim
	for short := n; short > 0 && len(all) < most; {
		if ctx.Err() != nil {
			return all, context.Cause(ctx)
		}
		part, entries := d.expelSome(short, n, min(most-len(all), listBatch))
		if len(part) == 0 {
			break
		}
		d.sweep()
		for i, e := range entries {
			if !d.left(e) {
				return append(all, part[:i]...), fmt.Errorf("evict %s: %w", e.digest(), errUnlink)
			}
			short -= e.blocks()
		}
		all = append(all, part...)
	}
	return all, nil
}

// errUnlink says that a file could not be removed; the log has why.
var errUnlink = errors.New("cannot remove file")

// expelSome dooms victims of short bytes, as far as there are, and at most so many.
func (d *Dir) expelSome(short, coming int64, most int) (part []Victim, entries []*entry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for hand := d.policy.hand(); short > 0 && len(part) < most; {
		e, why := hand.victim(coming, d.inUse)
		if e == nil {
			break
		}
		part, entries = append(part, d.victim(e, why)), append(entries, e)
		d.expel(e)
		short -= e.blocks()
	}
	return part, entries
}

// left says whether an entry is out of the index.
func (d *Dir) left(e *entry) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return e.gone
}

// victim needs mu.
func (d *Dir) victim(e *entry, why Reason) Victim {
	v := Victim{d.info(e), why}
	v.Hits, v.Proven = 0, why == ReasonCold // as they are when its turn comes
	return v
}
