package flight

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// Work is done in order, one piece at a time; what cannot be done yet comes again after its pauses,
// and gives up after the last.
func TestJobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewJobs[string](2)
		ctx, stop := context.WithCancel(t.Context())
		begun := time.Now()
		var did []string
		var late []time.Duration
		given := true
		for _, name := range []string{"one", "two", "three"} {
			if got := c.Add(name); got != (name != "three") {
				t.Errorf("%s was taken: %v", name, got)
			}
		}
		go c.Run(ctx, func(_ context.Context, one Job[string]) {
			if did = append(did, one.Value); one.Value == "one" {
				late = append(late, time.Since(begun))
				given = c.Retry(one, []time.Duration{time.Second, time.Minute})
			}
		})
		time.Sleep(time.Hour)
		stop()
		synctest.Wait()
		if !slices.Equal(did, []string{"one", "two", "one", "one"}) || !slices.Equal(late, []time.Duration{0, time.Second, 61 * time.Second}) || given {
			t.Errorf("done were %q, the first after %v, put off again: %v", did, late, given)
		}
	})
}

// A dropped job is not done: neither a new one, nor one that is to be retried, nor one under way,
// even if it would retry.
func TestJobsDrop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewJobs[string](10)
		ctx, stop := context.WithCancel(t.Context())
		var did, ended []string
		go c.Run(ctx, func(ctx context.Context, one Job[string]) {
			did = append(did, one.Value)
			switch one.Value {
			case "later":
				c.Retry(one, []time.Duration{time.Minute})
			case "now":
				<-ctx.Done()
				c.Retry(one, []time.Duration{time.Second})
				ended = append(ended, one.Value)
			}
		})
		for _, name := range []string{"later", "now", "new", "other"} {
			c.Add(name)
		}
		synctest.Wait()
		dropped := c.Drop(t.Context(), func(name string) bool { return name != "other" })
		slices.Sort(dropped)
		if !slices.Equal(dropped, []string{"later", "new", "now"}) || !slices.Equal(ended, []string{"now"}) {
			t.Errorf("dropped were %q, ended %q", dropped, ended)
		}
		time.Sleep(time.Hour)
		stop()
		synctest.Wait()
		if !slices.Equal(did, []string{"later", "now", "other"}) {
			t.Errorf("done were %q", did)
		}
	})
}

// TestJobsDropOnce: a job that is to be retried and has not returned yet is dropped once, and only
// by one caller.
func TestJobsDropOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewJobs[string](10)
		ctx, stop := context.WithCancel(t.Context())
		end := make(chan struct{})
		did := 0
		go c.Run(ctx, func(_ context.Context, one Job[string]) {
			if did++; one.Value == "retried" {
				c.Retry(one, []time.Duration{time.Minute})
			}
			<-end
		})
		all := func(string) bool { return true }
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		for _, name := range []string{"retried", "plain"} {
			c.Add(name)
			synctest.Wait()
			if first, second := c.Drop(ended, all), c.Drop(ended, all); !slices.Equal(first, []string{name}) || len(second) > 0 {
				t.Errorf("dropped were %q, and then %q", first, second)
			}
			end <- struct{}{}
		}
		time.Sleep(time.Hour)
		stop()
		synctest.Wait()
		if did != 2 {
			t.Errorf("%d jobs were done, want 2", did)
		}
	})
}
