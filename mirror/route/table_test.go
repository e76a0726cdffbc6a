package route

import (
	"errors"
	"strings"
	"testing"

	"dray/upstream/oci"
)

func TestMatch(t *testing.T) {
	routes := &Table{
		Own: []string{"dray.example.com:5000"},
		Order: []Route{
			{Upstream: "ecr", Hosts: []string{"123456789012.dkr.ecr.eu-west-1.amazonaws.com"}, Prefixes: []string{"aws"}},
			{Upstream: "hub", Hosts: []string{"docker.io", "registry-1.docker.io", "hub.dray.example.com"}, Prefixes: []string{"hub", "mirrors/hub"}, DefaultNamespace: "library"},
			{Upstream: "quay", Hosts: []string{"quay.io", "reg.example.com:5443", "intern"}},
			{Upstream: "deep", Prefixes: []string{"deep", "hub/deep"}},
		},
	}
	for _, tc := range []struct {
		name, host, prefix, repo, ns string
		want                         Target
		err                          error
	}{
		{name: "plain name", repo: "team/app", want: Target{"ecr", "team/app", "team/app"}},
		{name: "plain short name gets no namespace where the route has none", repo: "app", want: Target{"ecr", "app", "app"}},
		{name: "base of the API", want: Target{Upstream: "ecr"}},
		{name: "Docker: prefix before /v2/", prefix: "hub", repo: "library/alpine", want: Target{"hub", "library/alpine", "hub/library/alpine"}},
		{name: "second prefix, one name", prefix: "mirrors/hub", repo: "alpine", want: Target{"hub", "library/alpine", "hub/library/alpine"}},
		{name: "base below a prefix", prefix: "hub", want: Target{Upstream: "hub"}},
		{name: "BuildKit, Podman: prefix after /v2/", repo: "hub/library/alpine", want: Target{"hub", "library/alpine", "hub/library/alpine"}},
		{name: "default namespace behind a prefix", repo: "hub/alpine", want: Target{"hub", "library/alpine", "hub/library/alpine"}},
		{name: "longest prefix", repo: "hub/deep/x", want: Target{"deep", "x", "deep/x"}},
		{name: "a prefix alone is a name", repo: "hub", want: Target{"ecr", "hub", "hub"}},
		{name: "a prefix is whole segments", repo: "hubble/x", want: Target{"ecr", "hubble/x", "hubble/x"}},
		{name: "containerd: ?ns=", repo: "library/alpine", ns: "docker.io", want: Target{"hub", "library/alpine", "hub/library/alpine"}},
		{name: "BuildKit: prefix after /v2/ and ?ns=", repo: "hub/library/alpine", ns: "docker.io", want: Target{"hub", "library/alpine", "hub/library/alpine"}},
		{name: "?ns= with a port", repo: "org/app", ns: "reg.example.com:5443", want: Target{"quay", "org/app", "quay/org/app"}},
		{name: "?ns= of the first route is a plain name", repo: "a", ns: "123456789012.dkr.ecr.eu-west-1.amazonaws.com", want: Target{"ecr", "a", "a"}},
		{name: "?ns= naming dray itself", repo: "a", ns: "dray.example.com:5000", want: Target{"ecr", "a", "a"}},
		{name: "unknown ?ns= is not the default", repo: "a", ns: "ghcr.io", err: oci.ErrNameUnknown},
		{name: "unknown prefix is not the default", prefix: "nope", repo: "a", err: oci.ErrNameUnknown},
		{name: "a registry name before /v2/ has no path", prefix: "quay.io/org", repo: "app", err: oci.ErrNameUnknown},
		{name: "Host header", host: "hub.dray.example.com", repo: "alpine", want: Target{"hub", "library/alpine", "hub/library/alpine"}},
		{name: "Host header with any port and case", host: "Hub.Dray.example.com:8443", repo: "alpine", want: Target{"hub", "library/alpine", "hub/library/alpine"}},
		{name: "Host header of dray", host: "dray.example.com:5000", repo: "a", want: Target{"ecr", "a", "a"}},
		{name: "a name at the first upstream that reads like one at another", prefix: "aws", repo: "hub/secret", want: Target{"ecr", "hub/secret", "aws/hub/secret"}},
		{name: "the same by the prefix after /v2/", repo: "aws/quay/secret", want: Target{"ecr", "quay/secret", "aws/quay/secret"}},
		{name: "a name at the first upstream that reads like its own prefix", prefix: "aws", repo: "aws/x", want: Target{"ecr", "aws/x", "aws/aws/x"}},
		{name: "a registry name after /v2/ is never asked of another upstream", repo: "quay.io/org/app", want: Target{"quay", "org/app", "quay/org/app"}},
		{name: "the same with the default namespace", repo: "registry-1.docker.io/alpine", want: Target{"hub", "library/alpine", "hub/library/alpine"}},
		{name: "BuildKit: registry name after /v2/ and ?ns=", repo: "quay.io/org/app", ns: "quay.io", want: Target{"quay", "org/app", "quay/org/app"}},
		{name: "a registry name before /v2/", prefix: "quay.io", repo: "org/app", want: Target{"quay", "org/app", "quay/org/app"}},
		{name: "base of a registry name before /v2/", prefix: "quay.io", want: Target{Upstream: "quay"}},
		{name: "a registry name alone is a name", repo: "quay.io", want: Target{"ecr", "quay.io", "quay.io"}},
		{name: "a registry name below a prefix is part of a name", repo: "aws/quay.io/org/app", want: Target{"ecr", "quay.io/org/app", "quay.io/org/app"}},
		{name: "a registry name in place of a prefix has a dot", repo: "intern/app", want: Target{"ecr", "intern/app", "intern/app"}},
		{name: "?ns= before Host", host: "hub.dray.example.com", repo: "a", ns: "quay.io", want: Target{"quay", "a", "quay/a"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := routes.Match(tc.host, oci.Request{Prefix: tc.prefix, Repo: tc.repo, Namespace: tc.ns})
			if got != tc.want || !errors.Is(err, tc.err) {
				t.Errorf("got %+v, %v; want %+v, %v", got, err, tc.want, tc.err)
			}
		})
	}
	if _, err := (&Table{}).Match("", oci.Request{Repo: "a"}); !errors.Is(err, oci.ErrNameUnknown) {
		t.Errorf("without routes: %v", err)
	}
}

// A route names what it allows and does not deny, however a client writes it.
func TestAllowedRepositories(t *testing.T) {
	routes := &Table{Order: []Route{
		{Upstream: "ecr", Deny: []string{"secret*", "*/secret"}},
		{Upstream: "hub", Hosts: []string{"docker.io"}, Prefixes: []string{"hub"}, DefaultNamespace: "library", Allow: []string{"library/*", "team/*"}, Deny: []string{"team/old"}},
		{Upstream: "quay", Hosts: []string{"quay.io"}},
	}}
	for _, tc := range []struct {
		q    oci.Request
		want string // the upstream that the error names, or "" if there is none
	}{
		{oci.Request{Repo: "app"}, ""}, {oci.Request{Repo: "secret"}, "ecr"}, {oci.Request{Repo: "secret/x"}, "ecr"}, {oci.Request{Repo: "a/b/secret"}, "ecr"}, {oci.Request{Repo: "a/secrets"}, ""},
		{oci.Request{}, ""}, {oci.Request{Prefix: "hub"}, ""},
		{oci.Request{Repo: "hub/alpine"}, ""}, {oci.Request{Prefix: "hub", Repo: "library/alpine"}, ""}, {oci.Request{Repo: "alpine", Namespace: "docker.io"}, ""},
		{oci.Request{Repo: "hub/team/app"}, ""}, {oci.Request{Repo: "hub/team/old"}, "hub"}, {oci.Request{Prefix: "hub", Repo: "team/old"}, "hub"},
		{oci.Request{Repo: "team/old", Namespace: "docker.io"}, "hub"}, {oci.Request{Repo: "docker.io/team/old"}, "hub"}, {oci.Request{Repo: "docker.io/other/app"}, "hub"},
		{oci.Request{Repo: "secret", Namespace: "quay.io"}, ""},
	} {
		got, err := routes.Match("", tc.q)
		switch {
		case tc.want == "" && (err != nil || got.Upstream == ""):
			t.Errorf("%+v: %v", tc.q, err)
		case tc.want != "" && (!errors.Is(err, oci.ErrDenied) || !strings.Contains(err.Error(), " of the upstream "+tc.want+", ") || got != Target{}):
			t.Errorf("%+v: %+v, %v", tc.q, got, err)
		}
	}
	for repo, want := range map[string]bool{"library/alpine": true, "team/old": false, "other/x": false} {
		if _, ok := routes.At("hub", repo); ok != want {
			t.Errorf("%s can be named: %t", repo, ok)
		}
	}
	if target, _, err := routes.Resolve("hub/team/old"); err != nil || target.Repo != "team/old" {
		t.Errorf("an operator cannot name what the cache has: %+v, %v", target, err)
	}
}

// A name that begins like that of a registry gets a text that says what to do.
func TestNamesOfOtherRegistries(t *testing.T) {
	routes := &Table{Order: []Route{
		{Upstream: "hub", Hosts: []string{"docker.io"}, Prefixes: []string{"docker.io"}, DefaultNamespace: "library", NoDots: true},
		{Upstream: "quay", Hosts: []string{"quay.io"}},
		{Upstream: "ecr", Prefixes: []string{"aws"}},
	}}
	const add, shorten = "add ghcr.io to upstreams", "leave out what is before quay.io"
	for _, tc := range []struct {
		q         oci.Request
		err, hint string
	}{
		{oci.Request{Repo: "ghcr.io/org/app"}, add, ""}, {oci.Request{Prefix: "docker.io", Repo: "ghcr.io/org/app"}, add, ""},
		{oci.Request{Repo: "docker.io/ghcr.io/org/app"}, add, ""}, {oci.Request{Repo: "ghcr.io/org/app", Namespace: "docker.io"}, add, ""},
		{oci.Request{Repo: "org/app", Namespace: "ghcr.io"}, "no upstream of this listener serves the registry", ""},
		{oci.Request{Repo: "docker.io/quay.io/org/app"}, shorten, ""}, {oci.Request{Repo: "quay.io/org/app", Namespace: "docker.io"}, shorten, ""},
		{oci.Request{Repo: "aws/ghcr.io/org/app"}, "", add}, {oci.Request{Repo: "aws/quay.io/org/app"}, "", shorten}, {oci.Request{Repo: "quay.io/ghcr.io/app"}, "", add},
		{oci.Request{Repo: "org/app"}, "", ""}, {oci.Request{Repo: "ghcr.io"}, "", ""}, {oci.Request{Repo: "aws/org/app.v1"}, "", ""}, {oci.Request{}, "", ""},
	} {
		got, err := routes.Match("", tc.q)
		if tc.err != "" {
			if !errors.Is(err, oci.ErrNameUnknown) || !strings.Contains(err.Error(), tc.err) || got != (Target{}) {
				t.Errorf("%+v: %+v, %v", tc.q, got, err)
			}
			continue
		}
		if hint := routes.Hint(got); err != nil || (hint == "") != (tc.hint == "") || !strings.Contains(hint, tc.hint) {
			t.Errorf("%+v: hint %q, %v", tc.q, hint, err)
		}
	}
}

// FuzzMatchName: rights are given by name, so one name must mean one repository.
func FuzzMatchName(f *testing.F) {
	routes := &Table{Order: []Route{
		{Upstream: "ecr", Prefixes: []string{"aws"}}, {Upstream: "hub", Prefixes: []string{"hub"}, DefaultNamespace: "library"}, {Upstream: "quay", Hosts: []string{"quay.io"}},
	}}
	if err := routes.Check(); err != nil {
		f.Fatal(err)
	}
	f.Add("aws", "hub/secret", "", "", "secret", "docker.io")
	f.Add("", "quay/x", "", "", "x", "quay.io")
	f.Add("", "aws/aws/x", "", "aws", "x", "")
	f.Fuzz(func(t *testing.T, prefix1, repo1, ns1, prefix2, repo2, ns2 string) {
		if oci.CheckRepo(repo1) != nil || oci.CheckRepo(repo2) != nil {
			t.Skip()
		}
		a, err1 := routes.Match("", oci.Request{Prefix: prefix1, Repo: repo1, Namespace: ns1})
		b, err2 := routes.Match("", oci.Request{Prefix: prefix2, Repo: repo2, Namespace: ns2})
		if err1 == nil && err2 == nil && (a.Name == b.Name) != (a.Upstream == b.Upstream && a.Repo == b.Repo) {
			t.Fatalf("%+v and %+v", a, b)
		}
	})
}

func TestCheck(t *testing.T) {
	for _, tc := range []struct {
		routes Table
		ok     bool
	}{
		{Table{Order: []Route{{Upstream: "a"}, {Upstream: "b", Prefixes: []string{"a2"}}}}, true},
		{Table{Order: []Route{{Upstream: "a"}, {Upstream: "b", Prefixes: []string{"a"}}}}, false},
		{Table{Order: []Route{{Upstream: "a", Prefixes: []string{"x"}}, {Upstream: "b", Prefixes: []string{"x/y"}}}}, false},
		{Table{Order: []Route{{Upstream: "a", Prefixes: []string{"x/y"}}, {Upstream: "x"}}}, false},
	} {
		if err := tc.routes.Check(); (err == nil) != tc.ok {
			t.Errorf("%+v: %v", tc.routes, err)
		}
	}
}
