package main

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dray/cmd/dray/registries"
	"dray/mirror/admin"
	"dray/mirror/repository"
	"dray/upstream"
	"dray/upstream/ecrtest"
)

// TestStartWithoutUpstreams: an upstream that cannot be used is in the log from the start, and does
// not stop dray.
func TestStartWithoutUpstreams(t *testing.T) {
	log := &recording{}
	s := startLogging(t, log, ecrtest.Start(t, ecrtest.Options{}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()}), t.TempDir())
	s.ecr.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{"GetAuthorizationToken"}, Count: -1, Status: 503})
	s.hub.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{"base"}, Count: -1, Status: 500})
	for _, r := range s.registries {
		if err := r.Healthy(t.Context()); !errors.Is(err, admin.ErrUnknown) {
			t.Errorf("before any request, the health of %s is %v", r.Name, err)
		}
	}
	s.greet(t.Context(), s.registries, slog.LevelWarn)
	for _, r := range s.registries {
		if err := r.Healthy(t.Context()); err == nil || errors.Is(err, admin.ErrUnknown) {
			t.Errorf("the health of %s is %v", r.Name, err)
		}
	}
	for name, why := range map[string]string{"ecr": "the ECR API of the region eu-west-1 gives this mirror no token", "hub": "Internal Server Error"} {
		found := false
		for line := range strings.Lines(log.String()) {
			found = found || strings.Contains(line, `level=WARN msg="upstream is not available" upstream=`+name) && strings.Contains(line, why)
		}
		if !found {
			t.Errorf("the log does not say that %s cannot be used because of %q:\n%s", name, why, log.String())
		}
	}
	s.hub.ClearFaults()
	seed(t, s.hub, "library/app", "v1", 1<<10)
	s.want(200, "GET", "/v2/hub/app/manifests/v1", nil)
	for _, r := range s.registries {
		if err := r.Healthy(t.Context()); (err == nil) != (r.Name == "hub") {
			t.Errorf("after a pull from hub, the health of %s is %v", r.Name, err)
		}
	}
}

// TestRegistriesAreGreetedAgain: a registry that was down at the start is healthy soon after it
// comes back, without a client. One that a client has reached meanwhile is not asked again.
func TestRegistriesAreGreetedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var mu sync.Mutex // guards asked
		asked := map[string]int{}
		known := func(name string, after time.Duration) *registries.Registry {
			r := &registries.Registry{Upstream: &repository.Upstream{Name: name}, Breaker: upstream.NewBreaker(upstream.BreakerOptions{})}
			r.Hello = func(context.Context) error {
				mu.Lock()
				asked[name]++
				mu.Unlock()
				if time.Since(began) < after {
					return upstream.ErrUnreachable
				}
				return nil
			}
			return r
		}
		log := &recording{}
		up, late, used := known("up", 0), known("late", 10*time.Minute), known("used", time.Hour)
		g := &graph{log: slog.New(slog.NewTextHandler(log, nil))}
		done := make(chan struct{})
		go func() { defer close(done); g.greetAll(t.Context(), []*registries.Registry{up, late, used}) }()
		time.Sleep(90 * time.Second)
		if err := used.Breaker.Do(func() error { return nil }); err != nil {
			t.Fatal(err)
		}
		time.Sleep(8 * time.Minute)
		if up.Healthy(t.Context()) != nil || late.Healthy(t.Context()) == nil {
			t.Errorf("while late is down: up %v, late %v", up.Healthy(t.Context()), late.Healthy(t.Context()))
		}
		<-done
		if err := late.Healthy(t.Context()); err != nil || time.Since(began) > 11*time.Minute {
			t.Errorf("late is %v after %s", err, time.Since(began))
		}
		if asked["up"] != 1 || asked["used"] != 2 || asked["late"] != 11 {
			t.Errorf("asked %v", asked)
		}
		if n := strings.Count(log.String(), "not available"); n != 2 {
			t.Errorf("%d failures are in the log:\n%s", n, log.String())
		}
	})
}
