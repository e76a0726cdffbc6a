package disk

import (
	"context"
	"fmt"
)

// Plan returns, in the order of their eviction, the blobs that would be evicted to free n bytes for
// a new blob of n bytes. The parameter limit bounds their number. Plan changes nothing. The victims
// have fewer than n bytes together if limit is too low, or if all other blobs are in use or pinned.
func (v *evictor) Plan(ctx context.Context, n int64, limit int) ([]Victim, error) {
	if err := v.scan.wait(ctx); err != nil {
		return nil, err
	}
	v.mu.RLock()
	defer v.mu.RUnlock()
	var all []Victim
	for clock, short := v.policy.plan(), n; short > 0 && len(all) < limit; {
		e, why := clock.victim(n, v.inUse)
		if e == nil {
			break
		}
		all = append(all, v.victim(e, why))
		short -= e.blocks()
	}
	return all, nil
}

// Evict evicts the blobs that [Dir.Plan] would return, and returns these blobs. When Evict returns,
// their files are unlinked. After an error, Evict may have evicted fewer blobs. left is how many of
// the n bytes are not freed.
func (v *evictor) Evict(ctx context.Context, n int64, limit int) (all []Victim, left int64, err error) {
	if err := v.scan.wait(ctx); err != nil {
		return nil, n, err
	}
	for left = n; left > 0 && len(all) < limit; {
		if ctx.Err() != nil {
			return all, left, context.Cause(ctx)
		}
		part, entries := v.evictSome(left, n, min(limit-len(all), listBatch))
		if len(part) == 0 {
			break
		}
		v.unlinkDropped()
		for i, e := range entries {
			if !v.isGone(e) {
				return append(all, part[:i]...), left, fmt.Errorf("evict %s: %w", e.digest(), errUnlink)
			}
			left -= e.blocks()
		}
		all = append(all, part...)
	}
	return all, max(left, 0), nil
}

// evictSome drops victims. It stops as soon as the sum of their sizes reaches shortage, their
// number reaches limit, or no victims are left.
func (v *evictor) evictSome(shortage, newLength int64, limit int) (part []Victim, entries []*entry) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for clock := v.policy.clock(); shortage > 0 && len(part) < limit; {
		e, why := clock.victim(newLength, v.inUse)
		if e == nil {
			break
		}
		part, entries = append(part, v.victim(e, why)), append(entries, e)
		v.evictOne(e)
		shortage -= e.blocks()
	}
	return part, entries
}
