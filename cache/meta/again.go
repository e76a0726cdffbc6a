package meta

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"time"
)

const (
	// againEvery is how often a [Cached] repeats the deletions and epochs that its store has refused.
	againEvery = time.Second
	// maxAgain bounds the keys that are sent again. Beyond it, some keys are dropped. The write under
	// a dropped key is not repeated: other processes use their old facts until these are too old.
	maxAgain = 8192
)

// [again] has the keys of the deletions and epochs (see epoch.go) that the store has refused. Other
// processes must not miss these writes.
type again struct {
	mu   sync.Mutex
	keys map[string]struct{}
	full bool          // a key was dropped since again.keys was last empty
	some chan struct{} // wakes Run when a key has been added; capacity 1
}

func newAgain() again { return again{keys: map[string]struct{}{}, some: make(chan struct{}, 1)} }

// add adds a key. Beyond the bound, add drops another key. The result is true if this is the first
// dropped key since [again.keys] was last empty.
func (a *again) add(key string) (first bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.keys[key] = struct{}{}
	for other := range a.keys {
		if len(a.keys) <= maxAgain {
			break
		}
		if other != key {
			delete(a.keys, other)
			first, a.full = !a.full, true
		}
	}
	select {
	case a.some <- struct{}{}:
	default:
	}
	return first
}

func (a *again) remove(key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.keys, key)
	a.full = a.full && len(a.keys) > 0
}

func (a *again) all() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := make([]string, 0, len(a.keys))
	for key := range a.keys {
		all = append(all, key)
	}
	return all
}

// isEpoch reports whether the entry under a key is an epoch.
func isEpoch(key string) bool {
	return strings.HasPrefix(key, forgetSpace) || strings.HasPrefix(key, returnSpace)
}

// Run repeats the deletions and epochs that the store has refused, about once a second, until ctx
// ends. Other processes must not miss these writes.
func (c *Cached) Run(ctx context.Context) error {
	for {
		select {
		case <-c.again.some:
		case <-ctx.Done():
			return nil
		}
		for left := c.again.all(); len(left) > 0; left = c.again.all() {
			select {
			case <-time.After(againEvery):
			case <-ctx.Done():
				return nil
			}
			for _, key := range left {
				if c.sendAgain(ctx, key) != nil {
					break // the store fails
				}
			}
		}
	}
}

// sendAgain sends the last write under a key again. If the write was an epoch, sendAgain begins a
// new epoch instead. Another process may have begun a later epoch since. The old epoch would
// replace it, and facts that the later epoch hides would become visible again.
func (c *Cached) sendAgain(ctx context.Context, key string) error {
	s, now := c.stripe(key), time.Now()
	before := s.writes.Load()
	h := c.absent(now)
	var err error
	if isEpoch(key) {
		var value []byte
		if value, err = json.Marshal(newEpoch(c.process)); err == nil {
			h, err = c.written(value, epochTTL, now), c.store.Put(ctx, key, value, epochTTL)
		}
	} else {
		err = c.store.Delete(ctx, key)
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.writes.Load() == before { // otherwise a later write of this process records its own result
		c.putLocked(key, h)
		s.writes.Add(1)
		c.again.remove(key)
	}
	return nil
}
