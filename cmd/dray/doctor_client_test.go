package main

import (
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dray/cmd/dray/doctor"
)

// clientFile is the main file of each client.
var clientFile = map[string]string{
	"docker": "/etc/docker/daemon.json", "containerd": "/etc/containerd/certs.d/docker.io/hosts.toml", "k3s": "/etc/rancher/k3s/registries.yaml",
	"buildkit": "/etc/buildkit/buildkitd.toml", "podman": "/etc/containers/registries.conf.d/50-dray.conf",
}

// examined is what dray doctor finds about a client whose files are below a directory, by id.
func examined(t *testing.T, root, client, address, image string) (code int, found map[string]doctor.Finding) {
	t.Helper()
	code, stdout, stderr := runDray(t, nil, "doctor", "--json", "--root", root, "--client", client, address, image)
	var r doctor.Report
	if err := json.Unmarshal([]byte(stdout), &r); err != nil {
		t.Fatalf("%d %s%s", code, stdout, stderr)
	}
	found = map[string]doctor.Finding{}
	for _, f := range r.Findings {
		found[f.ID] = f
	}
	return code, found
}

// TestDoctorOfClientWithoutMirror: a version of a client that uses no mirror for a registry is not
// fine, although there is no file that would have to change.
func TestDoctorOfClientWithoutMirror(t *testing.T) {
	s := startStack(t, t.TempDir(), "prefixes: [hub]", "prefixes: [quay.io]")
	seed(t, s.hub, "prometheus/prometheus", "v3", 1<<10)
	code, stdout, stderr := runDray(t, nil, "doctor", "--root", t.TempDir(), "--client", "docker", "--client-version", "27.0.0", s.url, "quay.io/prometheus/prometheus:v3")
	if code != exitRejected || !strings.Contains(stdout, "uses no mirror for quay.io") {
		t.Errorf("%d %s%s", code, stdout, stderr)
	}
}

// TestDoctorOfClients: with the files that dray setup writes, all is well for each client. Without
// its main file, the client does not use the mirror.
func TestDoctorOfClients(t *testing.T) {
	s := startStack(t, t.TempDir(), "upstreams: [ecr, hub]", "upstreams: [hub, ecr]", "prefixes: [hub]", "prefixes: [docker.io]")
	seed(t, s.hub, "library/alpine", "3", 1<<10)
	for client, file := range clientFile {
		root := t.TempDir()
		code, found := examined(t, root, client, s.url, "alpine:3")
		if f := found["client.file."+file]; code != exitRejected || f.Status != doctor.Failed || !strings.Contains(f.Hint, "dray setup "+client+" --url "+s.url+" --registry docker.io --write") || f.Doc != "docs/doctor.md#client" {
			t.Errorf("%s without files: %d %+v", client, code, found)
		}
		if code, _, stderr := runDray(t, nil, "setup", client, "--url", s.url, "--root", root, "--write"); code != 0 {
			t.Fatalf("%s: %s", client, stderr)
		}
		code, found = examined(t, root, client, s.url, "alpine:3")
		for id, f := range found {
			if f.Status != doctor.OK || f.Doc != "" {
				t.Errorf("%s: %s: %+v", client, id, f)
			}
		}
		if f := found["image.manifest"]; code != exitOK || len(found) < 5 || !strings.Contains(f.Text, "docker.io/library/alpine:3 gets sha256:") {
			t.Errorf("%s: %d %+v", client, code, found)
		}
	}
}

// TestDoctorOfBrokenClients: what is broken is found, and nothing else.
func TestDoctorOfBrokenClients(t *testing.T) {
	s := startStack(t, t.TempDir(), "upstreams: [ecr, hub]", "upstreams: [hub, ecr]")
	seed(t, s.hub, "library/alpine", "3", 1<<10)
	mirror, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(mirror)
	secure := httptest.NewUnstartedServer(proxy)
	secure.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0) // handshakes fail
	secure.StartTLS()
	defer secure.Close()
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) }))
	defer other.Close()
	locked := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Request-Id", r.Header.Get("X-Request-Id"))
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer locked.Close()
	old := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Request-Id", r.Header.Get("X-Request-Id"))
		w.Header().Set("X-Cache", "stale")
		w.Header().Set("Warning", `110 - "Response is Stale"`)
	}))
	defer old.Close()
	down := "http://" + deaf(t)
	for _, tc := range []struct {
		name, client, address, image string
		broken                       func(root string)
		want                         map[string]doctor.Status // what is not well
	}{
		{"nothing listens", "docker", down, "alpine:3", nil, map[string]doctor.Status{
			"mirror.reached": doctor.Failed, "mirror.trusted": doctor.Unknown, "mirror.used": doctor.Unknown, "image.manifest": doctor.Unknown}},
		{"something else listens", "docker", other.URL, "alpine:3", nil, map[string]doctor.Status{"mirror.used": doctor.Failed, "image.manifest": doctor.Failed}},
		{"a certificate that nobody knows", "docker", secure.URL, "alpine:3", nil, map[string]doctor.Status{
			"mirror.reached": doctor.Failed, "mirror.trusted": doctor.Failed, "mirror.used": doctor.Unknown, "image.manifest": doctor.Unknown}},
		{"TLS to a listener without it", "docker", strings.Replace(s.url, "http:", "https:", 1), "alpine:3", nil, map[string]doctor.Status{
			"mirror.reached": doctor.Failed, "mirror.trusted": doctor.Failed, "mirror.used": doctor.Unknown, "image.manifest": doctor.Unknown}},
		{"Docker needs a login", "docker", locked.URL, "alpine:3", nil, map[string]doctor.Status{"mirror.reached": doctor.Failed, "image.manifest": doctor.Unknown}},
		{"containerd needs a login", "containerd", locked.URL, "alpine:3", nil, map[string]doctor.Status{"mirror.reached": doctor.Warning, "image.manifest": doctor.Unknown}},
		{"no such image", "docker", s.url, "alpine:4", nil, map[string]doctor.Status{"image.manifest": doctor.Failed}},
		{"an old answer", "docker", old.URL, "alpine:3", nil, map[string]doctor.Status{"image.manifest": doctor.Warning}},
		{"another value", "containerd", down, "alpine:3", func(root string) {
			edit(t, root+clientFile["containerd"], `dial_timeout = "200ms"`, `dial_timeout = "9s"`)
		}, map[string]doctor.Status{"client.file." + clientFile["containerd"]: doctor.Warning, "mirror.reached": doctor.Failed, "mirror.trusted": doctor.Unknown, "mirror.used": doctor.Unknown, "image.manifest": doctor.Unknown}},
		{"a file that is none", "docker", other.URL, "alpine:3", func(root string) {
			edit(t, root+clientFile["docker"], other.URL, "http://elsewhere.example")
			edit(t, root+clientFile["docker"], "]", "")
		}, map[string]doctor.Status{"client.file." + clientFile["docker"]: doctor.Failed, "mirror.used": doctor.Failed, "image.manifest": doctor.Failed}},
		{"no hosts.toml", "docker", other.URL, "alpine:3", func(root string) {
			if err := os.Remove(root + "/etc/docker/certs.d/docker.io/hosts.toml"); err != nil {
				t.Fatal(err)
			}
		}, map[string]doctor.Status{"client.file./etc/docker/certs.d/docker.io/hosts.toml": doctor.Warning, "mirror.used": doctor.Failed, "image.manifest": doctor.Failed}},
	} {
		root := t.TempDir()
		if code, _, stderr := runDray(t, nil, "setup", tc.client, "--url", tc.address, "--root", root, "--write"); code != 0 {
			t.Fatalf("%s: %s", tc.name, stderr)
		}
		if tc.broken != nil {
			tc.broken(root)
		}
		code, found := examined(t, root, tc.client, tc.address, tc.image)
		wantCode := exitOK
		for id, f := range found {
			want, ok := tc.want[id]
			if !ok {
				want = doctor.OK
			}
			if f.Status != want || f.Status != doctor.OK && f.Doc == "" {
				t.Errorf("%s: %s: %+v, want %s", tc.name, id, f, want)
			}
			if want == doctor.Failed {
				wantCode = exitRejected
			}
		}
		for id := range tc.want {
			if _, ok := found[id]; !ok {
				t.Errorf("%s: there is no %s in %+v", tc.name, id, found)
			}
		}
		if code != wantCode {
			t.Errorf("%s: exit code %d, want %d", tc.name, code, wantCode)
		}
	}
}

// TestDoctorTrusts: a certificate that dray setup put into place is trusted.
func TestDoctorTrusts(t *testing.T) {
	s := startStack(t, t.TempDir(), "upstreams: [ecr, hub]", "upstreams: [hub, ecr]", "prefixes: [hub]", "prefixes: [docker.io]")
	seed(t, s.hub, "library/alpine", "3", 1<<10)
	mirror, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	secure := httptest.NewTLSServer(httputil.NewSingleHostReverseProxy(mirror))
	defer secure.Close()
	ca := write(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})))
	for client := range clientFile {
		root := t.TempDir()
		if code, _, stderr := runDray(t, nil, "setup", client, "--url", secure.URL, "--ca", ca, "--root", root, "--write"); code != 0 {
			t.Fatalf("%s: %s", client, stderr)
		}
		if code, found := examined(t, root, client, secure.URL, "alpine:3"); code != exitOK || found["mirror.trusted"].Status != doctor.OK {
			t.Errorf("%s: %d %+v", client, code, found)
		}
	}
}

// TestDoctorOfClientsArguments: wrong arguments are refused, each with its reason.
func TestDoctorOfClientsArguments(t *testing.T) {
	for want, args := range map[string][]string{
		"not a client that setup knows": {"--client", "nerdctl", "http://127.0.0.1:1", "alpine"},
		"not the name of an image":      {"--client", "docker", "http://127.0.0.1:1", "Alpine:3"},
		"not a URL":                     {"--client", "docker", "127.0.0.1", "alpine"},
		"takes the URL of the mirror and the name of an image": {"--client", "docker", "http://127.0.0.1:1"},
		"dray doctor takes no argument":                        {"http://127.0.0.1:1", "alpine"},
	} {
		if code, _, stderr := runDray(t, nil, append([]string{"doctor"}, args...)...); code != exitUsage || !strings.Contains(stderr, want) {
			t.Errorf("%q: %d %s, want %q", args, code, stderr, want)
		}
	}
}

// TestDoctorPage: the page has a heading for each category, at which findings point, and a test for
// each check.
func TestDoctorPage(t *testing.T) {
	page := read(t, "../../docs/doctor.md")
	checks, tests, _ := strings.Cut(page, "\n## How the checks are tested\n")
	idsIn := func(text string) (ids []string) {
		for _, row := range regexp.MustCompile("(?m)^\\| (`[^|]*`) \\|").FindAllStringSubmatch(text, -1) {
			for _, id := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(row[1], -1) {
				ids = append(ids, id[1])
			}
		}
		slices.Sort(ids)
		return ids
	}
	if diff := cmp.Diff(idsIn(checks), idsIn(tests)); diff != "" {
		t.Errorf("checks of docs/doctor.md that have no test (-) or are none (+):\n%s", diff)
	}
	named := regexp.MustCompile("`(Test[A-Za-z]+)`").FindAllStringSubmatch(tests, -1)
	there := namedIn(t, "../..", "_test.go", regexp.MustCompile(`(?m)^func (Test\w+)\(`), "")
	for _, test := range named {
		if !slices.Contains(there, test[1]) {
			t.Errorf("docs/doctor.md names %s, which does not exist", test[1])
		}
	}
	if len(named) < 30 {
		t.Errorf("%d tests", len(named))
	}
	headings := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^## (.+)$`).FindAllStringSubmatch(page, -1) {
		headings[strings.ToLower(m[1])] = true
	}
	files, err := filepath.Glob("doctor/*.go")
	if err != nil {
		t.Fatal(err)
	}
	categories := 0
	for _, file := range slices.DeleteFunc(files, func(f string) bool { return strings.HasSuffix(f, "_test.go") }) {
		for _, m := range regexp.MustCompile(`(?:Check|\[\]Check\{\s*|^\s*)\{"([A-Za-z]+)", `).FindAllStringSubmatch(read(t, file), -1) {
			categories++
			if !headings[strings.ToLower(m[1])] {
				t.Errorf("%s: docs/doctor.md has no heading for %s", file, m[1])
			}
		}
	}
	if categories < 9 || len(headings) < 9 {
		t.Errorf("%d categories, %d headings", categories, len(headings))
	}
}

// edit replaces a text in a file.
func edit(t *testing.T, path, old, text string) {
	t.Helper()
	now := read(t, path)
	if !strings.Contains(now, old) {
		t.Fatalf("%s has no %s:\n%s", path, old, now)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(now, old, text, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
}
