package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"dray/cache"
	"dray/cache/disk"
	"dray/cache/fleet"
	"dray/cache/meta"
	"dray/cache/meta/bolt"
	"dray/cmd/dray/clients"
	"dray/cmd/dray/config"
	"dray/cmd/dray/directories"
	"dray/cmd/dray/listening"
	"dray/cmd/dray/logbuffer"
	"dray/cmd/dray/program"
	"dray/cmd/dray/reload"
	"dray/cmd/dray/routes"
	"dray/cmd/dray/tracing"
	"dray/cmd/dray/watched"
	"dray/mirror"
	"dray/mirror/flight"
	"dray/mirror/identity"
	"dray/mirror/inventory"
	"dray/mirror/live"
	"dray/mirror/past"
	"dray/mirror/proxied"
	"dray/mirror/request"
	"dray/mirror/wire"
	"dray/upstream/ecr"
)

// build makes the parts of the program in the order of their dependencies. It opens no listener and
// starts nothing. A reload reads the configuration from the parameter source. The caller closes the
// graph. If build returns an error, it has closed the graph itself.
func build(ctx context.Context, cfg config.Config, source reload.Source, log *slog.Logger) (*graph, error) {
	g := &graph{cfg: cfg, log: log, front: front{listeners: &listening.Listeners{Pause: cfg.Limits.ShutdownPause.Std(), Log: log}}, metrics: prometheus.NewRegistry(), background: map[string]func(context.Context) error{}, changing: flight.NewTasks()}
	g.background["changing"] = func(ctx context.Context) error { <-ctx.Done(); g.changing.Stop(); return nil }
	g.reloads = reload.New(reload.Options{
		Source: source, Running: cfg, Apply: g.reconfigure, Logger: log,
		Check: func(c config.Config) error { return c.Check(checkParts) },
	})
	g.register(g.reloads.Collectors())
	g.watching, g.endWatching = context.WithCancel(context.WithoutCancel(ctx))
	for _, step := range []func(context.Context) error{g.buildConnections, g.buildCache, g.buildHosted, g.buildQueue, g.buildMetadata, g.buildBucket, g.buildUpstreams, g.buildChecks, g.buildMirror, g.buildListeners, g.buildCertificates, g.buildCloudWatch, g.buildAdmin} {
		if err := step(ctx); err != nil {
			return nil, errors.Join(err, g.close())
		}
	}
	g.metrics.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "dray_build_info", Help: "Always 1. The labels are the version of dray and of Go.",
		ConstLabels: prometheus.Labels{"version": program.Version(), "go_version": runtime.Version()},
	}, func() float64 { return 1 }))
	g.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return g, nil
}

// dray does not start if it may open fewer than leastOpenFiles files. It warns if it may open fewer
// than fewOpenFiles.
const (
	leastOpenFiles = 64
	fewOpenFiles   = 1024
)

// leastConnections is the lowest default for the limit on connections of clients. If dray may open
// so few files that this default applies, it can run out of files while all connections are in use,
// and some of their requests then fail.
const leastConnections = 8

const raiseOpenFiles = "raise the limit, by LimitNOFILE= of systemd, --ulimit nofile= of Docker, or ulimit -n"

// adminConnections is the number of connections that the admin listener may have. They do not count
// towards the limit of the other listeners, so clients cannot use them up.
const adminConnections = 32

// otherFiles is the number of open files that buildConnections reserves for listeners, stores, the
// log, connections to services, and connections to the admin listener.
const otherFiles = adminConnections + 32

// buildConnections bounds the connections of clients. A connection needs up to two files, and two
// more while dray fetches content for its client. From the number of files that dray may open,
// buildConnections subtracts the files that dray needs for other purposes. The default bound is a
// quarter of the rest.
func (g *graph) buildConnections(context.Context) error {
	files, err := wire.OpenFiles()
	if err != nil {
		return fmt.Errorf("limit of open files: %w", err)
	}
	if files < leastOpenFiles {
		return fmt.Errorf("at most %d files may be open, and dray needs %d or more; %s", files, leastOpenFiles, raiseOpenFiles)
	}
	own := otherFiles
	for _, l := range g.cfg.Listeners {
		if l.Send == config.SendSplice && l.TLS.Certificate == "" {
			own += wire.PipeFiles
		}
	}
	if g.cfg.Fleet.On(g.cfg.Metadata) {
		own += min(fleet.Files, files/4) // if dray may open few files, most of them stay for clients
	}
	n := cmp.Or(g.cfg.Limits.MaxConnections, max((files-own)/4, leastConnections))
	if files < fewOpenFiles {
		g.log.Warn(fmt.Sprintf("only %d files may be open, so dray serves %d connections at a time; %s", files, n, raiseOpenFiles))
	}
	g.connections = wire.NewConnections(n, g.log)
	g.register(g.connections.Collectors())
	return nil
}

// directoriesOf returns the directories of the cache and of the state.
func directoriesOf(c config.Config) directories.Directories {
	return directories.Directories{Cache: c.Cache.Directory, State: c.State.Directory, Version: program.Version()}
}

func (g *graph) buildCache(context.Context) (err error) {
	at := directoriesOf(g.cfg)
	if err := at.Prepare(g.log); err != nil {
		return fmt.Errorf("cache: %w%s", err, at.PrepareAdvice(err))
	}
	g.disk, err = disk.Open(disk.Options{
		Path: at.Content(), Pins: at.Pins(), MaxBytes: int64(g.cfg.Cache.MaxBytes), MinFreeBytes: int64(g.cfg.Cache.MinFreeBytes), Logger: g.log,
		Scrub: disk.Scrub{Interval: time.Duration(g.cfg.Cache.Scrub.Interval), BytesPerSecond: int64(g.cfg.Cache.Scrub.Rate)},
	})
	if err != nil {
		return fmt.Errorf("cache: %w; %s", err, at.CacheAdvice(err))
	}
	g.cache = cache.New(cache.Options{
		Disk: g.disk, MemoryBytes: int64(g.cfg.Cache.MemoryBytes), Logger: g.log, StallTimeout: g.cfg.Cache.StallTimeout.Std(),
		Abandon: cache.Abandon{
			StopAbove: int64(g.cfg.Cache.Abandoned.StopAbove), FinishPercent: g.cfg.Cache.Abandoned.FinishFromPercent,
			Grace: time.Duration(g.cfg.Cache.Abandoned.Grace),
		},
	})
	g.background["cache"] = g.cache.Run
	g.register(g.cache.Collectors())
	g.register(g.disk.Collectors())
	return nil
}

// buildMetadata opens the store of facts: bbolt, or Redis if several processes share them. It does
// not connect to Redis yet, because dray can start without facts.
func (g *graph) buildMetadata(context.Context) error {
	var store meta.Store
	if u := g.cfg.Metadata.URL; u != "" {
		r, err := openRedis(g.cfg.Metadata, watched.Watching(g.log))
		if err != nil {
			return fmt.Errorf("metadata: %w", err)
		}
		if g.member, err = openMember(g.cfg, r, g.cache, g.metrics, g.log); err != nil {
			return err
		}
		store = g.member.Facts(r)
		if g.member != nil {
			g.background["fleet"] = g.member.Run
			g.register(g.member.Collectors())
		}
	} else {
		b, err := bolt.Open(bolt.Options{Path: filepath.Join(g.cfg.Cache.Directory, "facts.db"), Logger: g.log})
		if err != nil {
			return fmt.Errorf("metadata: %w", err)
		}
		g.background["metadata"] = b.Run
		g.register(b.Collectors())
		store = b
	}
	g.store = meta.NewGuarded(store, meta.GuardOptions{Timeout: factsPatience, Logger: g.log})
	g.register(g.store.Collectors())
	return nil
}

func (g *graph) buildUpstreams(ctx context.Context) error {
	next, fresh, err := g.sourcesOf(g.cfg, func() (*ecr.Session, error) { return g.awsSession(ctx) })
	if err != nil {
		return err
	}
	g.sources = next
	g.member.Use(g.cfg, g.limiters())
	for _, r := range fresh {
		g.register(r.Collectors)
	}
	if g.session != nil {
		g.background["tokens"] = g.session.Run
		g.register(g.session.Collectors())
	}
	return nil
}

func (g *graph) buildMirror(context.Context) (err error) {
	cached := meta.NewCached(g.store, meta.CachedOptions{Logger: g.log})
	g.background["facts"] = cached.Run
	lastPulls := meta.NewLastPulls(cached, meta.Options{})
	facts := meta.NewExcept(cached, g.cfg.HostedNames()...)
	tags, visibility, presence := meta.NewTags(facts, meta.Options{}), meta.NewVisibility(facts, meta.Options{}), meta.NewPresence(facts, meta.PresenceOptions{})
	var transit *meta.Transit
	if g.cfg.Metadata.URL != "" {
		transit = meta.NewTransit(meta.NewExcept(g.store, g.cfg.HostedNames()...), rand.Text())
		g.register(transit.Collectors())
	}
	onEvent, err := g.buildNotifier()
	if err != nil {
		return fmt.Errorf("notifications: %w", err)
	}
	remembered := past.New()
	g.live = live.New(live.Options{OnPull: pullEvents(g.cfg.Notifications, onEvent, remembered)})
	g.background["live"] = g.live.Run
	g.register(g.live.Collectors())
	tracer, trace, err := tracing.New(tracing.Options{Config: g.cfg.Traces, Version: program.Version(), Logger: g.log})
	if err != nil {
		return err
	}
	if trace != nil {
		g.background["traces"] = trace
	}
	g.mirror, err = mirror.New(mirror.Options{
		Tracer: tracer, Cache: g.cache, Fleet: g.member.Part(), Joint: mirror.Joint{Differs: g.member.Differs, Writers: g.member.Writers()}, Tags: tags, Visibility: visibility, Presence: presence, Transit: transit, LastPulls: lastPulls, BaseImages: g.baseImages, Replaceable: g.replaceable(g.cfg, g.sources), Queue: g.queue, Logger: g.log,
		Observers: mirror.Observers{OnPull: g.buildPulls(), OnEvent: onEvent, Live: g.live, Past: remembered}, UploadExpiry: g.cfg.Limits.UploadExpiry.Std(), MaxUploadsPerClient: g.cfg.Limits.MaxUploadsPerClient,
		MaxUploadBytesPerClient: int64(g.cfg.Limits.MaxUploadBytesPerClient), ClientStall: g.cfg.Limits.StallTimeout.Std(),
	})
	if err != nil {
		return err
	}
	g.member.Answer(g.mirror.Writers())
	g.background["mirror"] = g.mirror.Run
	g.inventory = &inventory.Inventory{Cache: g.cache, Disk: g.disk, Tags: tags, Visibility: visibility, Presence: presence, Hosted: g.hostedImages, Queued: g.queuedImages}
	for _, c := range [][]prometheus.Collector{cached.Collectors(), tags.Collectors(), visibility.Collectors(), presence.Collectors(), lastPulls.Collectors(), g.mirror.Collectors()} {
		g.register(c)
	}
	return nil
}

func (g *graph) buildListeners(context.Context) error {
	var err error
	if g.access, err = clients.New(g.cfg.Auth, g.log); err != nil {
		return err
	}
	g.register(g.access.Collectors())
	for i, l := range g.cfg.Listeners {
		setting := config.At("listeners", i) + ".address"
		if i == 0 {
			setting += ", DRAY_ADDRESS or PORT"
		}
		trust := proxied.New(clients.Trust(l, g.cfg.Limits, g.log))
		server, err := g.newServer(wire.ServerOptions{
			Connections: g.connections, Name: l.Name, Setting: setting, Address: l.Address, Certificate: l.TLS.Certificate, PrivateKey: l.TLS.PrivateKey, Splice: l.Send == config.SendSplice,
			Trust: trust, Handler: trust.Handler(g.listenerOf(g.cfg, l, g.access)),
		})
		if err != nil {
			return fmt.Errorf("listener %s: %w", l.Name, err)
		}
		g.register(server.Collectors())
		g.servers = append(g.servers, server)
	}
	return nil
}

// listenerOf returns the handler of a listener, without the part for trusted proxies. It also
// registers the handler for requests that another member of the fleet passes on. That member got
// the requests at its listener of the same name.
func (g *graph) listenerOf(cfg config.Config, l config.Listener, access clients.Entries) *mirror.Listener {
	var log slog.Handler
	if cfg.Log.Access {
		log = logbuffer.Buffered(g.log)
	}
	handler := &mirror.Listener{Mirror: g.mirror, AccessLog: log, CopyFiles: l.Send == config.SendCopy, Listener: requestsOf(cfg, l, access)}
	g.mirror.Writers().Receive(l.Name, handler)
	return handler
}

// requestsOf returns the routes, the policy and the other settings for the requests of a listener.
func requestsOf(cfg config.Config, l config.Listener, access clients.Entries) request.Listener {
	table := routes.Of(cfg, l)
	return request.Listener{
		Name: l.Name, Routes: table, ExternalURL: strings.TrimSuffix(l.ExternalURL, "/"), AnswerWithin: l.AnswerWithin.Std(),
		Policy: identity.Policy{
			Role: identity.Role(l.Role), Access: access.Of(l.Auth), Challenge: l.Challenge, AllowAnonymousPush: l.AllowAnonymousPush,
			Hosts: routes.Hosts(table),
		},
	}
}
