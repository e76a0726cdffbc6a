package meta

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"time"
)

const (
	// againEvery is how often a [Cached] sends again what its store has refused.
	againEvery = time.Second
	// maxAgain bounds the keys that are sent again. Beyond it, some are given up: other processes then
	// notice the change when what they know is too old.
	maxAgain = 8192
)

// again has the keys whose last write the store has refused, although other processes must not miss
// it: those of deletions and of epochs.
type again struct {
	mu   sync.Mutex
	keys map[string]struct{}
	full bool          // a key was given up since there were no keys
	some chan struct{} // has an entry if there are keys
}

func newAgain() again { return again{keys: map[string]struct{}{}, some: make(chan struct{}, 1)} }

// add adds a key. Beyond the bound, another one makes room. first reports that this happens for the
// first time since there were no keys.
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

// isEpoch reports whether there are epochs under a key.
func isEpoch(key string) bool {
	return strings.HasPrefix(key, forgetSpace) || strings.HasPrefix(key, returnSpace)
}

// Run sends about once a second what the store has refused and other processes must not miss, until
// ctx ends: deletions, and that what is known about a tag or a digest has become invisible.
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

// sendAgain sends the last write under a key again. In the place of an epoch, it begins a new one:
// another process may have begun one since, and what that has made invisible must not come back.
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
	if s.writes.Load() == before { // otherwise this process has written, and notes the result itself
		c.putLocked(key, h)
		s.writes.Add(1)
		c.again.remove(key)
	}
	return nil
}
