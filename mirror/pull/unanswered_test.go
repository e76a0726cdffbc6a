package pull

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// A client whose push is acknowledged locally waits less than two seconds for a silent registry.
// Its next questions are not sent, until the registry is asked again some seconds later.
func TestImpatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newImpatience(pushPatience, slices.Values([]string{"up"}))
		asked := 0
		silent := func(ctx context.Context) error {
			asked++
			<-ctx.Done()
			return ctx.Err()
		}
		began := time.Now()
		if _, unanswered := i.ask(t.Context(), "up", silent); unanswered == nil || time.Since(began) >= 2*time.Second {
			t.Errorf("the first answer came after %s: %v", time.Since(began), unanswered)
		}
		began = time.Now()
		for range 10 {
			if _, unanswered := i.ask(t.Context(), "up", silent); unanswered == nil {
				t.Error("a question was answered")
			}
		}
		if asked != 1 || time.Since(began) > 0 {
			t.Errorf("the registry was asked %d times, and the later answers took %s", asked, time.Since(began))
		}
		time.Sleep(10 * time.Second)
		if err, unanswered := i.ask(t.Context(), "up", func(context.Context) error { return nil }); err != nil || unanswered != nil {
			t.Errorf("the registry is back: %v, %v", err, unanswered)
		}
	})
}
