package routes

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dray/cmd/dray/config"
	"dray/mirror/repository"
)

// load reads a configuration with the checks of fallbacks.
func load(t *testing.T, text string) (config.Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dray.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return config.Load(path, []string{"P=x"}, CheckFallbacks)
}

func TestCheckFallbacks(t *testing.T) {
	_, err := load(t, `upstreams:
- {url: a.example.com, fallbacks: [a.example.com, e.example.com, {on: not_found}, own]}
- {url: b.example.com, fallbacks: [{upstream: c.example.com}, a.example.com, c.example.com]}
- {url: c.example.com}
- {name: own, kind: local, fallbacks: [c.example.com]}
`)
	want := []string{
		`dray.yaml:2: upstreams[0].fallbacks[0].upstream: "a.example.com" is the upstream itself; name another one`,
		`dray.yaml:2: upstreams[0].fallbacks[1].upstream: there is no upstream named "e.example.com"; known names: a.example.com, b.example.com, c.example.com, own`,
		"dray.yaml:2: upstreams[0].fallbacks[2].upstream: is missing",
		`dray.yaml:2: upstreams[0].fallbacks[3].upstream: "own" is of kind local, which has only what clients push; name the upstream of a registry`,
		`dray.yaml:3: upstreams[1].fallbacks[1].upstream: "a.example.com" has fallbacks itself, which dray would not ask; list them here instead, and remove them there`,
		`dray.yaml:3: upstreams[1].fallbacks[2].upstream: "c.example.com" is listed twice`,
		"dray.yaml:5: upstreams[3].fallbacks: an upstream of kind local has everything here, so it needs no fallbacks; remove them",
	}
	if err == nil {
		t.Fatal("accepted")
	}
	var have []string
	for _, line := range strings.Split(err.Error(), "\n") {
		have = append(have, line[strings.Index(line, "dray.yaml:"):])
	}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Error(diff)
	}
	if _, err := load(t, "upstreams: [{url: a.example.com, fallbacks: [{upstream: docker.io, on: missing}]}, docker.io]"); err == nil || !strings.Contains(err.Error(), `"missing" is not one of failure, not_found`) {
		t.Error(err)
	}
}

func TestFallbackNotices(t *testing.T) {
	for text, want := range map[string][]string{
		"[{name: a, url: r.example.com, fallbacks: [b, docker.io]}, {name: b, url: r.example.com, hosts: []}, docker.io]": {
			"upstream a: the fallback b is the same registry, r.example.com, so it is down when the upstream is.",
			"upstream a: dray asks the fallback docker.io for alpine as alpine, where it is library/alpine; set default_namespace: library for a, too."},
		"[{name: a, url: r.example.com, hosts: [docker.io], default_namespace: library, fallbacks: [b]}, {name: b, url: docker.io, hosts: []}]": nil,
		"[{name: a, url: r.example.com, fallbacks: [s.example.com]}, s.example.com]":                                                            nil,
	} {
		c, err := load(t, "upstreams: "+text)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, FallbackNotices(c)); diff != "" {
			t.Errorf("%s\n%s", text, diff)
		}
	}
}

func TestConnectFallbacks(t *testing.T) {
	c, err := load(t, "upstreams: [{url: a.example.com, fallbacks: [b.example.com, {upstream: c.example.com, on: not_found}]}, b.example.com, c.example.com]")
	if err != nil {
		t.Fatal(err)
	}
	all := []*repository.Upstream{{Name: "a.example.com"}, {Name: "b.example.com"}, {Name: "c.example.com"}}
	ConnectFallbacks(c.Upstreams, all)
	for i, f := range all[0].Fallbacks {
		if f.To.Name != all[i+1].Name || f.NotFound != (i == 1) || f.To.Yields() != (i == 0) {
			t.Errorf("%d: %+v", i, f)
		}
	}
	if len(all[0].Fallbacks) != 2 || !all[0].Yields() || all[1].Yields() {
		t.Error("other fallbacks")
	}
}
