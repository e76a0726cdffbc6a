package main

import (
	"reflect"
	"slices"
	"time"

	"dray/cache"
	"dray/cmd/dray/config"
	"dray/cmd/dray/registries"
	"dray/cmd/dray/routes"
	"dray/mirror"
	"dray/mirror/pull"
	"dray/mirror/repository"
	"dray/upstream"
	"dray/upstream/ecr"
)

// sources has the registries and hosted repositories that content comes from and pushes go to.
type sources struct {
	registries []*registries.Registry
	upstreams  []*repository.Upstream // the upstreams of registries and of hosted repositories
	tier       cache.Tier             // the tier of all registries; nil without a bucket
}

// sourcesOf returns the sources for a configuration. It keeps the present registry of an upstream
// if neither the settings of the upstream nor those of its fallbacks have changed. It also keeps
// the upstreams of kind local. newRegistries lists the registries that are new.
func (g *graph) sourcesOf(cfg config.Config, awsSession func() (*ecr.Session, error)) (newSources sources, newRegistries []*registries.Registry, err error) {
	newSources.tier = g.tier
	for _, u := range g.upstreams {
		if !slices.ContainsFunc(g.registries, func(r *registries.Registry) bool { return r.Upstream == u }) {
			newSources.upstreams = append(newSources.upstreams, u)
		}
	}
	for _, u := range cfg.Upstreams {
		if u.Kind == config.KindLocal {
			continue
		}
		i := slices.IndexFunc(g.registries, func(r *registries.Registry) bool { return same(r.From, u) })
		if i >= 0 && !slices.ContainsFunc(u.Fallbacks, func(f config.Fallback) bool { return !g.keeps(cfg, f.Name) }) {
			newSources.add(g.registries[i])
			continue
		}
		r, err := registries.Connect(u, awsSession, g.log)
		if err != nil {
			return sources{}, nil, err
		}
		r.Tier = g.tier
		newSources.add(r)
		newRegistries = append(newRegistries, r)
	}
	newSources.routeBuildCaches(newRegistries)
	connected := make([]config.Upstream, len(newRegistries))
	for i, r := range newRegistries {
		connected[i] = r.From
	}
	routes.ConnectFallbacks(connected, newSources.upstreams)
	return newSources, newRegistries, nil
}

// keeps reports whether s has a registry with the settings that cfg has for the named upstream.
func (s sources) keeps(cfg config.Config, name string) bool {
	return slices.ContainsFunc(cfg.Upstreams, func(u config.Upstream) bool {
		return u.Name == name && slices.ContainsFunc(s.registries, func(r *registries.Registry) bool { return same(r.From, u) })
	})
}

// same reports whether two configured upstreams agree in all settings that a registry uses.
func same(a, b config.Upstream) bool { return reflect.DeepEqual(ofRegistry(a), ofRegistry(b)) }

func (s *sources) add(r *registries.Registry) {
	s.registries, s.upstreams = append(s.registries, r), append(s.upstreams, r.Upstream)
}

// limiters returns the limiter of requests to each registry, by the name of the upstream.
func (s sources) limiters() map[string]*upstream.Limiter {
	all := map[string]*upstream.Limiter{}
	for _, r := range s.registries {
		all[r.Name] = r.Limiter
	}
	return all
}

// routeBuildCaches applies the setting build_cache.to of each new registry: it connects the
// registry to the upstream of kind local that the setting names. The other registries keep
// their connection, because a reload never replaces an upstream of kind local.
func (s sources) routeBuildCaches(fresh []*registries.Registry) {
	byName := map[string]*repository.Upstream{}
	for _, u := range s.upstreams {
		byName[u.Name] = u
	}
	for _, r := range fresh {
		if b := r.From.BuildCache; b.To != "" {
			r.BuildCaches = &repository.BuildCaches{To: byName[b.To], WriteBack: b.WriteBack == config.WriteBackAsync}
		}
	}
}

// replaceable returns the parts of the mirror that a reload replaces.
func (g *graph) replaceable(cfg config.Config, s sources) mirror.Replaceable {
	return mirror.Replaceable{Upstreams: s.upstreams, Gates: gatesOf(cfg, g.gates), Prefetch: prefetchOf(cfg), KeepAlive: keepAliveOf(cfg)}
}

// ofRegistry returns the upstream u with only those settings that its registry uses. It leaves out
// a password that comes from a file, because dray reads that file again when it changes.
func ofRegistry(u config.Upstream) config.Upstream {
	u.Prefixes, u.DefaultNamespace, u.Repositories, u.Prefetch, u.KeepAlive, u.Checks = nil, "", config.Repositories{}, config.Prefetch{}, 0, nil
	if u.Credentials.PasswordFile != "" {
		u.Credentials.Password = ""
	}
	return u
}

// prefetchOf returns, by the name of the upstream, the settings of prefetching.
func prefetchOf(cfg config.Config) map[string]pull.Prefetch {
	ahead := map[string]pull.Prefetch{}
	for _, u := range cfg.Upstreams {
		if u.Prefetch.Enabled && u.Kind != config.KindLocal {
			ahead[u.Name] = pull.Prefetch{MaxLayer: int64(u.Prefetch.MaxLayer), AtOnce: u.Prefetch.Streams}
		}
	}
	return ahead
}

// keepAliveOf returns, by the name of the upstream, the interval of keep-alive requests.
func keepAliveOf(cfg config.Config) map[string]time.Duration {
	every := map[string]time.Duration{}
	for _, u := range cfg.Upstreams {
		if u.Kind != config.KindLocal {
			every[u.Name] = u.KeepAlive.Std()
		}
	}
	return every
}
