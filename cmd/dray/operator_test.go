package main

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"dray/mirror/admin/api"
	"dray/upstream/ecrtest"
)

// admin is the address of the stack's admin listener, which is served from the first call on.
func (s *stack) admin() string {
	s.Helper()
	if s.adminURL == "" {
		server := httptest.NewServer(s.graph.admin)
		s.Cleanup(server.Close)
		s.adminURL = server.URL
	}
	return strings.TrimPrefix(s.adminURL, "http://")
}

// operator runs a subcommand against the stack.
func (s *stack) operator(args ...string) (code int, stdout, stderr string) {
	s.Helper()
	var out, errs bytes.Buffer
	code = run(s.Context(), append(args, "--admin", s.admin()), nil, strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

// operated is what a subcommand that succeeds prints with --json.
func operated[A any](s *stack, args ...string) A {
	s.Helper()
	var a A
	code, stdout, stderr := s.operator(append(args, "--json")...)
	if code != 0 {
		s.Fatalf("%q: %d %s", args, code, stderr)
	}
	if err := json.Unmarshal([]byte(stdout), &a); err != nil {
		s.Fatalf("%q: %v in %s", args, err, stdout)
	}
	return a
}

// hangsUp is the address of a server that reads a request and closes the connection.
func hangsUp(t *testing.T) string {
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	t.Cleanup(s.Close)
	return s.URL
}

// TestOperatorFailures: each failure has its message, and the exit code of its kind.
func TestOperatorFailures(t *testing.T) {
	answer := func(status int, body string) *httptest.Server {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}))
		t.Cleanup(s.Close)
		return s
	}
	for _, tc := range []struct {
		address string
		code    int
		stderr  string
	}{
		{deaf(t), exitUnreachable, "cannot connect to dray: it is not running"},
		{hangsUp(t), exitFailed, "which may have received the request: connection closed"},
		{answer(404, "404 page not found\n").URL, exitFailed, "answered 404 Not Found: 404 page not found"},
		{answer(200, "<html>").URL, exitFailed, "cannot decode the answer"},
		{answer(409, `{"error": {"code": "conflict", "message": "somebody reads it"}}`).URL, exitFailed, "somebody reads it\n"},
		{"nonsense", exitUsage, "write one like"},
	} {
		code, stdout, stderr := runDray(t, nil, "stats", "--admin", tc.address)
		if code != tc.code || stdout != "" || !strings.Contains(stderr, tc.stderr) {
			t.Errorf("%s: %d\nstdout %s\nstderr %s", tc.address, code, stdout, stderr)
		}
	}
}

// TestStats: what was fetched is what the registry has sent, whether or not dray could keep it.
func TestStats(t *testing.T) {
	for name, disk := range map[string]string{"usable": "min_free_bytes: 0", "without room": "min_free_bytes: 1000TiB"} {
		t.Run(name, func(t *testing.T) {
			s := startStack(t, t.TempDir(), "min_free_bytes: 0", disk)
			img := seed(t, s.ecr, "team/app", "v1", 100<<10)
			layer, manifest := img.manifest.Layers[0].Size, int64(len(img.manifest.Raw))
			var list int64
			for range 3 {
				s.want(200, "GET", "/v2/team/app/manifests/v1", nil)
				s.want(200, "GET", "/v2/team/app/blobs/"+img.layer.String(), nil)
				list += int64(len(s.want(200, "GET", "/v2/team/app/tags/list", nil).body))
			}
			<-s.ecr.Idle()
			got := operated[api.Stats](s, "stats")
			var sent int64
			for _, e := range s.ecr.Log() {
				if e.Surface != "api" {
					sent += e.BytesOut
				}
			}
			if got.SentBytes != 3*(layer+manifest)+list || got.Requests != 6 || got.SavedBytes != got.SentBytes-got.FetchedBytes {
				t.Errorf("%+v for a layer of %d bytes", got, layer)
			}
			if got.FetchedBytes != sent || got.Fetched["ecr"] != sent || sent < layer+manifest {
				t.Errorf("fetched %d, %v; the registry sent %d", got.FetchedBytes, got.Fetched, sent)
			}
			if got.Started.IsZero() || got.Started.After(time.Now()) {
				t.Errorf("started at %s", got.Started)
			}
			if disk != "min_free_bytes: 0" {
				if err := s.cache.Check(); err == nil || !strings.Contains(err.Error(), "bytes free") {
					t.Errorf("the health of the cache is %v", err)
				}
				if got.SavedRatio > 0.01 || got.HitRatio != 0 || got.Opens["direct"] != 3 {
					t.Errorf("%+v although nothing can be kept", got)
				}
				return
			}
			if err := s.cache.Check(); err != nil {
				t.Error(err)
			}
			if got.Opens["origin"] != 1 || got.Opens["disk"] != 2 || got.Upstreams["ecr"]["disk"] != 2*layer || got.Upstreams["ecr"]["cache"] != 2*manifest {
				t.Errorf("%+v", got)
			}
			code, stdout, stderr := s.operator("stats")
			if code != 0 {
				t.Fatal(stderr)
			}
			golden(t, "testdata/stats.golden", regexp.MustCompile(`(?m)^(since +).*$`).ReplaceAllString(stdout, "${1}TIME"))
		})
	}
}

// TestSavings: what was saved is counted over a restart, by the prices of the configuration, and
// what is unknown is named with its key.
func TestSavings(t *testing.T) {
	dir := t.TempDir()
	ecr, hub := ecrtest.Start(t, ecrtest.Options{}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()})
	img := seed(t, ecr, "team/app", "v1", 100<<10)
	public := seed(t, hub, "library/app", "v1", 1<<10)
	edits := []string{
		"  push: true\n", "  push: true\n  savings: {path: nat, price: 1024}\n", // a dollar for a MiB
		"cache: {dir", "savings: {own_cost: 30}\ncache: {dir",
	}
	s := startBefore(t, ecr, hub, dir, edits...)
	pull := func(times int) {
		for range times {
			s.want(200, "GET", "/v2/team/app/manifests/v1", nil)
			s.want(200, "GET", "/v2/team/app/blobs/"+img.layer.String(), nil)
		}
		s.want(200, "GET", "/v2/hub/library/app/blobs/"+public.layer.String(), nil)
	}
	pull(3)
	s.stop()
	s = startBefore(t, ecr, hub, dir, edits...)
	pull(8)
	whole := img.manifest.Layers[0].Size + int64(len(img.manifest.Raw))
	got := operated[api.Savings](s, "stats", "--savings")
	up := got.Upstreams[0]
	if len(got.Upstreams) != 2 || up.Upstream != "ecr" || up.SentBytes != 11*whole || up.AvoidedBytes != 10*whole || up.Samples != 1 || up.SavedSeconds != nil {
		t.Errorf("%+v", got)
	}
	if want := float64(10*whole) / (1 << 20); math.Abs(up.AvoidedUSD-want) > 1e-9 || math.Abs(got.AvoidedUSD-want) > 1e-9 || got.NetUSD != got.AvoidedUSD-got.CostUSD || got.CostUSD <= 0 {
		t.Errorf("saved %v, want %v: %+v", up.AvoidedUSD, want, got)
	}
	if len(got.Unknown) != 1 || !strings.HasPrefix(got.Unknown[0], "upstreams[1].savings.path: ") {
		t.Errorf("unknown: %q", got.Unknown)
	}
	if net := s.metric("dray_savings_avoided_dollars"); math.Abs(net-got.AvoidedUSD) > 1e-9 {
		t.Errorf("the metric says %v", net)
	}
	times := regexp.MustCompile(`\d{4}-\d\d-\d\dT[\d:]+Z|\d\.\d{3} months`)
	for name, args := range map[string][]string{"savings.golden": {"--days", "7"}, "savings.csv": {"--csv"}} {
		code, stdout, stderr := s.operator(append([]string{"stats", "--savings"}, args...)...)
		if code != 0 {
			t.Fatal(stderr)
		}
		stdout = regexp.MustCompile(`(this dray,dray,eu-west-1,)[^,]*(,months,30,)[^,]*`).ReplaceAllString(stdout, "${1}N${2}USD")
		golden(t, "testdata/"+name, times.ReplaceAllString(stdout, "TIME"))
	}
	if code, _, stderr := s.operator("stats", "--csv"); code != exitUsage || !strings.Contains(stderr, "for --savings") {
		t.Errorf("%d %s", code, stderr)
	}
}

// TestOperatorLogin: the rules of admin.auth say who may see and who may change, and health and
// metrics have an address of their own.
func TestOperatorLogin(t *testing.T) {
	auth := usersOf(t, "{users: [alice], actions: [operate]}, {users: [bob], actions: [view]}")
	s := startStack(t, t.TempDir(), "cache: {dir", auth+"\nadmin: {auth: people, health_address: '127.0.0.1:0'}\ncache: {dir")
	seed(t, s.ecr, "team/app", "v1", 1<<10)
	s.want(200, "GET", "/v2/team/app/manifests/v1", nil)
	login := func(who string) string {
		file := filepath.Join(t.TempDir(), "login")
		if err := os.WriteFile(file, []byte(who+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	for _, test := range []struct {
		who         string
		sees, pins  int // exit codes
		because     string
		credentials []string
	}{
		{"alice", exitOK, exitOK, "", []string{"--login-file", login("alice:wonderland")}},
		{"bob", exitOK, exitFailed, `user "bob" may not operate`, []string{"--login-file", login("bob:builder")}},
		{"carol", exitFailed, exitFailed, `user "carol" may not`, []string{"--login-file", login("carol:christmas")}},
		{"alice with a wrong password", exitFailed, exitFailed, "invalid credentials", []string{"--login-file", login("alice:builder")}},
		{"nobody", exitFailed, exitFailed, "authentication required; show who you are with --login-file", nil},
		{"a file without a password", exitFailed, exitFailed, "USER:PASSWORD", []string{"--login-file", login("alice")}},
	} {
		if code, _, stderr := s.operator(append([]string{"ls"}, test.credentials...)...); code != test.sees || code != 0 && !strings.Contains(stderr, test.because) {
			t.Errorf("%s sees: %d %s", test.who, code, stderr)
		}
		if code, _, stderr := s.operator(append([]string{"pin", "ecr/team/app:v1"}, test.credentials...)...); code != test.pins || code != 0 && !strings.Contains(stderr, test.because) {
			t.Errorf("%s pins: %d %s", test.who, code, stderr)
		}
	}
	health := httptest.NewServer(s.health)
	defer health.Close()
	for path, want := range map[string]int{"/metrics": 200, "/readyz": 200, "/api/v1/stats": 404} {
		resp, err := http.Get(health.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		if resp.Body.Close(); resp.StatusCode != want {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
	if got := s.health.Address; got != "127.0.0.1:0" {
		t.Errorf("health is served on %s", got)
	}
}

// TestOperatorToken: the subcommands show the token that the configuration names, and without it
// they are refused.
func TestOperatorToken(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	put := func(token string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("a token")
	s := startStack(t, t.TempDir(), "cache: {dir", "admin: {token_file: "+file+", hosts: [dray.example]}\ncache: {dir")
	for _, token := range []string{"a token", "another one"} {
		put(token)
		if code, _, stderr := s.operator("stats"); code != exitFailed || !strings.Contains(stderr, "the token is missing or wrong") {
			t.Errorf("without the token: %d %s", code, stderr)
		}
		if code, _, stderr := s.operator("stats", "--token-file", file); code != 0 {
			t.Errorf("with the token: %s", stderr)
		}
	}
	resp, err := http.Get("http://" + s.admin() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	if resp.Body.Close(); resp.StatusCode != 200 {
		t.Errorf("metrics: %s", resp.Status)
	}
}
