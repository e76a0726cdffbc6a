// Package listening serves the listeners of a program, and stops them in steps. The program first
// reports that it is stopping, then goes on serving for a while, and then ends.
package listening

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// Server answers requests on one address. It is a wire.Server or a member of a fleet, except in
// tests.
type Server interface {
	// Listen opens the address.
	Listen(ctx context.Context) (net.Listener, error)
	// Serve answers requests from ln until ctx ends. It then closes ln, and waits for the requests
	// under way, but not longer than the server's grace period.
	Serve(ctx context.Context, ln net.Listener) error
	// Interrupt ends the requests under way at once.
	Interrupt()
}

// Listeners serves clients and operators. Its methods may be called concurrently.
type Listeners struct {
	// Pause is the time between the request to stop and the closing of the listeners for clients.
	Pause time.Duration
	// Again returns a context that ends when the program is asked to stop a second time. If Again
	// is nil, a second SIGINT or SIGTERM ends the context.
	Again func() (context.Context, context.CancelFunc)
	Log   *slog.Logger

	stopping atomic.Bool
}

// Ready returns an error once the program has been asked to stop. /readyz then fails, so load
// balancers send requests elsewhere. dray still serves requests that arrive.
func (l *Listeners) Ready(context.Context) error {
	if l.stopping.Load() {
		return errors.New("dray is stopping")
	}
	return nil
}

// Serve opens all listeners before it serves any, so that no client gets an answer if the start
// fails. When ctx ends, Serve stops the servers after the pause. When a server fails, or when
// innerCtx ends, Serve stops the servers without a pause. The servers of operators end last.
func (l *Listeners) Serve(ctx, innerCtx context.Context, clients, operators []Server) error {
	listening, err := listen(ctx, slices.Concat(clients, operators))
	if err != nil {
		return err
	}
	running, fail := context.WithCancel(innerCtx)
	defer fail()
	base := context.WithoutCancel(ctx)
	front, closeFront := start(base, fail, clients, listening)
	back, closeBack := start(base, fail, operators, listening[len(clients):])
	defer closeBack()
	defer closeFront()
	again, interrupt := context.WithCancel(base)
	var watch sync.WaitGroup
	watch.Go(func() { l.interrupt(ctx, again, interrupt, clients) })
	defer watch.Wait()
	defer interrupt()
	select {
	case <-running.Done(): // a server has failed, or innerCtx has ended, so there is no pause
		l.stopping.Store(true)
	case <-ctx.Done():
		l.pause(running, again)
	}
	closeFront()
	err = front.Wait()
	closeBack()
	return errors.Join(err, back.Wait())
}

// listen opens the listeners of all servers. If it returns an error, it has closed the listeners
// that it had opened.
func listen(ctx context.Context, servers []Server) (all []net.Listener, err error) {
	for _, s := range servers {
		ln, err := s.Listen(ctx)
		if err != nil {
			for _, l := range all {
				_ = l.Close()
			}
			return nil, err
		}
		all = append(all, ln)
	}
	return all, nil
}

// start runs the servers, and calls cancel if a server fails. It returns a function that makes the
// servers close their listeners.
func start(ctx context.Context, cancel func(), servers []Server, on []net.Listener) (group *errgroup.Group, stop func()) {
	group = &errgroup.Group{}
	ctx, stop = context.WithCancel(ctx)
	for i, s := range servers {
		group.Go(func() error {
			err := s.Serve(ctx, on[i])
			if err != nil {
				cancel()
			}
			return err
		})
	}
	return group, stop
}

// pause makes Ready fail, and waits until the pause is over or a context ends.
func (l *Listeners) pause(running, again context.Context) {
	l.stopping.Store(true)
	l.Log.Info("stopping", "pause", l.Pause)
	over := time.NewTimer(l.Pause)
	defer over.Stop()
	select {
	case <-over.C:
	case <-again.Done():
	case <-running.Done():
	}
}

// interrupt waits until the program is asked to stop a second time, and then ends the pause and the
// requests of clients. ctx ends when the program is asked for the first time. interrupt returns
// early when Serve cancels the context in the parameter ended.
func (l *Listeners) interrupt(ctx, ended context.Context, endPause func(), clients []Server) {
	select {
	case <-ctx.Done():
	case <-ended.Done():
		return
	}
	again, forget := l.again()
	defer forget()
	select {
	case <-again.Done():
	case <-ended.Done():
		return
	}
	l.Log.Warn("asked again to stop; interrupting requests")
	endPause()
	for _, s := range clients {
		s.Interrupt()
	}
}

func (l *Listeners) again() (context.Context, context.CancelFunc) {
	if l.Again != nil {
		return l.Again()
	}
	return signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
}
