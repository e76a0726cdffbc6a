package meta

import (
	"context"
	"sync"
	"time"
)

// clockEvery is the minimum time between two questions of a [Cached] for the time of a shared
// store. Callers calculate the current time of the store from the pair that [Cached.Clock] returns:
// they add the time that has passed since, by the monotonic clock of this process.
const clockEvery = 10 * time.Second

// clock is the last known time of the clock of a store.
type clock struct {
	mu           sync.Mutex // guards the fields below
	store, local time.Time  // the same moment by the clock of the store and of this process; zero before the first answer
	asked        time.Time
}

// Clock implements [Clocked]. The result is a pair of times of one past moment. It stays the same
// until an answer of the store contradicts it, so that a fact has the same date each time that it
// is read. If the store is not Clocked, both times are the current time.
func (c *Cached) Clock(ctx context.Context) (store, local time.Time, err error) {
	source, ok := c.store.(Clocked)
	if !ok {
		now := time.Now()
		return now, now, nil
	}
	began := time.Now()
	store, local, due := c.clock.read(began)
	if !due {
		return store, local, nil
	}
	at, middle, err := source.Clock(ctx)
	switch {
	case err == nil:
		store, local = c.clock.set(at, middle, began)
		return store, local, nil
	case !local.IsZero():
		return store, local, nil
	}
	return store, local, err
}

// read returns the last known times. due is true if the caller must ask the store, because no times
// are known, or the last question was sent at least clockEvery ago.
func (k *clock) read(now time.Time) (store, local time.Time, due bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	due = k.local.IsZero() || now.Sub(k.asked) >= clockEvery
	if due {
		k.asked = now
	}
	return k.store, k.local, due
}

// set takes an answer of the store, and returns the pair of times that is valid from now on.
// askedAt is when this process sent the question. The known pair stays valid unless the answer
// contradicts it: by the pair, the answer would be older than the question, or from the future.
func (k *clock) set(store, local, askedAt time.Time) (time.Time, time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	expected := k.local.Add(store.Sub(k.store)) // the local time of the answer, by the pair that is known so far
	if k.local.IsZero() || expected.Before(askedAt) || expected.After(time.Now()) {
		k.store, k.local = store, local
	}
	return k.store, k.local
}
