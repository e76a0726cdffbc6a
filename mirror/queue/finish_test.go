package queue

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// disk is a disk whose next syncs fail, and that calls onSync before each.
type disk struct {
	fails  atomic.Int64
	onSync func()
}

var errDisk = errors.New("no space")

func (d *disk) sync() error {
	if d.onSync != nil {
		d.onSync()
	}
	if d.fails.Add(-1) >= 0 {
		return errDisk
	}
	return nil
}

// onDisk lists the pushes that a process that begins now would find.
func onDisk(t *testing.T, q *Queue) (all []string) {
	t.Helper()
	f, err := os.Open(q.writer.journal.path())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, err := replay(f)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range p.sorted() {
		all = append(all, fmt.Sprintf("%s:%s %s %s", e.Repository, e.Reference, e.Manifest, e.State))
	}
	return all
}

// A push counts as failed, and can be retried or dropped, only when its failure is on disk.
// Otherwise the record of a retry or drop would come before that of the failure, and a later
// process would undo it.
func TestFailedOnDiskFirst(t *testing.T) {
	d := &disk{}
	q, _ := opened(t, Options{Sync: d.sync})
	added(t, q, push("a", "v1", "bad"))
	seen := make(chan []string, 1)
	d.onSync = func() {
		if _, err := q.index.idle(1); !errors.Is(err, ErrBusy) {
			t.Errorf("it could be tried again or dropped: %v", err)
		}
		seen <- names(q)
	}
	stop := running(q, func(context.Context, Entry) error { return ErrRefused })
	if got := <-seen; !slices.Equal(got, []string{"a:v1 bad forwarding"}) {
		t.Errorf("while its failure is written it is %q", got)
	}
	stop()
	wantNames(t, q, "a:v1 bad failed")
	if got := onDisk(t, q); !slices.Equal(got, names(q)) {
		t.Errorf("on disk is %q", got)
	}
}

// A push that was forwarded while the disk failed is forwarded once and does not block later
// pushes. It is struck out as soon as the disk works again, without a further push, and no later
// than the record that says that a later push is done. So no crash takes a tag back.
func TestStruckOutWhenTheDiskWorks(t *testing.T) {
	for name, fails := range map[string]int64{"once": 1, "twice": 2, "for a while": 5} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &disk{}
				q, h := opened(t, Options{Sync: d.sync})
				added(t, q, push("a", "v1", "old"))
				var tries []string
				stop := running(q, func(_ context.Context, e Entry) error {
					if tries = append(tries, string(e.Manifest)); len(tries) == 1 {
						d.fails.Store(fails)
					}
					return nil
				})
				synctest.Wait()
				wantNames(t, q)
				if fails > 2 { // more than the record, its removal, and one try to rewrite the journal
					if err := q.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "acknowledged pushes: no space") {
						t.Errorf("the health is %v", err)
					}
				}
				time.Sleep(time.Minute)
				if got := onDisk(t, q); len(got) > 0 || h.count() > 0 {
					t.Errorf("on disk is still %q, with %d blobs", got, h.count())
				}
				if err := q.Check(t.Context()); err != nil {
					t.Errorf("the health is %v", err)
				}
				added(t, q, push("a", "v1", "new"))
				synctest.Wait()
				stop()
				if got := onDisk(t, q); len(got) > 0 || !slices.Equal(tries, []string{"old", "new"}) {
					t.Errorf("forwarded were %q, on disk is %q", tries, got)
				}
			})
		})
	}
}

// A journal that a client has found broken is rewritten soon, although Run has nothing to forward.
func TestRepairedSoon(t *testing.T) {
	for name, do := range map[string]func(*testing.T, *Queue) error{
		"add": func(t *testing.T, q *Queue) error { return q.Add(t.Context(), push("a", "v2", "two")) },
		"withdraw": func(t *testing.T, q *Queue) error {
			_, err := q.Withdraw(t.Context(), "ecr", "a", tagged("v1"))
			return err
		},
		"drop":  func(t *testing.T, q *Queue) error { _, err := q.Drop(t.Context(), 1); return err },
		"retry": func(t *testing.T, q *Queue) error { return q.Retry(t.Context(), 1) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &disk{}
				q, _ := opened(t, Options{Sync: d.sync})
				added(t, q, push("a", "v1", "one"))
				stop := running(q, func(context.Context, Entry) error { return ErrRefused })
				defer stop()
				synctest.Wait()
				d.fails.Store(1 << 20)
				if err := do(t, q); err == nil || q.Check(t.Context()) == nil {
					t.Fatalf("%v", err)
				}
				synctest.Wait()
				d.fails.Store(0)
				time.Sleep(repairEvery)
				synctest.Wait()
				if err := q.Check(t.Context()); err != nil && strings.Contains(err.Error(), "no space") {
					t.Error(err)
				}
			})
		})
	}
}

// The same before the journal could be rewritten: once the later push of the tag is done, the
// older one is not in the journal any more.
func TestNoOldTagComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{}
		q, _ := opened(t, Options{Sync: d.sync})
		added(t, q, push("a", "v1", "old"), push("a", "v1", "new"))
		var found [][]string
		d.onSync = func() { found = append(found, onDisk(t, q)) }
		stop := running(q, func(_ context.Context, e Entry) error {
			if string(e.Manifest) == "old" {
				d.fails.Store(1)
			}
			return nil
		})
		synctest.Wait()
		stop()
		wantNames(t, q)
		for _, on := range append(found, onDisk(t, q)) {
			if slices.Contains(on, "a:v1 old waiting") && !slices.Contains(on, "a:v1 new waiting") {
				t.Errorf("after a crash the old image would come back: %q", on)
			}
		}
		if got := onDisk(t, q); len(got) > 0 {
			t.Errorf("on disk is %q", got)
		}
	})
}
