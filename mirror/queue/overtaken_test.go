package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// refusing runs the queue until nothing is due, and refuses the manifest with a text.
func refusing(q *Queue, text string) {
	stop := running(q, func(_ context.Context, e Entry) error {
		if string(e.Manifest) == text {
			return ErrRefused
		}
		return nil
	})
	synctest.Wait()
	stop()
}

// overtaken says which pushes have been overtaken. Retry must refuse exactly those of them that
// have failed.
func overtaken(q *Queue) (all []string) {
	for _, e := range q.List() {
		if e.Overtaken {
			all = append(all, string(e.Manifest))
		}
	}
	return all
}

// TestOvertaken: a failed push is overtaken while a later push of its tag is in the queue, and for
// good once one has been forwarded. The next process, which finds only the records, agrees.
func TestOvertaken(t *testing.T) {
	old, newer := push("a", "v1", "old"), push("a", "v1", "newer")
	for name, c := range map[string]struct {
		then func(t *testing.T, q *Queue)
		want bool
	}{
		"nothing":   {func(*testing.T, *Queue) {}, false},
		"waits":     {func(t *testing.T, q *Queue) { added(t, q, newer) }, true},
		"forwarded": {func(t *testing.T, q *Queue) { added(t, q, newer); refusing(q, "") }, true},
		"refused":   {func(t *testing.T, q *Queue) { added(t, q, newer); refusing(q, "newer") }, true},
		"dropped": {func(t *testing.T, q *Queue) {
			added(t, q, newer)
			if _, err := q.Drop(t.Context(), 2); err != nil {
				t.Fatal(err)
			}
		}, false},
		"being withdrawn": {func(t *testing.T, q *Queue) {
			added(t, q, newer)
			withdrawn(t, q, func(p Push) bool { return p.Digest == newer.Digest })
		}, false},
		"restored": {func(t *testing.T, q *Queue) {
			added(t, q, newer)
			withdrawn(t, q, func(p Push) bool { return p.Digest == newer.Digest }).Restore()
		}, true},
		"forwarded, and the next one dropped": {func(t *testing.T, q *Queue) {
			added(t, q, newer)
			refusing(q, "")
			added(t, q, push("a", "v1", "newest"))
			if _, err := q.Drop(t.Context(), 3); err != nil {
				t.Fatal(err)
			}
		}, true},
		"forwarded while withdrawn": {func(t *testing.T, q *Queue) {
			added(t, q, newer)
			var w *Withdrawal
			q.finish(attempted(q, 2, func() { w = withdrawn(t, q, func(p Push) bool { return p.Digest == old.Digest }) }))
			w.Restore()
		}, true},
		"pushed without the queue": {func(t *testing.T, q *Queue) { q.Overtake("ecr", "a", "v1") }, true},
		"another without the queue": {func(t *testing.T, q *Queue) {
			q.Overtake("ecr", "a", "v2")
			q.Overtake("ecr", "b", "v1")
			q.Overtake("ecr", "a", old.Digest.String())
		}, false},
		"another tag":        {func(t *testing.T, q *Queue) { added(t, q, push("a", "v2", "newer")); refusing(q, "") }, false},
		"another repository": {func(t *testing.T, q *Queue) { added(t, q, push("b", "v1", "newer")); refusing(q, "") }, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q, _ := opened(t, Options{})
				added(t, q, old)
				refusing(q, "old")
				c.then(t, q)
				for process := range 2 {
					if got := slices.Contains(overtaken(q), "old"); got != c.want {
						t.Errorf("process %d: overtaken is %t", process, got)
					}
					q, _ = reopened(t, q)
				}
				if err := q.Retry(t.Context(), 1); errors.Is(err, ErrOvertaken) != c.want || !c.want && err != nil {
					t.Errorf("retry: %v", err)
				}
			})
		})
	}
	t.Run("by digest", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			q, _ := opened(t, Options{})
			added(t, q, push("a", "", "old"))
			refusing(q, "old")
			added(t, q, push("a", "", "old"))
			if got := overtaken(q); len(got) > 0 {
				t.Errorf("%q", got)
			}
		})
	})
}

// TestRestoredInOrder: a push that was withdrawn and is put back is still forwarded before the
// later ones, so the tag means the image that was pushed last.
func TestRestoredInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, _ := opened(t, Options{})
		added(t, q, push("a", "v1", "old"), push("a", "v1", "new"), push("b", "v1", "other"))
		w := withdrawn(t, q, func(p Push) bool { return string(p.Manifest) == "old" })
		var order []string
		stop := running(q, func(_ context.Context, e Entry) error {
			order = append(order, fmt.Sprint(e.Repository, " ", string(e.Manifest)))
			return nil
		})
		time.Sleep(time.Hour)
		w.Restore()
		synctest.Wait()
		stop()
		if want := []string{"b other", "a old", "a new"}; !slices.Equal(order, want) {
			t.Errorf("the order was %q, want %q", order, want)
		}
	})
}
