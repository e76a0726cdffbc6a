package config

import (
	"slices"
	"testing"
)

// The URL of a registry may have a path, except where dray knows that the registry has none. All
// names of Docker Hub mean the same registry.
func TestRegistryURLs(t *testing.T) {
	for url, ok := range map[string]bool{
		"https://h.example.com/artifactory/api/docker/hub": true,
		"h.example.com:8443/a.b/~c_d-e/":                   true,
		"http://h.example.com/":                            true,
		"https://h.example.com/Team":                       true,
		"https://h.example.com/v2":                         false,
		"https://h.example.com/a/v2/b":                     false,
		"https://h.example.com/a//b":                       false,
		"https://h.example.com/a/../b":                     false,
		"https://h.example.com/.a":                         false,
		"https://h.example.com/a%2fb":                      false,
		"https://h.example.com/a?b":                        false,
		"https://h.example.com/a#b":                        false,
		"https://u:p@h.example.com/a":                      false,
		"ftp://h.example.com/a":                            false,
		"https://registry.hub.docker.com/library":          false,
		"https://public.ecr.aws/docker":                    false,
		"https://" + testRegistry + "/team":                false,
	} {
		cfg, err := Load(write(t, "dray.yaml", "upstreams: [{name: up, url: '"+url+"'}]"), nil)
		if (err == nil) != ok {
			t.Errorf("%s: %v", url, err)
		}
		if ok && cfg.Upstreams[0].URL[len(cfg.Upstreams[0].URL)-1] == '/' {
			t.Errorf("%s became %s", url, cfg.Upstreams[0].URL)
		}
	}
	cfg, err := Load(write(t, "dray.yaml", "upstreams: [{name: a, url: 'https://h.example.com/a'}, {name: b, url: 'https://h.example.com/b'}, {name: c, url: h.example.com}]"), nil)
	if err != nil || len(cfg.Upstreams[0].Hosts) > 0 || len(cfg.Upstreams[1].Hosts) > 0 || len(cfg.Upstreams[2].Hosts) != 1 {
		t.Errorf("three registries at one host: %v", err)
	}
	for _, name := range []string{"docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com", "https://Registry.Hub.Docker.com/"} {
		cfg, err := Load(write(t, "dray.yaml", "upstreams: [{url: '"+name+"'}]"), nil)
		if err != nil {
			t.Fatal(err)
		}
		if u := cfg.Upstreams[0]; u.Name != "docker.io" || u.URL != "https://registry-1.docker.io" || u.DefaultNamespace != "library" ||
			!slices.Equal(u.Hosts, []string{"docker.io", "registry-1.docker.io", "index.docker.io", "registry.hub.docker.com"}) {
			t.Errorf("%s is %s at %s for %q", name, u.Name, u.URL, u.Hosts)
		}
	}
}
