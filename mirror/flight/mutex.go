package flight

import (
	"context"
	"sync"
)

// Mutex is a mutex per key. The zero value is ready for use.
type Mutex[K comparable] struct {
	mu    sync.Mutex // guards the field below
	locks map[K]*lock
}

// lock is the mutex of one key. While the lock is unlocked, its channel has a token.
type lock struct {
	free  chan struct{}
	users int // callers that hold the lock or wait for it; guarded by Mutex.mu
}

// Lock locks the mutex of key and returns the function that unlocks it. If ctx ends first, Lock
// returns the cause of ctx.
func (m *Mutex[K]) Lock(ctx context.Context, key K) (unlock func(), err error) {
	m.mu.Lock()
	if m.locks == nil {
		m.locks = map[K]*lock{}
	}
	l := m.locks[key]
	if l == nil {
		l = &lock{free: make(chan struct{}, 1)}
		l.free <- struct{}{}
		m.locks[key] = l
	}
	l.users++
	m.mu.Unlock()
	leave := func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(m.locks, key)
		}
	}
	select {
	case <-l.free:
		return func() { l.free <- struct{}{}; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, context.Cause(ctx)
	}
}
