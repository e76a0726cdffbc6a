package main

import (
	"dray/cmd/dray/config"
	"dray/mirror/identity"
	"dray/mirror/notify"
	"dray/upstream/ecr"
)

// load makes the effective configuration, at which the parts of the program have looked as well.
func load(path string, environ []string) (config.Config, error) {
	return config.Load(path, environ, askParts)
}

// askParts adds what is wrong with a configuration as far as only the parts can tell that it is
// made for.
func askParts(c config.Config, k *config.Report) {
	for i, u := range c.Upstreams {
		if _, err := quirksOf(u.Kind).RatesWith(u.Limits.Rates); err != nil {
			k.Add(config.At("upstreams", i)+".limits.rates", "%v", err)
		}
		askECR(u, k, config.At("upstreams", i)+".create_repositories")
	}
	for i, ch := range c.Checks {
		if _, err := stepsOf(ch, nil); err != nil {
			for _, p := range unjoined(err) {
				k.Add(config.At("checks", i), "%v", p)
			}
		}
	}
	for i, n := range c.Notifications {
		if _, err := notify.New([]notify.Endpoint{endpointOf(n)}, nil, nil); err != nil {
			k.Add(config.At("notifications", i), "%v", err)
		}
	}
	if c.Metadata.URL != "" {
		if store, err := openRedis(c.Metadata); err != nil { // which does not connect
			k.Add("metadata.url", "%v", err)
		} else {
			_ = store.Close()
		}
	}
	if k.Sound() { // names that are wrong or given twice would be reported here again
		askRoutes(c, k)
	}
	for i, a := range c.Auth {
		if a.HTPasswd.File != "" {
			if err := identity.CheckHTPasswd(a.HTPasswd.File); err != nil {
				k.Add(config.At("auth", i)+".htpasswd.file", "%v", err)
			}
		}
	}
}

func askECR(u config.Upstream, k *config.Report, path string) {
	if err := ecr.CheckExceptTags(u.CreateRepositories.TagMutabilityExcept); err != nil && u.Kind == config.KindECR {
		k.Add(path+".tag_mutability_except", "%v", err)
	}
	if policy := u.CreateRepositories.LifecyclePolicy; policy != "" {
		k.File(path+".lifecycle_policy", policy, ecr.CheckLifecyclePolicy)
	}
}

func askRoutes(c config.Config, k *config.Report) {
	for i, l := range c.Listeners {
		if err := routesOf(c, l).Check(); err != nil {
			k.Add(config.At("listeners", i)+".upstreams", "rights could not tell repositories apart: %v", err)
		}
	}
}
