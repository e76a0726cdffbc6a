package meta_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/cache/meta"
	"dray/cache/meta/metatest"
)

// TestForgottenWhileRefused has the store refuse that a mirror forgets. When it works again, other
// mirrors do not have the old facts for longer than about a second, although nobody asks.
func TestForgottenWhileRefused(t *testing.T) {
	for _, outage := range []time.Duration{0, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			memory := metatest.NewMemory()
			wire := metatest.NewFaulty(memory)
			mine, others := meta.NewCached(wire, meta.CachedOptions{}), meta.NewCached(memory, meta.CachedOptions{})
			running(t, mine)
			tags, theirs := meta.NewTags(mine, meta.Options{}), meta.NewTags(others, meta.Options{})
			absent := meta.AbsentKey{Upstream: "ecr", Repo: "team/app", Digest: one, Kind: meta.KindBlob}
			link := meta.Link{Digest: one, LinkFact: meta.LinkFact{Kind: meta.KindBlob}}
			err := errors.Join(
				set(t, theirs, latest("oci"), meta.TagFact{Digest: one}, 0),
				theirs.Absences().Set(t.Context(), theirs.Absences().Ask(t.Context(), absent), meta.AbsentFact{CheckedAt: time.Now()}, 24*time.Hour),
				meta.NewVisibility(others, meta.Options{}).Add(t.Context(), "ecr", "team/app", link))
			if err != nil {
				t.Fatal(err)
			}
			wire.Fail(errors.New("full"), 0)
			_ = pushed(t, tags, latest("pushed"), meta.TagFact{Digest: two})
			_ = tags.Absences().Forget(t.Context(), "ecr", "team/app", one)
			_ = meta.NewVisibility(mine, meta.Options{}).Forget(t.Context(), "ecr", "team/app", one)
			time.Sleep(outage)
			wire.Fail(nil, 0)
			time.Sleep(2500 * time.Millisecond)
			if f, err := theirs.Get(t.Context(), latest("oci")); err == nil {
				t.Errorf("the tag is %s, as before the push", f.Digest)
			}
			if _, err := theirs.Absences().Get(t.Context(), absent); err == nil {
				t.Error("the blob is not found, as before the push")
			}
			if _, err := meta.NewVisibility(others, meta.Options{}).Get(t.Context(), "ecr", "team/app", one); err == nil {
				t.Error("the blob is visible, as before its deletion")
			}
			puts := wire.Calls("put")
			time.Sleep(time.Hour)
			if n := wire.Calls("put") - puts; n > 0 {
				t.Errorf("%d writes more, although the store has refused nothing since", n)
			}
		})
	}
}

// TestForgottenTooMuch has the store refuse more than is sent again. One line says so.
func TestForgottenTooMuch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		wire := metatest.NewFaulty(metatest.NewMemory())
		mine := meta.NewCached(wire, meta.CachedOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		tags := meta.NewTags(mine, meta.Options{})
		forget := func(what string, n int) {
			for i := range n {
				_ = tags.Forget(t.Context(), "ecr", "team/app", fmt.Sprint(what, i)) // refused
			}
		}
		running(t, mine)
		for round := 1; round < 3; round++ {
			wire.Fail(errors.New("away"), 0)
			if forget("many", 8192); strings.Count(log.String(), "than dray can send again") != round-1 {
				t.Errorf("before the bound: %s", log.String())
			}
			if forget("more", 100); strings.Count(log.String(), "than dray can send again") != round {
				t.Errorf("outage %d: %s", round, log.String())
			}
			wire.Fail(nil, 0)
			time.Sleep(time.Minute)
		}
	})
}

// lying is a store that does the next write and says that it failed.
type lying struct {
	meta.Store
	lies bool
}

func (l *lying) Put(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	err := l.Store.Put(ctx, key, value, ttl)
	if l.lies {
		l.lies = false
		return errors.New("late")
	}
	return err
}

// TestForgottenAgain: what is sent again after a failure brings nothing back that others have
// recorded and forgotten since.
func TestForgottenAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := metatest.NewMemory()
		mine, others := meta.NewCached(&lying{memory, true}, meta.CachedOptions{}), meta.NewTags(meta.NewCached(memory, meta.CachedOptions{}), meta.Options{})
		_ = meta.NewTags(mine, meta.Options{}).Forget(t.Context(), "ecr", "team/app", "latest")
		if err := errors.Join(set(t, others, latest("oci"), meta.TagFact{Digest: one}, 0), others.Forget(t.Context(), "ecr", "team/app", "latest")); err != nil {
			t.Fatal(err)
		}
		running(t, mine)
		time.Sleep(2500 * time.Millisecond)
		if f, err := others.Get(t.Context(), latest("oci")); err == nil {
			t.Errorf("the tag is %s again", f.Digest)
		}
	})
}

// TestPushedByTwo has two mirrors push a tag at the same time. In whichever order their steps come,
// no mirror believes that the tag is what the registry did not take last.
func TestPushedByTwo(t *testing.T) {
	steps := []int{0, 0, 0, 1, 1, 1} // of one mirror and the other: ask, push, record
	for n := 0; ; n++ {
		t.Run(fmt.Sprint(steps), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { pushByTwo(t, steps) })
		})
		if !next(steps) {
			if n != 19 {
				t.Errorf("%d orders", n+1)
			}
			return
		}
	}
}

func pushByTwo(t *testing.T, steps []int) {
	memory := metatest.NewMemory()
	var questions [2]meta.Question
	var mirrors [2]*meta.Tags
	for i := range mirrors {
		mirrors[i] = meta.NewTags(meta.NewCached(memory, meta.CachedOptions{}), meta.Options{})
	}
	var registry digest.Digest
	var done [2]int
	for _, i := range steps {
		d := []digest.Digest{one, two}[i]
		switch done[i]++; done[i] {
		case 1:
			_, questions[i], _ = mirrors[i].Ask(t.Context(), latest("pushed"))
		case 2:
			registry = d
		case 3:
			if err := mirrors[i].Pushed(t.Context(), questions[i], meta.TagFact{Digest: d}); err != nil {
				t.Error(err)
			}
		}
	}
	time.Sleep(time.Second) // that memory may take
	known := 0
	for i, tags := range mirrors {
		f, err := tags.Get(t.Context(), latest("pushed"))
		if err == nil && f.Digest != registry {
			t.Errorf("mirror %d believes that the tag is %s, and it is %s", i, f.Digest, registry)
		}
		if err == nil {
			known++
		}
	}
	if apart := slices.IsSorted(steps) || steps[0] == 1 && steps[2] == 1 && steps[1] == 1; apart && known != 2 {
		t.Errorf("%d mirrors know the tag after two pushes, one after the other", known)
	}
}

// next makes the next order of the numbers, and reports whether there is one.
func next(a []int) bool {
	i := len(a) - 2
	for i >= 0 && a[i] >= a[i+1] {
		i--
	}
	if i < 0 {
		return false
	}
	j := len(a) - 1
	for a[j] <= a[i] {
		j--
	}
	a[i], a[j] = a[j], a[i]
	slices.Reverse(a[i+1:])
	return true
}

// TestOvertaken: between two questions about a tag, others may change it.
func TestOvertaken(t *testing.T) {
	errAway := errors.New("away")
	type step = func(w *overtakenWorld)
	mine, theirs := func(w *overtakenWorld) { w.push(w.mine) }, func(w *overtakenWorld) { w.push(w.others) }
	for _, test := range []struct {
		name              string
		before, meanwhile step
		want              bool
	}{
		{"nobody has", theirs, func(*overtakenWorld) {}, false},
		{"nobody ever has", func(*overtakenWorld) {}, func(*overtakenWorld) {}, false},
		{"this mirror has", theirs, mine, false},
		{"another one has, for the first time", func(*overtakenWorld) {}, theirs, true},
		{"another one has", mine, theirs, true},
		{"another one has forgotten it", mine, func(w *overtakenWorld) { _ = w.others.Forget(w.t.Context(), "ecr", "team/app", "latest") }, true},
		{"the store has lost everything", mine, func(w *overtakenWorld) { w.flush() }, false},
		{"the store did not answer at first", func(w *overtakenWorld) { w.push(w.mine); w.wire.Fail(errAway, 0) }, func(w *overtakenWorld) { w.wire.Fail(nil, 0); w.push(w.others) }, false},
		{"the store does not answer now", mine, func(w *overtakenWorld) { w.push(w.others); w.wire.Fail(errAway, 0) }, false},
		{"what this one had pushed is sent again", func(w *overtakenWorld) {
			w.wire.Fail(errAway, 0)
			w.push(w.mine)
			w.wire.Fail(nil, 0)
		}, func(w *overtakenWorld) { running(w.t, w.cached); time.Sleep(2500 * time.Millisecond) }, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				memory := metatest.NewMemory()
				w := &overtakenWorld{t: t, memory: memory, wire: metatest.NewFaulty(memory), others: meta.NewTags(meta.NewExcept(meta.NewCached(memory, meta.CachedOptions{})), meta.Options{})}
				w.cached = meta.NewCached(w.wire, meta.CachedOptions{})
				w.mine = meta.NewTags(meta.NewExcept(w.cached), meta.Options{})
				test.before(w)
				_, earlier, _ := w.mine.Ask(t.Context(), latest("pushed"))
				test.meanwhile(w)
				_, later, _ := w.mine.Ask(t.Context(), latest("pushed"))
				if got := w.mine.Overtaken(earlier, later); got != test.want {
					t.Errorf("got %t", got)
				}
				if w.mine.Overtaken(meta.Question{}, later) {
					t.Error("overtaken since no question")
				}
			})
		})
	}
}

// overtakenWorld is two mirrors on one store, which may fail for the first one.
type overtakenWorld struct {
	t            *testing.T
	memory       *metatest.Memory
	wire         *metatest.Faulty
	cached       *meta.Cached
	mine, others *meta.Tags
}

func (w *overtakenWorld) push(tags *meta.Tags) {
	_ = pushed(w.t, tags, latest("pushed"), meta.TagFact{Digest: one}) // it may fail
}

func (w *overtakenWorld) flush() {
	for e, err := range w.memory.Scan(w.t.Context(), "") {
		if err == nil {
			err = w.memory.Delete(w.t.Context(), e.Key)
		}
		if err != nil {
			w.t.Fatal(err)
		}
	}
}
