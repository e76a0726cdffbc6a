package config

import (
	"reflect"
	"regexp"
	"slices"
	"strings"
)

// localName matches the names of upstreams that can also be names of directories.
var localName = regexp.MustCompile(`^[a-z0-9]+(?:[._-][a-z0-9]+)*$`)

func (u Upstream) validateLocal(k *Report, path string) {
	if u.Kind != KindLocal {
		if !reflect.DeepEqual(u.Local, Local{}) {
			k.Add(path+".local", "is only for upstreams of kind local")
		}
		return
	}
	switch {
	case u.Name == "":
		k.Add(path+".name", "is missing")
	case len(u.Name) > maxName || !localName.MatchString(u.Name):
		k.Add(path+".name", "%q is not a valid name for kind local, where it is also the name of a directory; use at most %d lower case letters and digits, with single dots, dashes or underscores between them", u.Name, maxName)
	}
	if u.URL != "" {
		k.Add(path+".url", "has no effect for kind local, which has no registry; remove it")
	}
	if u.Address != "" || u.RepositoryPrefix != "" || u.Credentials != (Credentials{}) {
		k.Add(path, "address, repository_prefix and credentials have no effect for kind local, which has no registry; remove them")
	}
	for i, r := range u.Local.Prune {
		r.validate(k, At(path+".local.prune", i))
	}
}

func (r PruneRule) validate(k *Report, path string) {
	if r.Keep < 0 {
		k.Add(path+".keep", "%d is negative", r.Keep)
	}
	if r.Group != "" && r.Keep == 0 {
		k.Add(path+".group", "needs keep")
	}
	for j, p := range r.Repositories {
		if p == "" || p != strings.ToLower(p) || strings.HasPrefix(p, "/") {
			k.Add(At(path+".repositories", j), "%q matches no repository: names are lower case and do not begin with a slash", p)
		}
	}
	for j, p := range r.Tags {
		if p == "" || strings.ContainsAny(p, "/:") {
			k.Add(At(path+".tags", j), "%q matches no tag", p)
		}
	}
}

// validateQuotas checks that the upstreams of kind local together leave space in the cache for
// other content.
func (c Config) validateQuotas(k *Report) {
	var sum Bytes
	over := -1 // the first upstream that does not fit
	for i, u := range c.Upstreams {
		if u.Kind != KindLocal {
			continue
		}
		if sum += u.Local.MaxBytes; over < 0 && c.Cache.MaxBytes > 0 && sum >= c.Cache.MaxBytes {
			over = i
		}
	}
	if over >= 0 {
		k.Add(At("upstreams", over)+".local.max_bytes", "the upstreams of kind local use %v together, which leaves no room for other content in cache.max_bytes, %v; lower their quotas, or raise cache.max_bytes", sum, c.Cache.MaxBytes)
	}
}

// validateBuildCaches checks the sections build_cache of all upstreams. Each section must name an
// upstream of kind local.
func (c Config) validateBuildCaches(k *Report) {
	locals := c.HostedNames()
	for i, u := range c.Upstreams {
		b, path := u.BuildCache, At("upstreams", i)+".build_cache"
		switch {
		case b == (BuildCache{}):
		case b.To == "":
			k.Add(path+".to", "is missing")
		case !slices.Contains(locals, b.To):
			k.Add(path+".to", "there is no upstream of kind local named %q; known names: %s", b.To, strings.Join(locals, ", "))
		case u.Kind == KindLocal || !u.Push:
			k.Add(path, "is only for upstreams with push: true that are not of kind local")
		case !localName.MatchString(u.Name):
			k.Add(At("upstreams", i)+".name", "%q is not a valid name with build_cache, where repository names begin with it; use lower case letters and digits, with single dots, dashes or underscores between them", u.Name)
		}
	}
}

// HostedNames returns the names of the upstreams of kind local.
func (c Config) HostedNames() (names []string) {
	for _, u := range c.Upstreams {
		if u.Kind == KindLocal && u.Name != "" {
			names = append(names, u.Name)
		}
	}
	return names
}
