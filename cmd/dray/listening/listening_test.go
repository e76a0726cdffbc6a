package listening

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// events are what servers do, in order, with the time since the beginning.
type events struct {
	mu    sync.Mutex
	begin time.Time
	all   []string
}

func (e *events) add(what string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, what+" "+time.Since(e.begin).String())
}

// fake is a server whose requests take a certain time after its listener has closed.
type fake struct {
	net.Listener
	*events
	name        string
	requests    time.Duration
	fails       error         // to listen
	breaks      chan error    // while it serves
	interrupted chan struct{} // closed by Interrupt
}

func (f *fake) Listen(context.Context) (net.Listener, error) {
	f.add("listen " + f.name)
	return f, f.fails
}

func (f *fake) Close() error {
	f.add("close " + f.name)
	return nil
}

func (f *fake) Serve(ctx context.Context, _ net.Listener) error {
	select {
	case err := <-f.breaks:
		return err
	case <-ctx.Done():
	}
	f.add("stop " + f.name)
	select {
	case <-time.After(f.requests):
	case <-f.interrupted:
	}
	f.add("end " + f.name)
	return nil
}

func (f *fake) Interrupt() { close(f.interrupted) }

// stopping runs Listeners before a server of clients whose requests take 3 s, and one of operators.
// act is called while they serve.
func stopping(t *testing.T, pause time.Duration, act func(l *Listeners, front *fake, stop, again, inner context.CancelFunc)) (seen []string, err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		log := &events{begin: time.Now()}
		front := &fake{events: log, name: "clients", requests: 3 * time.Second, breaks: make(chan error, 1), interrupted: make(chan struct{})}
		back := &fake{events: log, name: "operators", breaks: make(chan error, 1), interrupted: make(chan struct{})}
		again, askAgain := context.WithCancel(t.Context())
		l := &Listeners{
			Pause: pause, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
			Again: func() (context.Context, context.CancelFunc) { return again, func() {} },
		}
		ctx, stop := context.WithCancel(t.Context())
		inner, failInner := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Serve(ctx, inner, []Server{front}, []Server{back}) }()
		synctest.Wait()
		if err := l.Ready(t.Context()); err != nil {
			t.Errorf("not ready while it serves: %v", err)
		}
		act(l, front, stop, askAgain, failInner)
		err = <-done
		if l.Ready(t.Context()) == nil {
			t.Error("ready when it has stopped")
		}
		seen = log.all
	})
	return seen, err
}

// TestStop: dray says that it stops at once, closes the listeners of clients after the pause, and
// those of operators when the requests of clients have ended.
func TestStop(t *testing.T) {
	seen, err := stopping(t, 10*time.Second, func(l *Listeners, _ *fake, stop, _, _ context.CancelFunc) {
		time.Sleep(time.Minute)
		stop()
		synctest.Wait()
		if err := l.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "stopping") {
			t.Errorf("in the pause: %v", err)
		}
	})
	want := []string{"listen clients 0s", "listen operators 0s", "stop clients 1m10s", "end clients 1m13s", "stop operators 1m13s", "end operators 1m13s"}
	if err != nil || !slices.Equal(seen, want) {
		t.Errorf("%v\n%q\nwant\n%q", err, seen, want)
	}
}

// TestStopAtOnce: a second request to stop ends the pause, and the requests under way.
func TestStopAtOnce(t *testing.T) {
	for after, want := range map[time.Duration][]string{
		time.Second:      {"stop clients 1s", "end clients 1s", "stop operators 1s", "end operators 1s"},     // in the pause
		11 * time.Second: {"stop clients 10s", "end clients 11s", "stop operators 11s", "end operators 11s"}, // while requests end
	} {
		seen, err := stopping(t, 10*time.Second, func(_ *Listeners, _ *fake, stop, again, _ context.CancelFunc) {
			stop()
			time.Sleep(after)
			again()
		})
		if err != nil || !slices.Equal(seen[2:], want) {
			t.Errorf("%v: %v\n%q\nwant\n%q", after, err, seen[2:], want)
		}
	}
}

// TestStopByFailure: if a server or another part fails, there is no pause.
func TestStopByFailure(t *testing.T) {
	broken := errors.New("the address is gone")
	seen, err := stopping(t, time.Hour, func(_ *Listeners, front *fake, _, _, _ context.CancelFunc) { front.breaks <- broken })
	if want := []string{"stop operators 0s", "end operators 0s"}; !errors.Is(err, broken) || !slices.Equal(seen[2:], want) {
		t.Errorf("a server: %v %q", err, seen)
	}
	for _, first := range []bool{true, false} { // before a pause, and in it
		seen, err = stopping(t, time.Hour, func(_ *Listeners, _ *fake, stop, _, inner context.CancelFunc) {
			if !first {
				stop()
				synctest.Wait()
			}
			inner()
		})
		if want := []string{"stop clients 0s", "end clients 3s", "stop operators 3s", "end operators 3s"}; err != nil || !slices.Equal(seen[2:], want) {
			t.Errorf("another part: %v %q", err, seen)
		}
	}
}

// TestStopAtOnceAfterFailure: after another part has failed, the first request to stop changes
// nothing, and the second ends the requests under way. So it is if the first came before.
func TestStopAtOnceAfterFailure(t *testing.T) {
	for _, before := range []bool{true, false} {
		seen, err := stopping(t, time.Hour, func(_ *Listeners, _ *fake, stop, again, inner context.CancelFunc) {
			if before {
				stop()
			}
			inner()
			time.Sleep(time.Second)
			stop()
			time.Sleep(time.Second)
			again()
		})
		if want := []string{"stop clients 0s", "end clients 2s", "stop operators 2s", "end operators 2s"}; err != nil || !slices.Equal(seen[2:], want) {
			t.Errorf("%t: %v %q", before, err, seen)
		}
	}
}

// TestListenFails: nothing is served, and what was opened is closed.
func TestListenFails(t *testing.T) {
	log, broken := &events{begin: time.Now()}, errors.New("in use")
	l := &Listeners{Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	err := l.Serve(t.Context(), t.Context(), []Server{&fake{events: log, name: "a"}}, []Server{&fake{events: log, name: "b", fails: broken}})
	if !errors.Is(err, broken) || len(log.all) != 3 || !strings.HasPrefix(log.all[2], "close a") {
		t.Errorf("%v %q", err, log.all)
	}
}
