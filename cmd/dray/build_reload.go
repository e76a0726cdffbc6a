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
// change, beside those in use, and replaces these only if there is no error. The rest of cfg is as
// before ([changes.Merge]). Requests under way end with the parts with which they began.
func (g *graph) reconfigure(ctx context.Context, cfg config.Config) error {
	next, fresh, err := g.sourcesOf(cfg, func() (*ecr.Session, error) { return g.startedSession(ctx) })
	defer g.retainTokens() // also those of a registry that is not used after an error
	if err != nil {
		return err
	}
	access, err := g.access.With(cfg.Auth, g.log)
	if err != nil {
		return err
	}
	options, err := g.adminOptions(cfg, access, next.registries)
	if err != nil {
		return err
	}
	if err := g.mirror.Replace(g.replaceable(cfg, next)); err != nil {
		return err
	}
	g.member.Use(cfg, next.limiters()) // at once: until then, a new limiter has all of a shared ceiling
	g.replaceListeners(cfg, access)
	if g.admin != nil {
		g.admin.Replace(admin.NewHandler(options), nil)
	}
	if g.health != nil {
		g.health.Replace(admin.NewHealth(options), nil)
	}
	g.certificates.Replace(cfg.CertificateFiles())
	g.account.Replace(cfg)
	g.replaceRegistries(next, fresh)
	g.cfg, g.access = cfg, access
	return nil
}

// replaceRegistries ends the use of the registries that are not in next.
func (g *graph) replaceRegistries(next sources, fresh []*registries.Registry) {
	for _, r := range g.registries {
		if slices.Contains(next.registries, r) {
			continue
		}
		r.Gone.Store(true)
		r.Transport.CloseIdleConnections() // those in use are closed when they become idle
		for _, c := range r.Collectors {
			g.metrics.Unregister(c)
		}
	}
	g.sources = next
	for _, r := range fresh {
		g.register(r.Collectors)
	}
	g.changing.Start(func(ctx context.Context) { g.greetAll(ctx, fresh) })
}

// startedSession is awsSession for a program that runs.
func (g *graph) startedSession(ctx context.Context) (*ecr.Session, error) {
	had := g.session != nil
	session, err := g.awsSession(ctx)
	if err == nil && !had {
		g.changing.Start(func(ctx context.Context) { _ = session.Run(ctx) })
	}
	return session, err
}

// retainTokens ends the renewal of tokens that no registry uses, and registers the metrics of the
// others.
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
		_ = g.metrics.Register(c) // fails for those that are registered
	}
}

// replaceListeners replaces the handlers of the listeners. No listener comes or goes while dray
// runs.
func (g *graph) replaceListeners(cfg config.Config, access clients.Entries) {
	for i, l := range cfg.Listeners {
		trust := g.servers[i].Trust.With(clients.Trust(l, cfg.Limits, g.log))
		g.servers[i].Replace(trust.Handler(g.listenerOf(cfg, l, access)), trust)
	}
}
