package main

import (
	"reflect"
	"slices"

	"dray/cache"
	"dray/cmd/dray/config"
	"dray/cmd/dray/routes"
	"dray/mirror"
	"dray/mirror/repository"
	"dray/upstream/ecr"
)

// sources is where content comes from, and where pushes go.
type sources struct {
	registries []*registry
	upstreams  []*repository.Upstream // of registries and hosted repositories
	tier       cache.Tier             // of all registries; nil without a bucket
}

// sourcesOf returns the sources for a configuration. It keeps the present registry of an upstream
// whose settings are the same, and the upstreams of kind local. fresh are the registries that are
// new.
func (g *graph) sourcesOf(cfg config.Config, aws func() (*ecr.Session, error)) (next sources, fresh []*registry, err error) {
	next.tier = g.tier
	for _, u := range g.upstreams {
		if !slices.ContainsFunc(g.registries, func(r *registry) bool { return r.Upstream == u }) {
			next.upstreams = append(next.upstreams, u)
		}
	}
	for _, u := range cfg.Upstreams {
		if u.Kind == config.KindLocal {
			continue
		}
		i := slices.IndexFunc(g.registries, func(r *registry) bool { return same(r.from, u) })
		if i >= 0 && !slices.ContainsFunc(u.Fallbacks, func(f config.Fallback) bool { return !g.keeps(cfg, f.Name) }) {
			next.add(g.registries[i])
			continue
		}
		r, err := buildUpstream(u, aws, g.log)
		if err != nil {
			return sources{}, nil, err
		}
		r.Tier = g.tier
		next.add(r)
		fresh = append(fresh, r)
	}
	next.routeBuildCaches(fresh)
	connected := config.Config{Upstreams: make([]config.Upstream, len(fresh))}
	for i, r := range fresh {
		connected.Upstreams[i] = r.from
	}
	routes.ConnectFallbacks(connected, next.upstreams)
	return next, fresh, nil
}

// keeps reports whether the registry of an upstream stays with the configuration cfg.
func (s sources) keeps(cfg config.Config, name string) bool {
	return slices.ContainsFunc(cfg.Upstreams, func(u config.Upstream) bool {
		return u.Name == name && slices.ContainsFunc(s.registries, func(r *registry) bool { return same(r.from, u) })
	})
}

// same reports whether two upstreams have the same registry.
func same(a, b config.Upstream) bool { return reflect.DeepEqual(ofRegistry(a), ofRegistry(b)) }

func (s *sources) add(r *registry) {
	s.registries, s.upstreams = append(s.registries, r), append(s.upstreams, r.Upstream)
}

// routeBuildCaches connects each new registry with the setting build_cache.to to the upstream of
// kind local that this setting names. Such an upstream is never replaced.
func (s sources) routeBuildCaches(fresh []*registry) {
	byName := map[string]*repository.Upstream{}
	for _, u := range s.upstreams {
		byName[u.Name] = u
	}
	for _, r := range fresh {
		if b := r.from.BuildCache; b.To != "" {
			r.BuildCaches = &repository.BuildCaches{To: byName[b.To], WriteBack: b.WriteBack == config.WriteBackAsync}
		}
	}
}

// replaceable returns what a reload replaces in the mirror.
func (g *graph) replaceable(cfg config.Config, s sources) mirror.Replaceable {
	return mirror.Replaceable{Upstreams: s.upstreams, Gates: gatesOf(cfg, g.gates), Prefetch: prefetchOf(cfg), KeepAlive: keepAliveOf(cfg)}
}
