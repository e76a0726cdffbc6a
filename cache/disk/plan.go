package disk

import (
	"context"
	"fmt"
)

// Plan returns what would be evicted, in this order, if n more bytes had to be found now for a blob
// of that length, and changes nothing. It returns at most so many victims as most says; they have
// fewer than n bytes together when these are too few, or when all else is open or pinned.
func (v *evictor) Plan(ctx context.Context, n int64, most int) ([]Victim, error) {
	if err := v.scan.wait(ctx); err != nil {
		return nil, err
	}
	v.mu.RLock()
	defer v.mu.RUnlock()
	var all []Victim
	for hand, short := v.policy.plan(), n; short > 0 && len(all) < most; {
		e, why := hand.victim(n, v.inUse)
		if e == nil {
			break
		}
		all = append(all, v.victim(e, why))
		short -= e.blocks()
	}
	return all, nil
}

// Evict does what [Dir.Plan] says. The victims are unlinked when it returns nil; who has one open
// reads on.
func (v *evictor) Evict(ctx context.Context, n int64, most int) ([]Victim, error) {
	if err := v.scan.wait(ctx); err != nil {
		return nil, err
	}
	var all []Victim
	for short := n; short > 0 && len(all) < most; {
		if ctx.Err() != nil {
			return all, context.Cause(ctx)
		}
		part, entries := v.evictSome(short, n, min(most-len(all), listBatch))
		if len(part) == 0 {
			break
		}
		v.unlinkDropped()
		for i, e := range entries {
			if !v.left(e) {
				return append(all, part[:i]...), fmt.Errorf("evict %s: %w", e.digest(), errUnlink)
			}
			short -= e.blocks()
		}
		all = append(all, part...)
	}
	return all, nil
}

// evictSome dooms victims of short bytes, as far as there are, and at most so many.
func (v *evictor) evictSome(short, coming int64, most int) (part []Victim, entries []*entry) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for hand := v.policy.clock(); short > 0 && len(part) < most; {
		e, why := hand.victim(coming, v.inUse)
		if e == nil {
			break
		}
		part, entries = append(part, v.victim(e, why)), append(entries, e)
		v.evictOne(e)
		short -= e.blocks()
	}
	return part, entries
}
