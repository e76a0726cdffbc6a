package cache_test

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"dray/cache"
	"dray/cache/cachetest"
	"dray/cache/disk"
)

// abandonedPace makes a blob of size bytes take 100 s, split or not.
const abandonedPace = size / 100

// abandoned opens a slow blob, reads for part of the time, and leaves.
func abandoned(t *testing.T, c *cache.Cache, o *cachetest.Origin, b cache.Blob, reading time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), reading)
	defer cancel()
	r, err := c.Open(ctx, b, o.Fetch)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, r) // until the time is over
	r.Close()
}

// TestAbandoned leaves a fetch without readers, after 20 or 60 of its 100 seconds.
func TestAbandoned(t *testing.T) {
	for name, test := range map[string]struct {
		policy   cache.Abandon
		unknown  bool // length
		reading  time.Duration
		finished bool
	}{
		"finish is the default":   {cache.Abandon{}, false, 20 * time.Second, true},
		"large":                   {cache.Abandon{StopAbove: size - 1}, false, 20 * time.Second, false},
		"not large":               {cache.Abandon{StopAbove: size}, false, 20 * time.Second, true},
		"most of it is there":     {cache.Abandon{StopAbove: 1}, false, 60 * time.Second, true},
		"half within the grace":   {cache.Abandon{StopAbove: 1, Grace: 35 * time.Second}, false, 20 * time.Second, true},
		"of 90 percent":           {cache.Abandon{StopAbove: 1, FinishPercent: 90}, false, 60 * time.Second, false},
		"nearly all of it":        {cache.Abandon{StopAbove: 1, FinishPercent: 100}, false, 95 * time.Second, true},
		"unknown length":          {cache.Abandon{StopAbove: 1}, true, 60 * time.Second, false},
		"unknown length, so far":  {cache.Abandon{StopAbove: size * 8 / 10}, true, 20 * time.Second, false},
		"unknown length, allowed": {cache.Abandon{StopAbove: size}, true, 20 * time.Second, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, _ := cachetest.Start(t, cache.Options{Abandon: test.policy}, disk.Options{})
				o := &cachetest.Origin{Data: cachetest.Random(60, size), Pace: abandonedPace, Chunk: 8 << 10}
				b := cachetest.Blob(o.Data)
				if test.unknown {
					o.Plan = [][]cachetest.Fault{{cachetest.Announce(-1)}}
					b.Size = -1
				}
				abandoned(t, c, o, b, test.reading)
				wantOutcome(t, c, o, test.finished)
			})
		})
	}
}

// TestAbandonedInPause leaves a fetch without readers while it pauses between two resumptions.
func TestAbandonedInPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := cachetest.Start(t, cache.Options{Abandon: cache.Abandon{StopAbove: 1, Grace: time.Millisecond}}, disk.Options{})
		down := []cachetest.Fault{cachetest.Refuse(io.ErrUnexpectedEOF)}
		o := &cachetest.Origin{Data: cachetest.Random(61, 100_000), Plan: [][]cachetest.Fault{{cachetest.Cut(10_000, io.ErrUnexpectedEOF)}, down, down}}
		abandoned(t, c, o, cachetest.Blob(o.Data), 50*time.Millisecond) // half of the pause
		wantOutcome(t, c, o, false)
		wantCalls(t, o, 0, 10_000)
		if n := counted(t, c, "dray_cache_resumes_total", ""); n != 1 {
			t.Errorf("%v resumptions", n)
		}
	})
}

// wantOutcome waits until an abandoned fetch is over.
func wantOutcome(t *testing.T, c *cache.Cache, o *cachetest.Origin, finished bool) {
	t.Helper()
	time.Sleep(200 * time.Second) // in a bubble
	synctest.Wait()
	outcome := map[bool]string{true: "finished", false: "stopped"}[finished]
	if _, held := c.Stat(cachetest.Blob(o.Data).Digest); held != finished || o.Unclosed() != 0 {
		t.Errorf("held: %v, %d bodies open", held, o.Unclosed())
	}
	if counted(t, c, "dray_cache_abandoned_total", outcome) != 1 || counted(t, c, "dray_cache_abandoned_total", "") != 1 {
		t.Errorf("not counted once as %s", outcome)
	}
	if counted(t, c, "dray_cache_flights", "") != 0 {
		t.Error("a flight is left")
	}
}

// TestAbandonedSplit leaves a fetch in parts without readers.
func TestAbandonedSplit(t *testing.T) {
	for name, finished := range map[string]bool{"stopped": false, "finished": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				policy := cache.Abandon{StopAbove: 1}
				if finished {
					policy.StopAbove = size
				}
				c, _ := cachetest.Start(t, cache.Options{Abandon: policy}, disk.Options{})
				slots := cache.NewSlots(streams)
				o := &cachetest.Origin{Data: cachetest.Random(61, size), Pace: abandonedPace / streams, Chunk: 8 << 10}
				abandoned(t, c, o, split(o, slots), 20*time.Second)
				wantOutcome(t, c, o, finished)
				wantFree(t, slots, streams)
			})
		})
	}
}

// TestAbandonedTakenOver has readers join and leave within the grace, and the last one stay.
func TestAbandonedTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := cachetest.Start(t, cache.Options{Abandon: cache.Abandon{StopAbove: 1}}, disk.Options{})
		o := &cachetest.Origin{Data: cachetest.Random(62, size), Pace: abandonedPace, Chunk: 8 << 10}
		for range 4 { // a client that asks for one range after the other
			abandoned(t, c, o, cachetest.Blob(o.Data), 5*time.Second)
			time.Sleep(9 * time.Second)
		}
		r := open(t, c, o)
		if r.Source() != cache.SourceFlight {
			t.Errorf("source %s", r.Source())
		}
		want(t, r, o.Data)
		wantCalls(t, o, 0)
		if n := counted(t, c, "dray_cache_abandoned_total", ""); n != 0 {
			t.Errorf("%v counted as abandoned", n)
		}
	})
}

// TestAbandonedAnew has a reader come after a fetch was stopped. The reader gets the whole blob by
// a new fetch.
func TestAbandonedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := cachetest.Start(t, cache.Options{Abandon: cache.Abandon{StopAbove: 1}}, disk.Options{})
		o := &cachetest.Origin{Data: cachetest.Random(63, size), Pace: abandonedPace, Chunk: 8 << 10}
		abandoned(t, c, o, cachetest.Blob(o.Data), 5*time.Second)
		time.Sleep(10 * time.Second) // at the very moment at which it is given up
		r := open(t, c, o)
		want(t, r, o.Data)
		if calls := o.Calls(); len(calls) > 2 {
			t.Errorf("calls of the origin %v", calls)
		}
	})
}

// TestAbandonedBeforeAnswer has the only caller leave before the origin has answered.
func TestAbandonedBeforeAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := cachetest.Start(t, cache.Options{Abandon: cache.Abandon{StopAbove: 1}}, disk.Options{})
		o := &cachetest.Origin{Data: cachetest.Random(64, size), Pace: abandonedPace, Chunk: 8 << 10}
		gate := make(chan struct{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.Open(ctx, cachetest.Blob(o.Data), cachetest.Gated(gate, o.Fetch)); err == nil {
			t.Fatal("opened before there is an answer")
		}
		close(gate)
		wantOutcome(t, c, o, false)
	})
}

// TestAwaitedIsNotAbandoned checks that a fetch goes on if its only reader does not read but waits
// for the end, as a prefetch does.
func TestAwaitedIsNotAbandoned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := cachetest.Start(t, cache.Options{Abandon: cache.Abandon{StopAbove: 1}}, disk.Options{})
		o := &cachetest.Origin{Data: cachetest.Random(65, size), Pace: abandonedPace, Chunk: 8 << 10}
		waits := open(t, c, o)
		abandoned(t, c, o, cachetest.Blob(o.Data), 5*time.Second)
		if err := waits.Wait(); err != nil {
			t.Errorf("wait: %v", err)
		}
		if _, held := c.Stat(cachetest.Blob(o.Data).Digest); !held {
			t.Error("not held")
		}
	})
}
