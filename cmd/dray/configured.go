package main

import (
	"dray/cache/fleet"
	"dray/cmd/dray/config"
	"dray/cmd/dray/registries"
	"dray/cmd/dray/routes"
	"dray/cmd/dray/services"
	"dray/cmd/dray/watched"
	"dray/mirror/identity"
	"dray/mirror/notify"
	"dray/upstream/ecr"
)

// load returns the effective configuration. Its error includes the problems of [checkParts].
func load(path string, environ []string) (config.Config, error) {
	return config.Load(path, environ, checkParts)
}

// checkParts adds the problems that package config cannot find, because only the packages that use
// the settings can check them.
func checkParts(c config.Config, k *config.Report) {
	for i, u := range c.Upstreams {
		if _, err := registries.QuirksOf(u).RatesWith(u.Limits.Rates); err != nil {
			k.Add(config.At("upstreams", i)+".limits.rates", "%v", err)
		}
		checkECR(u, k, config.At("upstreams", i)+".create_repositories")
	}
	routes.CheckFallbacks(c, k)
	for i, ch := range c.Checks {
		path := config.At("checks", i)
		for j, w := range ch.Webhooks {
			if w.Mode.On() {
				services.Check(w.Service, k, config.At(path+".webhooks", j))
			}
		}
		for j, e := range ch.Exec {
			if e.Mode.On() {
				services.CheckFile(k, config.At(path+".exec", j)+".environment_file", e.EnvironmentFile, watched.ParseVariables)
			}
		}
		if _, err := stepsOf(ch, nil, watched.Source{}); err != nil {
			for _, p := range splitErrors(err) {
				k.Add(path, "%v", p)
			}
		}
	}
	for i, n := range c.Notifications {
		services.Check(n.Service, k, config.At("notifications", i))
		endpoint, _ := endpointOf(n, watched.Source{}) // with the zero Source, endpointOf opens no file and never fails; Check above has reported problems of the files
		if _, err := notify.New([]notify.Endpoint{endpoint}, nil, nil); err != nil {
			k.Add(config.At("notifications", i), "%v", err)
		}
	}
	if c.Metadata.URL != "" {
		if store, err := openRedis(c.Metadata, watched.Source{}); err != nil { // does not connect
			k.Add("metadata.url", "%v", err)
		} else {
			_ = store.Close()
		}
	}
	if c.Fleet.On(c.Metadata) {
		services.CheckFile(k, "fleet.secret_file", c.Fleet.SecretFile, fleet.ParseKeys)
	}
	if k.Sound() { // otherwise checkRoutes would report wrong and duplicate names again
		checkRoutes(c, k)
	}
	for i, a := range c.Auth {
		if a.HTPasswd.File != "" {
			if err := identity.CheckHTPasswd(a.HTPasswd.File); err != nil {
				k.Add(config.At("auth", i)+".htpasswd.file", "%v", err)
			}
		}
	}
}

func checkECR(u config.Upstream, k *config.Report, path string) {
	if err := ecr.CheckExceptTags(u.CreateRepositories.TagMutabilityExcept); err != nil && u.Kind == config.KindECR {
		k.Add(path+".tag_mutability_except", "%v", err)
	}
	if policy := u.CreateRepositories.LifecyclePolicy; policy != "" {
		k.File(path+".lifecycle_policy", policy, ecr.CheckLifecyclePolicy)
	}
	if policy := u.CreateRepositories.RepositoryPolicy; policy != "" {
		k.File(path+".repository_policy", policy, ecr.CheckRepositoryPolicy)
	}
}

func checkRoutes(c config.Config, k *config.Report) {
	for i, l := range c.Listeners {
		if err := routes.Of(c, l).Check(); err != nil {
			k.Add(config.At("listeners", i)+".upstreams", "repositories would have ambiguous names in the rules of auth: %v", err)
		}
	}
}
