package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"dray/cmd/dray/cgroup"
	"dray/cmd/dray/config"
	"dray/cmd/dray/listening"
	"dray/cmd/dray/logbuffer"
	"dray/cmd/dray/program"
	"dray/cmd/dray/registries"
	"dray/cmd/dray/reload"
	"dray/cmd/dray/usage"
	"dray/mirror/wire"
)

func serveCommand(in *invocation) *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Run the mirror",
		Long: `serve runs the mirror until it receives SIGINT or SIGTERM. Then /readyz fails.
After limits.shutdown_pause, serve accepts no more connections. Running
requests have limits.shutdown_grace to end. A second signal ends the pause and
interrupts requests. On SIGHUP, serve reads the configuration file again: see dray
reload.

Without any configuration it mirrors Docker Hub on 127.0.0.1:5000. If
ECR_REGISTRY is set, names without a registry go to that registry, and dray
accepts pushes for it. If the configuration is invalid, serve lists all problems
and exits.`,
		Args: usage.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := in.load()
			if err != nil {
				return err
			}
			level := new(slog.LevelVar)
			level.Set(cfg.Log.Level.Level())
			log, flush := newLogger(cfg.Log.Format, level, in.stderr)
			defer flush()
			logStart(cfg, in.notices(cfg), log)
			if limit := cgroup.MemoryLimit(os.DirFS("/")); limit > 0 && os.Getenv("GOMEMLIMIT") == "" {
				debug.SetMemoryLimit(limit / 10 * 9) // the rest is for memory that the runtime does not count
			}
			return serve(cmd.Context(), cfg, reload.Source{Load: in.loadAgain, Notices: in.notices, Level: level}, log)
		},
	}
}

// newLogger makes the log, which writes to w. flush writes the buffered lines. newLogger also
// discards the lines of logrus, the process-wide log to which the library distribution writes when
// it checks the tokens of clients. These lines have another format, and repeat errors that the
// library also returns to dray.
func newLogger(format config.LogFormat, level slog.Leveler, w io.Writer) (log *slog.Logger, flush func()) {
	logrus.SetOutput(io.Discard)
	handler, flush := logbuffer.New(w, func(w io.Writer) slog.Handler {
		o := &slog.HandlerOptions{Level: level}
		if format == config.LogJSON {
			return slog.NewJSONHandler(w, o)
		}
		return slog.NewTextHandler(w, o)
	})
	return slog.New(handler), flush
}

// logStart logs the version, the cache and the upstreams in one line, and then each notice.
func logStart(cfg config.Config, notices []string, log *slog.Logger) {
	directory := cfg.Cache.Directory
	if absolute, err := filepath.Abs(directory); err == nil {
		directory = absolute
	}
	upstreams := make([]string, len(cfg.Upstreams))
	for i, u := range cfg.Upstreams {
		upstreams[i] = u.Name
	}
	log.Info("starting", "version", program.Version(), "cache", directory, "cache_max_bytes", cfg.Cache.MaxBytes, "upstreams", strings.Join(upstreams, ","))
	for _, n := range notices {
		log.Warn(n)
	}
}

// serve runs the program until ctx ends or a part of the program fails. It stops the servers before
// the parts that they use. On SIGHUP it reloads the configuration. A closed terminal also sends
// SIGHUP; because serve handles the signal, dray then continues to run.
func serve(ctx context.Context, cfg config.Config, source reload.Source, log *slog.Logger) (err error) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP) // a signal that arrives during the start has its effect after the start
	defer signal.Stop(hangups)
	g, err := build(ctx, cfg, source, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	defer context.AfterFunc(ctx, g.reloads.Stop)()

	inner, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	background, inner := errgroup.WithContext(inner)
	for name, run := range g.background {
		background.Go(func() error {
			if err := run(inner); err != nil && inner.Err() == nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
	}
	all := g.registries // read here, because a reload may replace g.registries while greetAll runs
	background.Go(func() error { g.greetAll(inner, all); return nil })
	background.Go(func() error { g.reloads.OnSignals(inner, hangups); return nil })
	err = g.serveAll(ctx, inner)
	g.reloads.Stop()
	g.live.End() // End emits the last events of pulls, so the sender of events must still run
	stop()
	return errors.Join(err, background.Wait())
}

const greetTimeout = 15 * time.Second

// greetAgain is the interval between greetings of a registry whose last greeting has failed.
const greetAgain = time.Minute

// greetAll greets each of the registries again and again, until one request to it succeeds, a
// reload removes it, or ctx ends. Suppose that dray greeted only once, and a registry was down at
// the start. /readyz would then report it as down until a client causes a request, perhaps for
// hours.
func (g *graph) greetAll(ctx context.Context, all []*registries.Registry) {
	again := time.NewTicker(greetAgain)
	defer again.Stop()
	for waiting := g.greet(ctx, all, slog.LevelWarn); len(waiting) > 0; waiting = g.greet(ctx, waiting, slog.LevelDebug) {
		select {
		case <-ctx.Done():
			return
		case <-again.C:
		}
		waiting = slices.DeleteFunc(waiting, func(r *registries.Registry) bool { return r.Gone.Load() || r.Healthy(ctx) == nil }) // Healthy returns nil if a request that a client caused has succeeded
	}
}

// greet sends one request to each of the registries, so that the first client finds a connection
// and a token, and the operator sees problems before that client does. greet logs each result; for
// a failure, it uses the given level. The results affect only /readyz. greet returns the registries
// whose request has failed.
func (g *graph) greet(ctx context.Context, all []*registries.Registry, level slog.Level) []*registries.Registry {
	ctx, cancel := context.WithTimeout(ctx, greetTimeout)
	defer cancel()
	answered := make([]bool, len(all))
	var asking sync.WaitGroup
	for i, r := range all {
		asking.Go(func() {
			err := r.Hello(ctx)
			r.Breaker.Greeted(err)
			switch answered[i] = err == nil; {
			case err == nil:
				g.log.Info("upstream is available", "upstream", r.Name)
			case !errors.Is(ctx.Err(), context.Canceled):
				g.log.Log(ctx, level, "upstream is not available", "upstream", r.Name, "error", err)
			}
		})
	}
	asking.Wait()
	var failed []*registries.Registry
	for i, r := range all {
		if !answered[i] {
			failed = append(failed, r)
		}
	}
	return failed
}

// serveAll serves until ctx ends. Then it goes on for limits.shutdown_pause, stops the servers for
// clients, and stops those for operators last. If a server fails, or if innerCtx ends, there is no
// pause. innerCtx belongs to the background parts, and ends when one of them fails.
func (g *graph) serveAll(ctx, innerCtx context.Context) error {
	clients := present(g.servers...)
	if g.member != nil {
		clients = append(clients, g.member)
	}
	err := g.listeners.Serve(ctx, innerCtx, clients, present(g.health, g.admin))
	g.log.Info("stopped")
	return err
}

// present returns the servers that are not nil.
func present(servers ...*wire.Server) (all []listening.Server) {
	for _, s := range servers {
		if s != nil {
			all = append(all, s)
		}
	}
	return all
}
