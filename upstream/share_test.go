package upstream_test

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dray/upstream"
)

// pulls are the rates of a registry that counts manifests.
func pulls(perSecond float64) []upstream.Rate {
	return []upstream.Rate{{Name: "pull", Classes: []upstream.Class{upstream.ManifestGet}, PerSecond: perSecond}}
}

// A process with a small part of a ceiling whose first request was refused sends the next one as
// soon as its part grows, and does not take the small part for what the registry allows.
func TestPartAfterRefusal(t *testing.T) {
	for _, status := range []int{http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPaced()
				p.answer = func(r *http.Request, n int) *http.Response {
					if n == 0 {
						return respond(r, status, "", nil)
					}
					return nil
				}
				c, l := limited(t, p, upstream.LimiterOptions{Rates: pulls(1)})
				l.Share(upstream.Sharing{Short: func() {
					time.AfterFunc(100*time.Millisecond, func() { l.SetPart("pull", 0.9) })
				}})
				l.SetPart("pull", 0.01)
				if err := get(t.Context(), c, upstream.Repo{Name: "app"}); err == nil {
					t.Fatal("the first request was not refused")
				}
				for range 3 {
					began := time.Now()
					if err := get(t.Context(), c, upstream.Repo{Name: "app"}); err != nil || time.Since(began) > 2*time.Second {
						t.Errorf("after %v: %v", time.Since(began), err)
					}
				}
				idle(t, l)
			})
		})
	}
}

// A part that shrinks and grows again does not undo what refusals have taken of the rate.
func TestPartOfSlowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPaced()
		p.answer = func(r *http.Request, n int) *http.Response {
			if n == 19 {
				return respond(r, http.StatusTooManyRequests, "", nil)
			}
			return nil
		}
		c, l := limited(t, p, upstream.LimiterOptions{Rates: pulls(40)})
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() { _ = get(t.Context(), c, upstream.Repo{Name: "app"}) })
		}
		wg.Wait()
		for _, s := range []struct{ part, want float64 }{{40, 10}, {2, 2}, {0.1, 0.1}, {40, 10}, {10, 10}, {12, 10}} {
			l.SetPart("pull", s.part)
			if got := l.Reads()[0].PerSecond; got != s.want {
				t.Errorf("a part of %v gives %v per second, want %v", s.part, got, s.want)
			}
		}
		l.SetPart("pull", 20)
		for range 1000 {
			if err := get(t.Context(), c, upstream.Repo{Name: "app"}); err != nil {
				t.Fatal(err)
			}
		}
		if got := l.Reads()[0].PerSecond; got != 20 {
			t.Errorf("after a while it may send %v per second", got)
		}
		l.SetPart("pull", 40)
		if got := l.Reads()[0].PerSecond; got != 40 {
			t.Errorf("with all of the ceiling it may send %v per second", got)
		}
	})
}
