package main

import (
	"context"
	"net/http"

	"dray/cmd/dray/clients"
	"dray/cmd/dray/config"
	"dray/mirror/admin"
	"dray/mirror/admin/api"
	"dray/mirror/proxied"
)

func (g *graph) reloadAPI() []admin.Endpoint {
	return []admin.Endpoint{
		admin.Change("reload", func(ctx context.Context, _ api.ReloadRequest) (api.Reloaded, error) { return g.reloads.Reload(ctx) }),
	}
}

// reconfigure makes the running program use another configuration. It first makes all parts that
// change, beside those in use, and replaces these only if there is no error. The rest of cfg is as
// before ([changes.Merge]). Requests under way end with the parts with which they began.
func (g *graph) reconfigure(_ context.Context, cfg config.Config) error {
	access, err := g.access.With(cfg.Auth, g.log)
	if err != nil {
		return err
	}
	options, err := g.adminOptions(cfg, access)
	if err != nil {
		return err
	}
	g.replaceListeners(cfg, access)
	if g.admin != nil {
		g.admin.Replace(admin.NewHandler(options), nil)
	}
	if g.health != nil {
		g.health.Replace(admin.NewHealth(options), nil)
	}
	g.cfg, g.access = cfg, access
	return nil
}

// replaceListeners replaces the handlers of the listeners. No listener comes or goes while dray
// runs.
func (g *graph) replaceListeners(cfg config.Config, access clients.Entries) {
	type front struct {
		handler http.Handler
		trust   *proxied.Trust
	}
	fronts := make([]front, len(cfg.Listeners))
	for i, l := range cfg.Listeners {
		trust := g.servers[i].Trust.With(clients.Trust(l, cfg.Limits, g.log))
		fronts[i] = front{trust.Handler(g.listenerOf(cfg, l, access)), trust}
	}
	for i, f := range fronts {
		g.servers[i].Replace(f.handler, f.trust)
	}
}
