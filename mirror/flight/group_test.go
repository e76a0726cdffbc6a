package flight

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type key struct{ name, part string }

// Equal keys share one call, which goes on without the caller that came first and is cancelled when
// the last one leaves, unless it is detached.
func TestGroup(t *testing.T) {
	for _, detached := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			tasks := NewTasks()
			defer tasks.Stop()
			g := NewGroup[key, int](Options{Tasks: tasks, Timeout: time.Hour, Detached: detached})
			calls, ended := 0, error(nil)
			work := func(ctx context.Context) (int, error) {
				calls++
				select {
				case <-time.After(time.Minute):
					return calls, nil
				case <-ctx.Done():
					ended = context.Cause(ctx)
					return 0, ended
				}
			}
			do := func(patience time.Duration, k key) (int, error) {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				return g.Do(ctx, k, work)
			}
			go func() { _, _ = do(time.Second, key{"a b", "c"}) }()
			synctest.Wait()
			if n, err := do(time.Hour, key{"a b", "c"}); n != 1 || err != nil {
				t.Errorf("the caller that stays gets %d, %v", n, err)
			}
			_, err := do(time.Second, key{"a", "b c"})
			synctest.Wait()
			if !errors.Is(err, context.DeadlineExceeded) || calls != 2 {
				t.Errorf("another key: %v, and there were %d calls", err, calls)
			}
			if (ended == nil) != detached {
				t.Errorf("detached: %v, and the call that everybody left has ended with %v", detached, ended)
			}
		})
	}
}

// Wait looks at the keys of calls under way, and gives up with its context.
func TestGroupWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tasks := NewTasks()
		g := NewGroup[key, int](Options{Tasks: tasks, Timeout: time.Minute})
		go func() {
			_, _ = g.Do(t.Context(), key{"a", "b"}, func(ctx context.Context) (int, error) { <-ctx.Done(); return 0, nil })
		}()
		synctest.Wait()
		begun := time.Now()
		named := func(name string) func(key) bool { return func(k key) bool { return k.name == name } }
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := g.Wait(t.Context(), named("other")); err != nil || time.Since(begun) != 0 {
			t.Errorf("another key: %v after %v", err, time.Since(begun))
		}
		if err := g.Wait(ctx, named("a")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("without patience: %v", err)
		}
		if err := g.Wait(t.Context(), named("a")); err != nil || time.Since(begun) != time.Minute {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
		tasks.Stop()
		if _, err := g.Do(t.Context(), key{}, nil); !errors.Is(err, ErrStopped) {
			t.Errorf("after the end: %v", err)
		}
	})
}

// One at a time holds the mutex of a key, and leaves nothing behind.
func TestMutex(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m Mutex[key]
		unlock, err := m.Lock(t.Context(), key{"a", "b"})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := m.Lock(ctx, key{"a", "b"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("it is held, and the other gets %v", err)
		}
		other, err := m.Lock(t.Context(), key{"a b", ""})
		if err != nil {
			t.Fatal(err)
		}
		other()
		unlock()
		if again, err := m.Lock(t.Context(), key{"a", "b"}); err != nil {
			t.Error(err)
		} else {
			again()
		}
		if len(m.locks) > 0 {
			t.Errorf("%d keys are left", len(m.locks))
		}
	})
}
