package main

import (
	"context"
	"slices"

	"dray/cmd/dray/clients"
	"dray/cmd/dray/config"
	"dray/cmd/dray/registries"
	"dray/cmd/dray/routes"
	"dray/cmd/dray/window"
	"dray/mirror/admin"
	"dray/mirror/explain"
)

// endpoints returns the API of the admin listener, which the subcommands of package ctl use. Each
// part of dray adds its endpoints in a method of its own. cfg is the configuration in force. The
// streams of events end when streamCtx ends.
func (g *graph) endpoints(streamCtx context.Context, cfg config.Config, e *explain.Explainer) []admin.Endpoint {
	return slices.Concat(g.account.Endpoints(), []admin.Endpoint{admin.Query("history", g.history.Query)}, window.LiveAPI(streamCtx, g.live), g.inventoryAPI(routes.NamesOf(cfg)), g.queueAPI(), g.reloadAPI(), window.ExplainAPI(e), g.member.Endpoints())
}

// explainer makes the part of dray that answers the command `dray explain`. The parameter access
// holds the entries of `auth` in cfg.
func (g *graph) explainer(cfg config.Config, access clients.Entries, all []*registries.Registry) *explain.Explainer {
	o := explain.Options{Hosted: g.hostedImages, Registries: map[string]explain.Registry{}}
	for _, l := range cfg.Listeners {
		requests := requestsOf(cfg, l, access)
		o.Listeners = append(o.Listeners, explain.Listener{Listener: &requests, Own: routes.Own(l, requests.Routes)})
	}
	for _, r := range all {
		o.Registries[r.Name] = explain.Registry{Breaker: r.Breaker, Limiter: r.Limiter, Client: r.Client}
	}
	return g.mirror.Explainer(o)
}
