package flight

import (
	"context"
	"sync"
)

// Turns let one at a time do what is named alike.
type Turns[K comparable] struct {
	mu sync.Mutex
	m  map[K]*turn
}

// turn is one name. Its token is in free while nobody has it.
type turn struct {
	free  chan struct{}
	users int // who have it or wait for it; guarded by Turns.mu
}

// Wait returns when it is the caller's turn, who calls done afterwards, or the cause of ctx's end.
func (t *Turns[K]) Wait(ctx context.Context, name K) (done func(), err error) {
	t.mu.Lock()
	if t.m == nil {
		t.m = map[K]*turn{}
	}
	one := t.m[name]
	if one == nil {
		one = &turn{free: make(chan struct{}, 1)}
		one.free <- struct{}{}
		t.m[name] = one
	}
	one.users++
	t.mu.Unlock()
	leave := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if one.users--; one.users == 0 {
			delete(t.m, name)
		}
	}
	select {
	case <-one.free:
		return func() { one.free <- struct{}{}; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, context.Cause(ctx)
	}
}
