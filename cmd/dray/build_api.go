package main

import (
	"context"
	"iter"
	"net/url"
	"slices"

	"dray/cmd/dray/clients"
	"dray/cmd/dray/config"
	"dray/cmd/dray/registries"
	"dray/cmd/dray/routes"
	"dray/mirror/admin"
	"dray/mirror/admin/api"
	"dray/mirror/explain"
	"dray/mirror/live"
)

// endpoints returns the API of the admin listener, which the subcommands of package ctl use. Each
// part of dray adds its endpoints in a method of its own. cfg is the configuration in force, and
// access has its entries of auth.
func (g *graph) endpoints(cfg config.Config, access clients.Entries, all []*registries.Registry) []admin.Endpoint {
	return slices.Concat(g.account.Endpoints(), []admin.Endpoint{admin.Query("history", g.history.Query)}, liveAPI(g.watching, g.live), g.inventoryAPI(routes.NamesOf(cfg)), g.queueAPI(), g.reloadAPI(), g.explainAPI(cfg, access, all), g.member.Endpoints())
}

// liveAPI lists the endpoints that show what clients pull and push. Answers without end stop with
// ending.
func liveAPI(ending context.Context, t *live.Table) []admin.Endpoint {
	return []admin.Endpoint{
		admin.Query("live", func(context.Context, url.Values) (api.Live, error) { return t.Snapshot(), nil }),
		admin.Watch("live/events", ending, func(ctx context.Context, _ url.Values) iter.Seq2[api.Live, error] { return t.Watch(ctx) }),
	}
}

func (g *graph) explainAPI(cfg config.Config, access clients.Entries, all []*registries.Registry) []admin.Endpoint {
	o := explain.Options{Hosted: g.hostedImages, Registries: map[string]explain.Registry{}}
	for _, l := range cfg.Listeners {
		requests := requestsOf(cfg, l, access)
		o.Listeners = append(o.Listeners, explain.Listener{Listener: &requests, Own: routes.Own(l, requests.Routes)})
	}
	for _, r := range all {
		o.Registries[r.Name] = explain.Registry{Breaker: r.Breaker, Limiter: r.Limiter, Client: r.Client}
	}
	e := g.mirror.Explainer(o)
	return []admin.Endpoint{admin.Query("explain", func(ctx context.Context, params url.Values) (api.Explanation, error) {
		return e.Explain(ctx, explain.Query{
			Name: params.Get("name"), Listener: params.Get("listener"), User: params.Get("as"), Platforms: params["platform"], Accept: params["accept"],
		})
	})}
}
