package pull

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"dray/mirror/flight"
	"dray/mirror/repository"
	"dray/upstream"
)

// counting is a registry that may be silent, and counts its questions.
type counting struct {
	silent         atomic.Bool
	asked, pending atomic.Int32
	most           atomic.Int32 // of pending
}

func (l *counting) ask(ctx context.Context) (string, error) {
	l.asked.Add(1)
	l.most.Store(max(l.most.Load(), l.pending.Add(1)))
	defer l.pending.Add(-1)
	if l.silent.Load() {
		<-ctx.Done()
		return "", ctx.Err()
	}
	return "here", nil
}

// A silent upstream is asked by dray itself, by one question at a time, as long as clients want to
// know and for a while after that. No client waits for these questions.
func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tasks := flight.NewTasks()
		p, l := &Puller{outages: newOutages(tasks)}, &counting{}
		r := repository.Repo{Up: &repository.Upstream{Name: "up"}}
		other := repository.Repo{Up: &repository.Upstream{Name: "other"}}
		ask := func(what string, r repository.Repo, answered bool, took time.Duration) {
			t.Helper()
			begun := time.Now()
			v, err := AskQuickly(t.Context(), p, r, l.ask, Probe(l.ask))
			if got := time.Since(begun); answered != (v == "here" && err == nil) || answered == NotAnswered(err) || got != took {
				t.Errorf("%s: %q, %v after %v, want %t after %v", what, v, err, got, answered, took)
			}
		}
		since := func(what string, want int32) {
			t.Helper()
			if got := l.asked.Swap(0); got != want {
				t.Errorf("%s: %d questions, want %d", what, got, want)
			}
		}
		ask("well", r, true, 0)
		l.silent.Store(true)
		ask("at first", r, false, pushPatience)
		since("until then", 2)
		for range 62 {
			ask("meanwhile", r, false, 0)
			time.Sleep(time.Second)
		}
		since("in 62 seconds", 12)

		l.silent.Store(false)
		ask("another upstream", other, true, 0)
		time.Sleep(probePause)
		synctest.Wait()
		ask("again", r, true, 0)
		since("again", 3)

		l.silent.Store(true)
		ask("once more", r, false, pushPatience)
		time.Sleep(outageMemory + probePause)
		since("without clients", 1+int32(outageMemory/probePause)-1)
		time.Sleep(time.Hour)
		since("later", 0)
		ask("after an hour", r, false, pushPatience)
		tasks.Stop()
		ask("while dray ends", r, false, pushPatience)
		since("at last", 2)
		if l.most.Load() != 1 || len(p.outages.silent) != 0 {
			t.Errorf("%d questions at a time; %d upstreams are silent", l.most.Load(), len(p.outages.silent))
		}
	})
}

// A client that leaves says nothing about the upstream, and an answer of the upstream is none of
// silence.
func TestNoOutage(t *testing.T) {
	tasks := flight.NewTasks()
	defer tasks.Stop()
	p, r := &Puller{outages: newOutages(tasks)}, repository.Repo{Up: &repository.Upstream{Name: "up"}}
	gone, leave := context.WithCancel(t.Context())
	leave()
	for _, c := range []struct {
		ctx context.Context
		err error
	}{{gone, context.Canceled}, {gone, upstream.ErrUnreachable}, {t.Context(), upstream.ErrRepositoryMissing}} {
		fails := func(context.Context) (int, error) { return 0, c.err }
		if _, err := AskQuickly(c.ctx, p, r, fails, Probe(fails)); err != c.err || len(p.outages.silent) > 0 {
			t.Errorf("%v: %v, %d upstreams are silent", c.err, err, len(p.outages.silent))
		}
	}
}
