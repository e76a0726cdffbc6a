package route

import (
	"strings"
	"testing"
)

func TestResolve(t *testing.T) {
	const sum = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	routes := &Table{Own: []string{"dray.example.com:5000"}, Order: []Route{
		{Upstream: "ecr", Hosts: []string{"123456789012.dkr.ecr.eu-west-1.amazonaws.com"}, Prefixes: []string{"aws"}},
		{Upstream: "hub", Hosts: []string{"docker.io", "registry-1.docker.io"}, Prefixes: []string{"docker.io", "mirror/hub"}, DefaultNamespace: "library"},
		{Upstream: "inner", Hosts: []string{"127.0.0.1:7000"}},
	}}
	for name, want := range map[string]string{
		"docker.io/library/alpine:3":               "hub library/alpine 3",
		"docker.io/alpine":                         "hub library/alpine latest",
		"registry-1.docker.io/alpine:3":            "hub library/alpine 3",
		"dray.example.com:5000/docker.io/alpine:3": "hub library/alpine 3",
		"dray.example.com:5000/team/app:1":         "ecr team/app 1",
		"dray.example.com:5000/hub/alpine":         "hub library/alpine latest",
		"localhost:5000/mirror/hub/x/y:z":          "hub x/y z",
		"127.0.0.1:5000/aws/team/app":              "ecr team/app latest",
		"[::1]:5000/team/app":                      "ecr team/app latest",
		"aws/team/app:1":                           "ecr team/app 1",
		"hub/alpine:3":                             "hub library/alpine 3",
		"hub":                                      "ecr hub latest",
		"localhost:5000/registry-1.docker.io/x":    "hub library/x latest",
		"inner/x":                                  "inner x latest",
		"team/app:1@" + sum:                        "ecr team/app " + sum,
		"team/app@" + sum:                          "ecr team/app " + sum,
		"123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/app:v1.2_3-x": "ecr team/app v1.2_3-x",

		"ghcr.io/team/app":            `"ghcr.io" is not a name of dray or of one of its upstreams; write ecr/NAME, or set external_url`,
		"localhost/ghcr.io/app":       "ecr ghcr.io/app latest",
		"team/app:":                   "invalid tag",
		"team/app:a b":                "invalid tag",
		"team/app@sha256:12":          "invalid digest",
		"Team/App":                    "invalid repository name",
		"":                            "invalid repository name",
		"docker.io/":                  "invalid repository name",
		"/alpine":                     "invalid repository name",
		"a/../b":                      "invalid repository name",
		strings.Repeat("a/", 200):     "invalid repository name",
		"dray.example.com:5000/":      "invalid repository name",
		"dray.example.com:5000":       "ecr dray.example.com 5000",
		"docker.io/x:y:z":             "invalid repository name",
		"team/app@" + sum + "@" + sum: "invalid digest",
	} {
		target, ref, err := routes.Resolve(name)
		got := target.Upstream + " " + target.Repo + " " + ref.String()
		if err != nil {
			got = err.Error()
		}
		if got != want && (err == nil || !strings.Contains(got, want)) {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
	}
	if _, _, err := new(Table).Resolve("alpine"); err == nil {
		t.Error("resolved without an upstream")
	}
}

// FuzzResolve: whatever is written, what comes out can be asked for.
func FuzzResolve(f *testing.F) {
	for _, s := range []string{"docker.io/library/alpine:3", "a@b", ":", "@", "/", "localhost//x", "hub/x@sha256:", "[::1]/x:1", "x:\x00"} {
		f.Add(s)
	}
	routes := &Table{Own: []string{"dray"}, Order: []Route{{Upstream: "ecr"}, {Upstream: "hub", Hosts: []string{"docker.io"}, DefaultNamespace: "library"}}}
	f.Fuzz(func(t *testing.T, name string) {
		target, ref, err := routes.Resolve(name)
		if err != nil {
			return
		}
		again, ref2, err := routes.Resolve(target.Upstream + "/" + target.Repo + sep(ref.ByDigest()) + ref.String())
		if err != nil || again != target || ref2 != ref {
			t.Errorf("%q is %+v %v, which is %+v %v: %v", name, target, ref, again, ref2, err)
		}
	})
}

func sep(byDigest bool) string {
	if byDigest {
		return "@"
	}
	return ":"
}
