package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/smithy-go/logging"
	"github.com/prometheus/client_golang/prometheus"

	"dray/cache"
	"dray/cache/disk"
	"dray/cache/meta"
	"dray/cmd/dray/certificates"
	"dray/cmd/dray/clients"
	"dray/cmd/dray/config"
	"dray/cmd/dray/listening"
	"dray/cmd/dray/member"
	"dray/cmd/dray/reload"
	"dray/cmd/dray/stats"
	"dray/mirror"
	"dray/mirror/flight"
	"dray/mirror/gate"
	"dray/mirror/history"
	"dray/mirror/hosted"
	"dray/mirror/inventory"
	"dray/mirror/live"
	"dray/mirror/queue"
	"dray/mirror/wire"
	"dray/upstream/ecr"
)

// graph has all parts of the program. build makes it, and serve runs it.
type graph struct {
	cfg        config.Config // the configuration in force; reloads replace it
	reloads    *reload.Reloader
	log        *slog.Logger
	metrics    *prometheus.Registry
	disk       *disk.Dir
	cache      *cache.Cache
	store      *meta.Guarded
	session    *ecr.Session // nil if no upstream gets credentials from AWS
	hosted     []*hosted.Store
	baseImages *meta.BaseImages // nil if no check has a base stage
	queue      *queue.Queue     // always empty if no upstream acknowledges locally and no earlier run left a queue
	sources
	gates      map[string]*gate.Gate // one for each entry of the key "checks", by the entry's name
	mirror     *mirror.Mirror
	transports []interface{ CloseIdleConnections() } // of the bucket and the notifications
	inventory  *inventory.Inventory
	front
	certificates *certificates.Files
	changing     *flight.Tasks // tasks that reloads start
	// background has the functions that run until the program stops, by name.
	background map[string]func(context.Context) error
}

// front has the parts to which clients, operators and other members of a fleet connect.
type front struct {
	servers     []*wire.Server // the servers of the listeners, in the order of the configuration
	admin       *wire.Server   // nil if the admin listener is off
	health      *wire.Server   // nil unless health and metrics have an address of their own
	listeners   *listening.Listeners
	connections *wire.Connections // bounds the connections of clients; the admin listener has its own limit
	access      clients.Entries
	member      *member.Member // nil without a fleet
	account     *stats.Account
	history     *history.History
	live        *live.Table // the pulls and pushes under way
	// watching is the context of the streams that the admin listener sends. It ends when that
	// listener stops.
	watching    context.Context
	endWatching func()
	// endStreams ends the streams of the admin listener's present handler. A reload ends them
	// because it may revoke an operator's right to view, which dray checks only when a stream starts.
	endStreams func()
}

// awsConfiguration reads the configuration of the AWS SDK. It sends no request to AWS: missing
// credentials show at the first request and in /readyz.
func awsConfiguration(ctx context.Context, log *slog.Logger) (aws.Config, error) {
	cfg, err := awsconfig.LoadDefaultConfig(ctx, awsLog(log))
	if err != nil {
		return cfg, fmt.Errorf("AWS configuration: %w", err)
	}
	return cfg, nil
}

// aws returns the configuration of the AWS SDK for subcommands. It discards the messages of the
// SDK.
func (in *invocation) aws(ctx context.Context) (aws.Config, error) {
	return awsConfiguration(ctx, slog.New(slog.DiscardHandler))
}

// awsSession returns the session with ECR. It makes the session at the first call, from the
// configuration of the AWS SDK.
func (g *graph) awsSession(ctx context.Context) (*ecr.Session, error) {
	if g.session == nil {
		cfg, err := awsConfiguration(ctx, g.log)
		if err != nil {
			return nil, err
		}
		g.session = ecr.NewSession(cfg, g.log)
	}
	return g.session, nil
}

// awsLog returns the option by which the AWS SDK writes its messages to the log. Without the
// option, the SDK writes them to standard error, in a format of its own.
func awsLog(log *slog.Logger) func(*awsconfig.LoadOptions) error {
	return awsconfig.WithLogger(logging.LoggerFunc(func(kind logging.Classification, format string, args ...any) {
		level := slog.LevelDebug
		if kind == logging.Warn {
			level = slog.LevelInfo
		}
		log.Log(context.Background(), level, "AWS SDK", "message", fmt.Sprintf(format, args...))
	}))
}

// newServer makes a server with the settings that all listeners share.
func (g *graph) newServer(o wire.ServerOptions) (*wire.Server, error) {
	limits := g.cfg.Limits
	o.ReadHeaderTimeout, o.IdleTimeout, o.Grace, o.Logger = limits.ReadHeaderTimeout.Std(), limits.IdleTimeout.Std(), cmp.Or(o.Grace, limits.ShutdownGrace.Std()), g.log
	return wire.NewServer(o)
}

func (g *graph) register(cs []prometheus.Collector) { g.metrics.MustRegister(cs...) }

// close releases the resources that build opened.
func (g *graph) close() error {
	var errs []error
	g.endWatching()
	if g.cache != nil {
		g.cache.Close()
	}
	for _, r := range g.registries {
		r.Transport.CloseIdleConnections()
	}
	for _, t := range g.transports {
		t.CloseIdleConnections()
	}
	if g.store != nil {
		errs = append(errs, g.store.Close())
	}
	for _, s := range g.hosted {
		errs = append(errs, s.Close())
	}
	if g.queue != nil {
		errs = append(errs, g.queue.Close())
	}
	if g.disk != nil {
		errs = append(errs, g.disk.Close())
	}
	return errors.Join(errs...)
}
