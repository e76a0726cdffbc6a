package routes

import (
	"fmt"
	"slices"
	"strings"

	"dray/cmd/dray/config"
	"dray/mirror/repository"
	"dray/upstream/oci"
)

// CheckFallbacks adds the problems of fallbacks to k. A fallback has to be another upstream that
// has a registry and no fallbacks.
func CheckFallbacks(c config.Config, k *config.Report) {
	var known []string
	for _, u := range c.Upstreams {
		known = append(known, u.Name)
	}
	for i, u := range c.Upstreams {
		path := config.At("upstreams", i) + ".fallbacks"
		if u.Kind == config.KindLocal && len(u.Fallbacks) > 0 {
			k.Add(path, "an upstream of kind local has everything here, so it needs no fallbacks; remove them")
		}
		for j, f := range u.Fallbacks {
			path, to := config.At(path, j)+".upstream", named(c, f.Name)
			switch {
			case f.Name == "":
				k.Add(path, "is missing")
			case to == nil:
				k.Add(path, "there is no upstream named %q; known names: %s", f.Name, strings.Join(known, ", "))
			case to.Name == u.Name:
				k.Add(path, "%q is the upstream itself; name another one", f.Name)
			case to.Kind == config.KindLocal:
				k.Add(path, "%q is of kind local, which has only what clients push; name the upstream of a registry", f.Name)
			case len(to.Fallbacks) > 0:
				k.Add(path, "%q has fallbacks itself, which dray would not ask; list them here instead, and remove them there", f.Name)
			case slices.IndexFunc(u.Fallbacks, func(other config.Fallback) bool { return other.Name == f.Name }) < j:
				k.Add(path, "%q is listed twice", f.Name)
			}
		}
	}
}

// named returns the upstream with the given name, or nil.
func named(c config.Config, name string) *config.Upstream {
	i := slices.IndexFunc(c.Upstreams, func(u config.Upstream) bool { return u.Name == name })
	if i < 0 {
		return nil
	}
	return &c.Upstreams[i]
}

// FallbackNotices returns notices about fallbacks that cannot help. A fallback cannot help if it is
// the same registry as the upstream. It cannot help with images such as alpine, whose names have no
// namespace, if the two upstreams put different default namespaces before such names. c must be
// valid.
func FallbackNotices(c config.Config) (notices []string) {
	add := func(format string, args ...any) { notices = append(notices, fmt.Sprintf(format, args...)) }
	for _, u := range c.Upstreams {
		for _, f := range u.Fallbacks {
			to := named(c, f.Name)
			if to.RegistryHost() == u.RegistryHost() && to.Address == u.Address {
				add("upstream %s: the fallback %s is the same registry, %s, so it is down when the upstream is.", u.Name, to.Name, u.RegistryHost())
			}
			if own, other := oci.JoinRepo(u.DefaultNamespace, "alpine"), oci.JoinRepo(to.DefaultNamespace, "alpine"); to.DefaultNamespace != "" && own != other {
				add("upstream %s: dray asks the fallback %s for alpine as %s, where it is %s; set default_namespace: %s for %s, too.",
					u.Name, to.Name, oci.JoinRepo(to.RepositoryPrefix, own), oci.JoinRepo(to.RepositoryPrefix, other), to.DefaultNamespace, u.Name)
			}
		}
	}
	return notices
}

// ConnectFallbacks sets the fallbacks of the upstreams whose settings are in configs. The settings
// must be valid. upstreams has these upstreams and all their fallbacks.
func ConnectFallbacks(configs []config.Upstream, upstreams []*repository.Upstream) {
	byName := map[string]*repository.Upstream{}
	for _, u := range upstreams {
		byName[u.Name] = u
	}
	for _, u := range configs {
		for i, f := range u.Fallbacks {
			byName[u.Name].Fallbacks = append(byName[u.Name].Fallbacks, repository.Fallback{
				To: byName[f.Name].Reading(i == len(u.Fallbacks)-1), NotFound: f.On == config.FallbackOnNotFound,
			})
		}
	}
}
