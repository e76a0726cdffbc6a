package main

import (
	"context"
	"slices"

	"dray/cmd/dray/clients"
	"dray/cmd/dray/config"
	"dray/cmd/dray/registries"
	"dray/mirror/admin"
	"dray/mirror/admin/api"
	"dray/upstream/ecr"
)

func (g *graph) reloadAPI() []admin.Endpoint {
	return []admin.Endpoint{
		admin.Change("reload", func(ctx context.Context, _ api.ReloadRequest) (api.Reloaded, error) { return g.reloads.Reload(ctx) }),
	}
}

// reconfigure makes the running program use another configuration. It first makes all parts that
// change. Only if this succeeds, it puts the new parts in place of the old ones. cfg differs from
// the running configuration only in keys that a reload applies ([changes.Merge]). A request under
// way keeps the parts with which it began.
func (g *graph) reconfigure(ctx context.Context, cfg config.Config) error {
	next, fresh, err := g.sourcesOf(cfg, func() (*ecr.Session, error) { return g.startedSession(ctx) })
	defer g.retainTokens() // also after an error: retainTokens then ends the renewal of the new tokens, which no registry uses
	if err != nil {
		return err
	}
	access, err := g.access.With(cfg.Auth, g.log)
	if err != nil {
		return err
	}
	streaming, end := context.WithCancel(g.watching)
	defer func() { end() }()
	options, err := g.adminOptions(streaming, cfg, access, next.registries)
	if err != nil {
		return err
	}
	if err := g.mirror.Replace(g.replaceable(cfg, next)); err != nil {
		return err
	}
	g.member.Use(cfg, next.limiters()) // directly after Replace: until Use runs, a new limiter allows this member the whole of a shared ceiling
	g.replaceListeners(cfg, access)
	if g.admin != nil {
		g.admin.Replace(admin.NewHandler(options), nil)
	}
	end, g.endStreams = g.endStreams, end // the deferred call ends the streams of the former handler
	if g.health != nil {
		g.health.Replace(admin.NewHealth(options), nil)
	}
	g.certificates.Replace(cfg.CertificateFiles())
	g.account.Replace(cfg)
	g.replaceRegistries(next, fresh)
	g.cfg, g.access = cfg, access
	return nil
}

// replaceRegistries puts the registries of newSources in place of the registries in use.
// newRegistries lists the registries of newSources that are not in use yet.
func (g *graph) replaceRegistries(newSources sources, newRegistries []*registries.Registry) {
	for _, r := range g.registries {
		if slices.Contains(newSources.registries, r) {
			continue
		}
		r.Gone.Store(true)
		r.Transport.CloseIdleConnections() // when a connection in use becomes idle, the transport closes it
		for _, c := range r.Collectors {
			g.metrics.Unregister(c)
		}
	}
	g.sources = newSources
	for _, r := range newRegistries {
		g.register(r.Collectors)
	}
	g.changing.Start(func(ctx context.Context) { g.greetAll(ctx, newRegistries) })
}

// startedSession does the work of awsSession in a running program. It starts the session if the
// session is new.
func (g *graph) startedSession(ctx context.Context) (*ecr.Session, error) {
	had := g.session != nil
	session, err := g.awsSession(ctx)
	if err == nil && !had {
		g.changing.Start(func(ctx context.Context) { _ = session.Run(ctx) })
	}
	return session, err
}

// retainTokens ends the renewal of tokens that no registry uses, and registers the metrics of all
// other tokens.
func (g *graph) retainTokens() {
	if g.session == nil {
		return
	}
	var used []*ecr.Tokens
	for _, r := range g.registries {
		used = append(used, r.Tokens)
	}
	for _, t := range g.session.Retain(used) {
		for _, c := range t.Collectors() {
			g.metrics.Unregister(c)
		}
	}
	for _, c := range g.session.Collectors() {
		_ = g.metrics.Register(c) // fails if c is registered already
	}
}

// replaceListeners replaces the handlers of the listeners. A reload does not add or remove
// listeners, so g.servers and cfg.Listeners have the same order.
func (g *graph) replaceListeners(cfg config.Config, access clients.Entries) {
	for i, l := range cfg.Listeners {
		trust := g.servers[i].Trust.With(clients.Trust(l, cfg.Limits, g.log))
		g.servers[i].Replace(trust.Handler(g.listenerOf(cfg, l, access)), trust)
	}
}
