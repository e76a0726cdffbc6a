package queue

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func tagged(tag string) func(Push) bool { return func(p Push) bool { return p.Reference == tag } }

func withdrawn(t *testing.T, q *Queue, which func(Push) bool) *Withdrawal {
	t.Helper()
	w, err := q.Withdraw(t.Context(), "ecr", "a", which)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// A withdrawn push is gone from the disk before Withdraw returns, is not visible, and comes back
// whole and in its place when it is restored.
func TestWithdraw(t *testing.T) {
	q, h := opened(t, Options{})
	added(t, q, push("a", "v1", "one"), push("a", "v2", "two"), push("a", "v1", "three"), push("b", "v1", "other"))
	q.index.entries[1].State = Failed
	all := names(q)
	w := withdrawn(t, q, tagged("v1"))
	if ps := w.Pushes(); len(ps) != 2 || string(ps[1].Manifest) != "three" {
		t.Errorf("%d pushes were withdrawn", len(ps))
	}
	left := []string{"a:v2 two waiting", "b:v1 other waiting"}
	if got := onDisk(t, q); !slices.Equal(got, left) {
		t.Errorf("on disk is %q", got)
	}
	wantNames(t, q, left...)
	if s := q.index.stats(time.Now()); s.waiting != 2 || s.failed != 0 {
		t.Errorf("counted are %d that wait and %d that failed", s.waiting, s.failed)
	}
	if _, ok := q.Find("ecr", "a", "v1"); ok || !slices.Equal(q.Tags("ecr", "a"), []string{"v2"}) {
		t.Errorf("what is withdrawn shows, and the tags are %q", q.Tags("ecr", "a"))
	}
	for _, id := range []uint64{1, 3} {
		_, err := q.Drop(t.Context(), id)
		if again := q.Retry(t.Context(), id); !errors.Is(err, ErrNotFound) || !errors.Is(again, ErrNotFound) {
			t.Errorf("by hand: %v, %v", err, again)
		}
	}
	added(t, q, push("c", "v1", "meanwhile")) // writes to the journal
	w.Restore()
	wantNames(t, q, append(all, "c:v1 meanwhile waiting")...)
	if got := onDisk(t, q); !slices.Equal(got, names(q)) {
		t.Errorf("on disk is %q", got)
	}

	held := h.count()
	withdrawn(t, q, tagged("v1")).Done()
	wantNames(t, q, "a:v2 two waiting", "b:v1 other waiting", "c:v1 meanwhile waiting")
	if h.count() != held-2 {
		t.Errorf("%d blobs are held, %d were", h.count(), held)
	}
	if got := onDisk(t, q); !slices.Equal(got, names(q)) {
		t.Errorf("on disk is %q", got)
	}
	withdrawn(t, q, tagged("v1")).Restore() // nothing
	if w, err := Empty().Withdraw(t.Context(), "ecr", "a", tagged("v1")); err != nil || len(w.Pushes()) != 0 {
		t.Errorf("of an empty queue: %v", err)
	}
}

// Withdraw waits for a push that is being forwarded, and withdraws it if the attempt fails.
func TestWithdrawWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, _ := opened(t, Options{})
		added(t, q, push("a", "v1", "lands"), push("a", "v1", "fails"))
		stop := running(q, func(_ context.Context, e Entry) error {
			time.Sleep(10 * time.Second)
			if string(e.Manifest) == "fails" {
				return errors.New("down")
			}
			return nil
		})
		synctest.Wait()
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := q.Withdraw(short, "ecr", "a", tagged("v1")); !errors.Is(err, ErrBusy) {
			t.Errorf("in a second: %v", err)
		}
		time.Sleep(10 * time.Second) // the second one is under way
		w := withdrawn(t, q, tagged("v1"))
		if ps := w.Pushes(); len(ps) != 1 || string(ps[0].Manifest) != "fails" {
			t.Errorf("%+v", ps)
		}
		time.Sleep(time.Hour)
		w.Done()
		wantNames(t, q)
		stop()
	})
}

// Withdraw interrupts an attempt that does not end by itself: neither a registry that fails for
// long nor a large layer keeps a push from being withdrawn.
func TestWithdrawInterrupts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, _ := opened(t, Options{})
		added(t, q, push("a", "v1", "one"), push("a", "v2", "two"))
		var tried []string
		stop := running(q, func(ctx context.Context, e Entry) error {
			if tried = append(tried, e.Reference); e.Reference == "v2" {
				return nil
			}
			<-ctx.Done()
			return context.Cause(ctx)
		})
		synctest.Wait()
		start := time.Now()
		w := withdrawn(t, q, tagged("v1"))
		if took := time.Since(start); took > time.Second {
			t.Errorf("it took %s", took)
		}
		synctest.Wait()
		w.Done()
		synctest.Wait()
		wantNames(t, q)
		if !slices.Equal(tried, []string{"v1", "v2"}) {
			t.Errorf("tried were %q", tried)
		}
		stop()
	})
}

// Drop interrupts an attempt under way, unless it ends by itself at once; then the push is not
// found.
func TestDropInterrupts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, h := opened(t, Options{})
		added(t, q, push("a", "v1", "hangs"), push("b", "v1", "lands"), push("c", "v1", "stuck"))
		begun := map[string]int{}
		end := make(chan bool)
		stop := running(q, func(ctx context.Context, e Entry) error {
			q.index.mu.Lock()
			begun[e.Repository]++
			q.index.mu.Unlock()
			switch e.Repository {
			case "b":
				time.Sleep(grace / 2)
				return nil
			case "c":
				<-end // whatever becomes of ctx
			}
			<-ctx.Done()
			return context.Cause(ctx)
		})
		synctest.Wait()
		if _, err := q.Drop(t.Context(), 2); !errors.Is(err, ErrNotFound) {
			t.Errorf("what has just landed: %v", err)
		}
		if e, err := q.Drop(t.Context(), 1); err != nil || string(e.Manifest) != "hangs" {
			t.Errorf("%+v, %v", e, err)
		}
		short, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if _, err := q.Drop(short, 3); !errors.Is(err, ErrBusy) {
			t.Errorf("what does not end: %v", err)
		}
		close(end)
		if _, err := q.Drop(t.Context(), 3); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Hour)
		wantNames(t, q)
		if begun["a"] != 1 || h.count() != 0 {
			t.Errorf("%d attempts, %d blobs held", begun["a"], h.count())
		}
		if got := onDisk(t, q); len(got) != 0 {
			t.Errorf("on disk is %q", got)
		}
		stop()
	})
}

// A disk that does not take it changes nothing. One that did not take what was forwarded either has
// to do so first.
func TestWithdrawOnFailingDisk(t *testing.T) {
	d := &disk{}
	q, _ := opened(t, Options{Sync: d.sync})
	added(t, q, push("a", "v1", "one"), push("a", "v1", "two"))
	all := names(q)
	for _, fails := range []int64{1, 2, 3} {
		d.fails.Store(fails)
		if _, err := q.Withdraw(t.Context(), "ecr", "a", tagged("v1")); !errors.Is(err, errDisk) {
			t.Errorf("%d times: %v", fails, err)
		}
		wantNames(t, q, all...)
	}
	d.fails.Store(0)
	q, _ = opened(t, Options{Sync: d.sync})
	added(t, q, push("a", "v1", "one"), push("a", "v1", "two"))
	q.finish(attempted(q, 1, func() { d.fails.Store(2) }))
	d.fails.Store(2)
	if _, err := q.Withdraw(t.Context(), "ecr", "a", tagged("v9")); !errors.Is(err, errDisk) {
		t.Errorf("%v", err)
	}
	withdrawn(t, q, tagged("v9")).Done()
	if got := onDisk(t, q); !slices.Equal(got, []string{"a:v1 two waiting"}) {
		t.Errorf("on disk is %q", got)
	}
}

// A withdrawal waits for the attempt that it has found, and interrupts no other. The next attempt
// has not had its grace yet.
func TestInterruptsOneAttempt(t *testing.T) {
	q, _ := opened(t, Options{})
	added(t, q, push("a", "v1", "one"))
	first := attempted(q, 1, func() {})
	_, busy, err := q.withdraw(t.Context(), repoKey{"ecr", "a"}, func(*entry) bool { return true })
	if err != nil || busy == nil {
		t.Fatalf("%v, %v", busy, err)
	}
	q.index.requeue(first, time.Now(), "")
	again := attempted(q, 1, func() {})
	q.index.begin(again, func() { t.Error("the next attempt was interrupted") })
	q.index.interruptAttempt(busy)
}

// Requests may end after Close: they get errors, and what they hold is released.
func TestAfterClose(t *testing.T) {
	q, h := opened(t, Options{})
	added(t, q, push("a", "v1", "one"), push("a", "v2", "two"))
	w := withdrawn(t, q, tagged("v1"))
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	w.Done()
	for range 2 {
		if err := q.Add(t.Context(), push("a", "v2", "two")); err == nil {
			t.Error("a push is accepted without a journal")
		}
	}
	if h.count() != 0 {
		t.Errorf("%d held", h.count())
	}
}

// attempted is an entry that is being forwarded.
func attempted(q *Queue, id uint64, then func()) *entry {
	e, _ := q.index.next(time.Now())
	if e.ID != id {
		panic("another one was due")
	}
	then()
	return e
}

// TestHas: a repository has pushes until they are gone for good.
func TestHas(t *testing.T) {
	q, _ := opened(t, Options{})
	want := func(has bool, when string) {
		t.Helper()
		if q.Has("ecr", "a") != has || q.Has("ecr", "b") {
			t.Errorf("%s: %v %v", when, q.Has("ecr", "a"), q.Has("ecr", "b"))
		}
	}
	want(false, "empty")
	added(t, q, push("a", "v1", "one"))
	want(true, "added")
	w := withdrawn(t, q, tagged("v1"))
	want(true, "withdrawn")
	w.Restore()
	withdrawn(t, q, tagged("v1")).Done()
	want(false, "removed")
	if Empty().Has("ecr", "a") {
		t.Error("the empty queue has a push")
	}
}
