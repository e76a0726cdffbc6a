package setup

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dray/cmd/dray/certificates"
	"dray/cmd/dray/config"
	"dray/cmd/dray/setup/install"
	"dray/cmd/dray/usage"
)

var update = flag.Bool("update", false, "write golden files anew")

// nothing is a machine without files.
func nothing(m mirror, v string) setting {
	version, _ := parseVersion(v)
	return setting{mirror: m, version: version, dialTimeout: 200 * time.Millisecond,
		read: func(string) ([]byte, error) { return nil, fs.ErrNotExist }, glob: func(string) []string { return nil }}
}

// TestPlans shows the files and the notes of each client for mirrors and versions that differ.
func TestPlans(t *testing.T) {
	hub, quay := registry{name: "docker.io", prefix: "docker.io"}, registry{name: "quay.io", prefix: "quay.io"}
	ecr := registry{name: "123456789012.dkr.ecr.eu-west-1.amazonaws.com"}
	secure := mirror{scheme: "https", host: "dray.example.com", registries: []registry{hub, quay}, plain: true, authority: []byte("CERTIFICATE\n")}
	local := mirror{scheme: "http", host: "127.0.0.1:5000", registries: []registry{hub}, plain: true}
	private := mirror{scheme: "http", host: "dray.example.com:8080", registries: []registry{ecr, {"docker.io", "hub", true}}, auth: true}
	var b strings.Builder
	for _, tc := range []struct {
		client, version string
		mirror          mirror
	}{
		{"docker", "20.10", secure}, {"docker", "29.1", secure}, {"docker", "", local}, {"docker", "28", private}, {"docker", "23", private},
		{"containerd", "1.4", local}, {"containerd", "1.6", secure}, {"containerd", "2.1", local}, {"containerd", "2.2", local}, {"containerd", "2.4", secure}, {"containerd", "", private},
		{"k3s", "1.33", secure}, {"k3s", "", private},
		{"buildkit", "", secure}, {"buildkit", "", private},
		{"podman", "", secure}, {"podman", "4.3", private},
	} {
		fmt.Fprintf(&b, "==== %s %s, %s\n", tc.client, tc.version, tc.mirror.url())
		for _, c := range clients {
			if c.name != tc.client {
				continue
			}
			p, err := c.plan(nothing(tc.mirror, tc.version))
			r := &report{Notes: p.notes}
			if err = errors.Join(err, r.show(p)); err != nil {
				fmt.Fprintf(&b, "error: %v\n", err)
				continue
			}
			var out, notes bytes.Buffer
			if err := r.print(Options{Stdout: &out, Stderr: &notes}, false); err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&b, "%s\n%s\n", out.String(), notes.String())
		}
	}
	const golden = "testdata/plans.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("%s is not current (go test ./cmd/dray/setup -update writes it anew):\n%s", golden, diff)
	}
}

const hosts = "[host.\"http://127.0.0.1:5000\"]\n  capabilities = [\"pull\", \"resolve\"]\n  dial_timeout = \"200ms\"\n"

// TestMerges: what people have written stays, or the file is left alone.
func TestMerges(t *testing.T) {
	m := mirror{scheme: "http", host: "127.0.0.1:5000", registries: []registry{{name: "docker.io", prefix: "docker.io"}}, plain: true}
	secure := m
	secure.scheme, secure.authority = "https", []byte("CERTIFICATE\n")
	const cri2, cri3 = "[plugins.\"io.containerd.grpc.v1.cri\".registry]\n", "[plugins.\"io.containerd.cri.v1.images\".registry]\n"
	const path = "  config_path = \"/etc/containerd/certs.d\"\n"
	for name, tc := range map[string]struct {
		client, version, path string
		mirror                mirror
		old, want, err        string
	}{
		"hosts.toml with another mirror": {"containerd", "1.6", "/etc/containerd/certs.d/docker.io/hosts.toml", m,
			"server = \"https://mirror.example\" # ours\n[host.\"https://b\"]\n", "server = \"https://mirror.example\" # ours\n\n" + hosts + "\n[host.\"https://b\"]\n", ""},
		"hosts.toml as it is printed": {"containerd", "1.6", "/etc/containerd/certs.d/docker.io/hosts.toml", m,
			"server = \"https://registry-1.docker.io\"\n" + hosts + "[host.\"https://b\"]\n", "server = \"https://registry-1.docker.io\"\n" + hosts + "[host.\"https://b\"]\n", ""},
		"hosts.toml with other values": {"containerd", "1.6", "/etc/containerd/certs.d/docker.io/hosts.toml", m,
			"[host.\"http://127.0.0.1:5000\"]\n  capabilities = [\"pull\"]\n", "", "section for http://127.0.0.1:5000 with other values"},
		"hosts.toml that is broken": {"containerd", "1.6", "/etc/containerd/certs.d/docker.io/hosts.toml", m, "[host", "", "not TOML"},

		"config.toml without the plugin":     {"containerd", "1.6", containerdConfig, m, "version = 2 # v\n", "version = 2 # v\n\n" + cri2 + path, ""},
		"config.toml with an empty path":     {"containerd", "2.0", containerdConfig, m, "version = 3\n" + cri3 + "  config_path = ''\n", "version = 3\n" + cri3 + path, ""},
		"config.toml of a former form":       {"containerd", "2.0", containerdConfig, m, "version = 2\n" + cri2, "version = 2\n" + cri2 + path, ""},
		"config.toml with the path":          {"containerd", "1.6", containerdConfig, m, "version = 2\n" + cri2 + path, "", ""},
		"config.toml with two paths":         {"containerd", "2.4", containerdConfig, m, "version = 3\n" + cri3 + "config_path = \"/a:/etc/containerd/certs.d\"\n", "", ""},
		"config.toml with another path":      {"containerd", "2.4", containerdConfig, m, "version = 3\n" + cri3 + "config_path = \"/a\"\n", "", "its config_path is /a"},
		"config.toml of containerd 2.3":      {"containerd", "2.3", containerdConfig, m, "version = 3\n", "", ""},
		"config.toml with mirrors":           {"containerd", "2.4", containerdConfig, m, "version = 3\n" + cri3 + "[plugins.\"io.containerd.cri.v1.images\".registry.mirrors.\"quay.io\"]\n", "", "registry.mirrors for quay.io"},
		"config.toml without Kubernetes":     {"containerd", "1.6", containerdConfig, m, "disabled_plugins = [\"cri\"]\n", "", ""},
		"config.toml without a version":      {"containerd", "1.6", containerdConfig, m, "root = \"/x\"\n", "", "it has no version"},
		"daemon.json with a mirror":          {"docker", "20.10", dockerConfig, m, "{\n  \"registry-mirrors\": [\"https://b\"]\n}\n", "{\n  \"registry-mirrors\": [\"http://127.0.0.1:5000\", \"https://b\"]\n}\n", ""},
		"daemon.json with this mirror":       {"docker", "20.10", dockerConfig, m, "{\"registry-mirrors\": [\"http://127.0.0.1:5000/\"]}", "{\"registry-mirrors\": [\"http://127.0.0.1:5000/\"]}", ""},
		"certificate beside another":         {"docker", "29", "/etc/docker/certs.d/127.0.0.1:5000/ca.crt", secure, "OTHER", "OTHER\nCERTIFICATE\n", ""},
		"certificate there":                  {"docker", "29", "/etc/docker/certs.d/127.0.0.1:5000/ca.crt", secure, "A\nCERTIFICATE\nB\n", "A\nCERTIFICATE\nB\n", ""},
		"registries.yaml":                    {"k3s", "", k3sRegistries, secure, "mirrors:\n  docker.io: # hub\n    endpoint: [\"https://b\"]\nconfigs:\n  b: {auth: {username: u}}\n", "mirrors:\n  docker.io: # hub\n    endpoint: ['https://127.0.0.1:5000', \"https://b\"]\nconfigs:\n  b: {auth: {username: u}}\n  127.0.0.1:5000:\n    tls:\n      ca_file: /etc/rancher/k3s/dray.pem\n", ""},
		"registries.yaml with a certificate": {"k3s", "", k3sRegistries, secure, "configs: {\"127.0.0.1:5000\": {tls: {ca_file: /x}}}\n", "", "already trusts /x"},
		"registries.yaml of another form":    {"k3s", "", k3sRegistries, m, "mirrors: [docker.io]\n", "", "line 1: the value of mirrors must be a mapping"},
		"buildkitd.toml":                     {"buildkit", "", buildkitConfig, secure, "debug = true\n[registry.\"docker.io\"]\n  mirrors = [\"b\"]\n", "debug = true\n[registry.\"docker.io\"]\n  mirrors = [\"127.0.0.1:5000/docker.io\", \"b\"]\n\n[registry.\"127.0.0.1:5000\"]\n  ca = [\"/etc/buildkit/dray.pem\"]\n  http = false\n", ""},
		"buildkitd.toml, plain HTTP":         {"buildkit", "", buildkitConfig, m, "[registry.\"127.0.0.1:5000\"]\n  http = false\n", "[registry.\"127.0.0.1:5000\"]\n  http = true\n\n[registry.\"docker.io\"]\n  mirrors = [\"127.0.0.1:5000/docker.io\"]\n", ""},
		"50-dray.conf for another registry":  {"podman", "", podmanConfig, m, "# mine\n[[registry]]\nlocation = \"quay.io\"\n", "# mine\n[[registry]]\nlocation = \"quay.io\"\n\n[[registry]]\nprefix = \"docker.io\"\nlocation = \"docker.io\"\n\n[[registry.mirror]]\nlocation = \"127.0.0.1:5000/docker.io\"\ninsecure = true\n", ""},
		"50-dray.conf for this registry":     {"podman", "", podmanConfig, m, "[[registry]]\nlocation = \"docker.io\"\n", "", "[[registry]] for docker.io with other values"},
	} {
		var merge func([]byte) ([]byte, error)
		for _, c := range clients {
			if c.name != tc.client {
				continue
			}
			p, err := c.plan(nothing(tc.mirror, tc.version))
			if err != nil {
				t.Fatal(err)
			}
			for _, change := range p.changes {
				if change.Path == tc.path {
					merge = change.Merge
				}
			}
		}
		got, err := merge([]byte(tc.old))
		if tc.err != "" {
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%s: error %v, want %q", name, err, tc.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(tc.want, string(got)); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
		if got == nil {
			continue
		}
		if again, err := merge(got); err != nil || again != nil && !bytes.Equal(again, got) {
			t.Errorf("%s: merged again: %v\n%s", name, err, again)
		}
	}
}

// TestPodmanElsewhere: an entry of Podman's that another file has is not replaced.
func TestPodmanElsewhere(t *testing.T) {
	for name, tc := range map[string]struct{ path, text, err string }{
		"main file":          {"/etc/containers/registries.conf", "[[registry]]\nlocation = \"docker.io\"\n", "registries.conf has a [[registry]] for docker.io"},
		"another file":       {"/etc/containers/registries.conf.d/10-x.conf", "[[registry]]\nprefix = \"docker.io\"\n", "10-x.conf has a [[registry]] for docker.io"},
		"a broken file":      {"/etc/containers/registries.conf.d/10-x.conf", "[[", "10-x.conf: it is not TOML"},
		"version 1":          {"/etc/containers/registries.conf", "[registries.search]\nregistries = ['docker.io']\n", "form of version 1"},
		"another registry":   {"/etc/containers/registries.conf", "[[registry]]\nlocation = \"quay.io\"\n", ""},
		"names without host": {"/etc/containers/registries.conf", "unqualified-search-registries = ['docker.io']\n", ""},
	} {
		s := nothing(mirror{scheme: "https", host: "m"}, "")
		s.glob = func(string) []string { return []string{podmanConfig, "/etc/containers/registries.conf.d/10-x.conf"} }
		s.read = func(path string) ([]byte, error) {
			if path == tc.path {
				return []byte(tc.text), nil
			}
			return nil, fs.ErrNotExist
		}
		_, err := s.podmanMerge(nil, []registry{{name: "docker.io", prefix: "docker.io"}})
		if (err != nil) != (tc.err != "") || err != nil && !strings.Contains(err.Error(), tc.err) {
			t.Errorf("%s: %v, want %q", name, err, tc.err)
		}
	}
}

func TestParseVersion(t *testing.T) {
	for text, want := range map[string]string{
		"containerd github.com/containerd/containerd v2.1.4 75cb2b7193e4e490e9fbdc236c0e811ccaba3376": "2.1",
		"containerd containerd.io 1.7.27 05044ec0a9a75232cad458027ca83437aae3f4da":                    "1.7",
		"Docker version 29.1.3, build f52814d":                                                        "29.1",
		"podman version 4.3.1":                                                                        "4.3",
		"k3s version v1.33.4+k3s1 (148243c4)\ngo version go1.24.5":                                    "1.33",
		"29": "29.0", "v2": "2.0",
		"buildkitd github.com/moby/buildkit 0.0.0+unknown": "unknown", "dev": "unknown", "": "unknown",
	} {
		if v, _ := parseVersion(text); v.String() != want {
			t.Errorf("%q: %s, want %s", text, v, want)
		}
	}
	for _, tc := range []struct {
		version      string
		before, from bool // 2.2
	}{{"1.6", true, false}, {"2.1", true, false}, {"2.2", false, true}, {"2.10", false, true}, {"3.0", false, true}, {"", false, false}} {
		v, _ := parseVersion(tc.version)
		if v.before(2, 2) != tc.before || v.from(2, 2) != tc.from {
			t.Errorf("%q: before 2.2: %t, from 2.2: %t", tc.version, v.before(2, 2), v.from(2, 2))
		}
	}
}

// TestHostsOnly: containerd's own configuration is left alone, and a note says what it needs.
func TestHostsOnly(t *testing.T) {
	s := nothing(mirror{scheme: "http", host: "127.0.0.1:5000", registries: []registry{{name: "docker.io"}, {name: "quay.io"}}}, "1.7")
	for _, only := range []bool{true, false} {
		s.hostsOnly = only
		p, err := containerd(s)
		if err != nil {
			t.Fatal(err)
		}
		if got := slices.ContainsFunc(p.changes, func(c install.Change) bool { return c.Path == containerdConfig }); got == only || len(p.changes) < 2 {
			t.Errorf("hosts only %t: %d changes, of config.toml: %t", only, len(p.changes), got)
		}
		if got := strings.Contains(strings.Join(p.notes, "\n"), `config_path = "/etc/containerd/certs.d"`); got != only {
			t.Errorf("hosts only %t: notes %q", only, p.notes)
		}
	}
}

// certificate makes one that is its own authority, and returns its file, with the key behind it.
func certificate(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	cmd := certificates.Command(&bytes.Buffer{})
	cmd.SetArgs([]string{"--host", "dray.example.com", "--out-cert", cert, "--out-key", key})
	if err := cmd.Execute(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(cert, os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = f.Write(text)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestMirror(t *testing.T) {
	cert := certificate(t)
	const two = "upstreams: [{url: docker.io, prefixes: [hub]}, {url: quay.io}, {name: builds, kind: local, prefixes: [builds]}]\n"
	for name, tc := range map[string]struct {
		config string
		flags  mirrorFlags
		want   string // url, registries, and what else there is
		err    string
	}{
		"nothing":                  {"", mirrorFlags{}, "http://127.0.0.1:5000 docker.io=docker.io plain", ""},
		"external URL":             {"listeners: [{address: \":5000\", external_url: \"https://dray.example.com\"}]\n" + two, mirrorFlags{}, "https://dray.example.com docker.io=hub quay.io=quay.io plain", ""},
		"every interface":          {"listeners: [{address: \":5000\"}]\n", mirrorFlags{}, "", "is not an address that clients can use; set external_url"},
		"the mirror of two":        {"listeners: [{name: r, address: \"127.0.0.1:1\", role: registry}, {name: m, address: \"127.0.0.1:2\", role: mirror, upstreams: [quay.io, docker.io]}]\n" + two, mirrorFlags{}, "http://127.0.0.1:2 quay.io=quay.io docker.io=hub", ""},
		"a listener by name":       {"listeners: [{name: r, address: \"127.0.0.1:1\"}, {name: m, address: \"127.0.0.1:2\", role: mirror}]\n", mirrorFlags{listener: "r"}, "http://127.0.0.1:1 docker.io=docker.io plain", ""},
		"no such listener":         {"", mirrorFlags{listener: "x"}, "", "--listener x: the configuration has no such listener"},
		"its own authority":        {"listeners: [{address: \"127.0.0.1:1\", tls: {certificate: CERT, private_key: CERT}}]\n", mirrorFlags{}, "https://127.0.0.1:1 docker.io=docker.io plain certificate", ""},
		"no such file":             {"listeners: [{address: \"127.0.0.1:1\", tls: {certificate: CERT.x, private_key: CERT}}]\n", mirrorFlags{}, "", "cert.pem.x: no such file"},
		"a registry with a port":   {"upstreams: [ghcr.io, \"quay.example.com:5443\"]\n", mirrorFlags{}, "http://127.0.0.1:5000 ghcr.io=ghcr.io quay.example.com:5443=", ""},
		"local upstreams alone":    {"upstreams: [{name: builds, kind: local, prefixes: [builds]}]\n", mirrorFlags{}, "", "set --registry"},
		"local, and registries":    {"upstreams: [{name: builds, kind: local, prefixes: [builds]}]\n", mirrorFlags{registries: []string{"quay.io=q"}}, "http://127.0.0.1:5000 quay.io=q/ challenge", ""},
		"a URL":                    {"bad", mirrorFlags{url: "https://Dray.example.com/"}, "https://dray.example.com docker.io=docker.io plain", ""},
		"a URL, registries":        {"bad", mirrorFlags{url: "http://d:1", registries: []string{"quay.io", "docker.io=hub"}}, "http://d:1 quay.io=quay.io docker.io=hub/ plain", ""},
		"a URL, certificate":       {"bad", mirrorFlags{url: "https://d", authority: "CERT"}, "https://d docker.io=docker.io plain certificate", ""},
		"a certificate, HTTP":      {"bad", mirrorFlags{url: "http://d", authority: "CERT"}, "", "no certificate, because it is plain HTTP"},
		"a URL with a path":        {"bad", mirrorFlags{url: "https://d/hub"}, "", "--registry docker.io=PREFIX"},
		"a URL with a password":    {"bad", mirrorFlags{url: "https://u:SECRET@d"}, "", "leave out the user and the password"},
		"a password, no scheme":    {"bad", mirrorFlags{url: "u:SECRET@d"}, "", "--url: not a URL"},
		"a password, no HTTP":      {"bad", mirrorFlags{url: "ftp://u:SECRET@d"}, "", "--url: not a URL"},
		"a token in a query":       {"bad", mirrorFlags{url: "https://d?token=SECRET"}, "", "leave out what follows the host"},
		"a registry with a user":   {"bad", mirrorFlags{url: "https://d", registries: []string{"https://u:SECRET@quay.io"}}, "", "--registry quay.io: not the name of a registry"},
		"no URL":                   {"bad", mirrorFlags{url: "dray.example.com"}, "", "not a URL"},
		"no registry":              {"bad", mirrorFlags{url: "https://d", registries: []string{"quay.io/x"}}, "", "not the name of a registry"},
		"a registry that injects":  {"bad", mirrorFlags{url: "https://d", registries: []string{"a\"b"}}, "", "not the name of a registry"},
		"a registry twice":         {"bad", mirrorFlags{url: "https://d", registries: []string{"a", "a"}}, "", "named twice"},
		"a bad configuration":      {"cash: 1\n", mirrorFlags{}, "", "no configuration is needed if you set --url"},
		"credentials wanted there": {"listeners: [{address: \"127.0.0.1:1\", auth: a}]\nauth: [{name: a, htpasswd: {file: CERT}}]\n", mirrorFlags{}, "http://127.0.0.1:1 docker.io=docker.io plain auth", ""},
		"credentials asked for":    {"listeners: [{address: \"127.0.0.1:1\", auth: a, challenge: true}]\nauth: [{name: a, htpasswd: {file: CERT}}]\n", mirrorFlags{}, "http://127.0.0.1:1 docker.io=docker.io plain auth challenge", ""},
		"credentials of pushers":   {"listeners: [{address: \"127.0.0.1:1\", role: registry, auth: a}]\nauth: [{name: a, htpasswd: {file: CERT}}]\nupstreams: [{url: \"https://quay.io\", push: true}]\n", mirrorFlags{}, "http://127.0.0.1:1 quay.io=quay.io auth challenge", ""},
	} {
		load := func() (config.Config, error) {
			file := filepath.Join(t.TempDir(), "dray.yaml")
			if err := os.WriteFile(file, []byte(strings.ReplaceAll(tc.config, "CERT", cert)), 0o600); err != nil {
				t.Fatal(err)
			}
			return config.Load(file, nil)
		}
		if tc.flags.authority != "" {
			tc.flags.authority = cert
		}
		m, _, err := tc.flags.find(load)
		if tc.err != "" {
			if err == nil || !strings.Contains(err.Error(), tc.err) || strings.Contains(err.Error(), "SECRET") {
				t.Errorf("%s: error %v, want %q", name, err, tc.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		got := m.url()
		for _, r := range m.registries {
			got += " " + r.name + "=" + r.prefix
			if r.byPath {
				got += "/"
			}
		}
		if m.plain {
			got += " plain"
		}
		if m.auth {
			got += " auth"
		}
		if m.challenge {
			got += " challenge"
		}
		if m.authority != nil {
			got += " certificate"
		}
		if got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
		if bytes.Contains(m.authority, []byte("PRIVATE")) {
			t.Errorf("%s: the certificate has the private key", name)
		}
	}
}

// TestCommand runs the subcommand on a directory that stands for a machine.
func TestCommand(t *testing.T) {
	root := t.TempDir()
	daemon := filepath.Join(root, "/etc/docker/daemon.json")
	run := func(args ...string) (stdout, stderr string, err error) {
		var out, errs bytes.Buffer
		cmd := Command(Options{Stdout: &out, Stderr: &errs, Load: func() (config.Config, error) { return config.Load("", nil) }})
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		cmd.SetArgs(args)
		err = cmd.ExecuteContext(t.Context())
		return out.String(), errs.String(), err
	}
	for _, tc := range []struct {
		args                string
		stdout, stderr, err string
		file                string // daemon.json after it
	}{
		{"docker", "# /etc/docker/daemon.json\n{\n  \"registry-mirrors\": [\"http://127.0.0.1:5000\"]\n}\n", "then run: systemctl reload docker", "", ""},
		{"docker --undo", "nothing to do\n", "", "", ""},
		{"docker --write", "+  \"registry-mirrors\": [\"http://127.0.0.1:5000\"]", "then run: systemctl reload docker", "", "http://127.0.0.1:5000"},
		{"docker --write", "unchanged: /etc/docker/daemon.json\n", "", "", "http://127.0.0.1:5000"},
		{"docker --write --url https://dray.example.com", "written: /etc/docker/daemon.json\n", "", "", "https://dray.example.com"},
		{"docker --write --json", `"state": "written"`, "", "", "http://127.0.0.1:5000"},
		{"docker --undo", "removed: /etc/docker/daemon.json\n", "", "", ""},
		{"docker --undo --write", "", "", "either --write or --undo", ""},
		{"docker --client-version new", "", "", "--client-version new: not a version", ""},
		{"docker one", "", "", "takes no argument", ""},
		{"rkt", "", "", `does not know the client "rkt"`, ""},
		{"containerd --client-version 1.4", "", "", "install 1.5 or later", ""},
	} {
		stdout, stderr, err := run(append(strings.Fields(tc.args), "--root", root)...)
		if !strings.Contains(stdout, tc.stdout) || !strings.Contains(stderr, tc.stderr) || (err != nil) != (tc.err != "") || err != nil && !strings.Contains(err.Error(), tc.err) {
			t.Errorf("%s: %v\n%s\n%s", tc.args, err, stdout, stderr)
		}
		text, err := os.ReadFile(daemon)
		if tc.file == "" && !errors.Is(err, fs.ErrNotExist) || !strings.Contains(string(text), tc.file) || strings.Count(string(text), "http") > 1 {
			t.Errorf("%s: daemon.json has %q, %v", tc.args, text, err)
		}
	}
	if err := os.MkdirAll(filepath.Dir(daemon), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(daemon, []byte("{ // why\n}"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, stderr, err := run("docker", "--write", "--root", root)
	if err == nil || errors.Is(err, usage.Err) || !strings.Contains(stderr, "/etc/docker/daemon.json is left alone: it is not a JSON object") {
		t.Errorf("a file with a comment: %v\n%s", err, stderr)
	}
}

// TestVersionIsAsked: the client of this machine says which version it is.
func TestVersionIsAsked(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	for script, want := range map[string]bool{"echo containerd github.com/containerd/containerd v2.2.0 abc": true, "echo v1.7.27": false, "exit 1": false, "": false} {
		if script != "" {
			if err := os.WriteFile(filepath.Join(dir, "containerd"), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		var out bytes.Buffer
		cmd := Command(Options{Stdout: &out, Stderr: &bytes.Buffer{}})
		cmd.SetArgs([]string{"containerd", "--url", "https://dray.example.com"})
		if err := cmd.ExecuteContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(out.String(), "referrers"); got != want {
			t.Errorf("%q: referrers %t, want %t", script, got, want)
		}
		_ = os.Remove(filepath.Join(dir, "containerd"))
	}
}
