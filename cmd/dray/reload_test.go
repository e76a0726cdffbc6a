package main

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dray/mirror/admin/api"
	"dray/mirror/fixture"
)

// edit changes the file of the stack's configuration. edits are pairs of old and new text.
func (s *stack) edit(edits ...string) {
	s.Helper()
	text, err := os.ReadFile(s.path)
	if err != nil {
		s.Fatal(err)
	}
	for i := 0; i < len(edits); i += 2 {
		if !strings.Contains(string(text), edits[i]) {
			s.Fatalf("%q is not in the configuration", edits[i])
		}
	}
	if err := os.WriteFile(s.path, []byte(strings.NewReplacer(edits...).Replace(string(text))), 0o600); err != nil {
		s.Fatal(err)
	}
}

// reload edits the configuration, reloads it, and compares what has changed and what waits for a
// restart.
func (s *stack) reload(changed, pending string, edits ...string) api.Reloaded {
	s.Helper()
	s.edit(edits...)
	got := operated[api.Reloaded](s, "reload")
	if now, later := strings.Join(got.Changed, " "), strings.Join(got.Pending, " "); now != changed || later != pending {
		s.Fatalf("changed %q, pending %q, want %q and %q", now, later, changed, pending)
	}
	return got
}

// gauge is the value of a metric without labels.
func (s *stack) gauge(name string) float64 {
	s.Helper()
	families, err := s.metrics.Gather()
	if err != nil {
		s.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	s.Fatalf("no metric %s", name)
	return 0
}

// TestReloadRules: a rule that is added lets a client in. One that is removed keeps a client out,
// but a pull that has begun ends.
func TestReloadRules(t *testing.T) {
	section := usersOf(t, "{users: [bob], actions: [pull], repositories: ['*']}")
	s := startStack(t, t.TempDir(), withAuth(section, " role: mirror, challenge: true,")...)
	img := seed(t, s.ecr, "team/app", "v1", 16<<20)
	const path = "/v2/team/app/manifests/v1"
	alice, bob := basic("alice", "wonderland"), basic("bob", "builder")
	s.want(403, "GET", path, nil, "Authorization", alice)
	s.want(200, "GET", path, nil, "Authorization", bob)

	req, err := http.NewRequestWithContext(t.Context(), "GET", s.url+"/v2/team/app/blobs/"+img.layer.String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", bob)
	pull, err := http.DefaultClient.Do(req)
	if err != nil || pull.StatusCode != 200 {
		t.Fatal(err, pull)
	}
	defer pull.Body.Close()
	if _, err := io.CopyN(io.Discard, pull.Body, 1); err != nil {
		t.Fatal(err)
	}

	s.reload("auth[people].rules", "", "{users: [bob],", "{users: [alice],")
	s.want(200, "GET", path, nil, "Authorization", alice)
	s.want(403, "GET", path, nil, "Authorization", bob)
	if n, err := io.Copy(io.Discard, pull.Body); err != nil || n != img.manifest.Layers[0].Size-1 {
		t.Errorf("the pull that had begun: %d bytes, %v", n, err)
	}
	s.reload("", "")
	if code, stdout, stderr := s.operator("reload"); code != exitOK || stdout != "nothing has changed\n" || stderr != "" {
		t.Errorf("%d %s%s", code, stdout, stderr)
	}

	// Another entry, another challenge, and none.
	s.reload("listeners[main].challenge", "", "challenge: true,", "challenge: false,")
	if got := s.want(403, "GET", path, nil); got.Header.Get("WWW-Authenticate") != "" {
		t.Error("still a challenge")
	}
	s.reload("listeners[main].auth auth[people] auth[others]", "", "auth: people,", "auth: others,", "name: people,", "name: others,")
	s.want(200, "GET", path, nil, "Authorization", alice)
	s.reload("listeners[main].auth", "", "auth: others, role: mirror, challenge: false,", "role: mirror,")
	s.want(200, "GET", path, nil)
}

// TestReloadRoutes: names, patterns and addresses change at once, and so do the names by which
// operators call images.
func TestReloadRoutes(t *testing.T) {
	s := startStack(t, t.TempDir())
	seed(t, s.hub, "library/alpine", "3", 1<<10)
	seed(t, s.ecr, "team/app", "v1", 1<<10)
	s.want(200, "GET", "/v2/hub/alpine/manifests/3", nil)
	s.reload("upstreams[hub].hosts upstreams[hub].prefixes", "", "hosts: [docker.io]", "hosts: [docker.io, mirror.example]", "prefixes: [hub]", "prefixes: [other]")
	s.want(404, "GET", "/v2/hub/alpine/manifests/3", nil)
	s.want(200, "GET", "/v2/other/alpine/manifests/3", nil)
	s.want(200, "GET", "/v2/alpine/manifests/3?ns=mirror.example", nil)
	if code, _, stderr := s.operator("pin", "mirror.example/alpine:3"); code != exitOK {
		t.Error(stderr)
	}
	s.reload("upstreams[hub].default_namespace", "", "default_namespace: library", "default_namespace: team")
	s.want(404, "GET", "/v2/other/alpine/manifests/3", nil)
	s.want(200, "GET", "/v2/other/library/alpine/manifests/3", nil)
	s.reload("upstreams[hub].repositories.deny", "", "default_namespace: team", "default_namespace: team\n  repositories: {deny: ['library/*']}")
	s.want(403, "GET", "/v2/other/library/alpine/manifests/3", nil)
	s.reload("listeners[main].upstreams", "", "upstreams: [ecr, hub]", "upstreams: [ecr]")
	s.want(404, "GET", "/v2/other/team/alpine/manifests/3", nil)
	s.want(202, "POST", "/v2/team/app/blobs/uploads/", nil)
	s.reload("listeners[main].role", "", "{name: main,", "{name: main, role: mirror,")
	s.want(403, "POST", "/v2/team/app/blobs/uploads/", nil)
	s.reload("listeners[main].role listeners[main].external_url", "", "role: mirror,", "external_url: 'https://dray.example',")
	if at := s.want(202, "POST", "/v2/team/app/blobs/uploads/", nil).Header.Get("Location"); !strings.HasPrefix(at, "https://dray.example/") {
		t.Errorf("an upload at %s", at)
	}
}

// TestReloadClients: who clients are, and who of them may push without credentials.
func TestReloadClients(t *testing.T) {
	log := &fixture.Log{}
	s := startReloadable(t, log)
	const proxy, there = "192.0.2.1:1", "203.0.113.9"
	start := func() got {
		t.Helper()
		return s.from(proxy, "POST", "/v2/team/app/blobs/uploads/", nil, "X-Forwarded-For", there, "Forwarded", "for=203.0.113.10")
	}
	if got := start(); got.StatusCode != 403 {
		t.Errorf("an anonymous push: %s", got.Status)
	}
	s.reload("listeners[main].trusted_proxies listeners[main].allow_anonymous_push listeners[main].answer_within", "", "{name: main,",
		"{name: main, trusted_proxies: [192.0.2.0/24], allow_anonymous_push: true, answer_within: 5m,")
	if got := start(); got.StatusCode != 202 || !strings.Contains(log.String(), "client="+there+" ") {
		t.Errorf("%s\n%s", got.Status, log)
	}
	s.reload("listeners[main].forwarded_header", "", "answer_within: 5m,", "answer_within: 5m, forwarded_header: Forwarded,")
	if start(); !strings.Contains(log.String(), "client=203.0.113.10 ") {
		t.Error(log)
	}
	s.reload("listeners[main].proxy_protocol", "", "answer_within: 5m,", "answer_within: 5m, proxy_protocol: true,")
	s.reload("log.access", "", "cache: {", "log: {access: false}\ncache: {")
	before := log.String()
	start()
	if now := log.String(); strings.Contains(strings.TrimPrefix(now, before), "msg=request") {
		t.Errorf("a request is logged: %s", now)
	}
	s.reload("log.level", "", "{access: false}", "{access: false, level: error}")
	if s.level.Level() != slog.LevelError {
		t.Errorf("the level is %s", s.level.Level())
	}
}

// startReloadable is startStack with another place for the log.
func startReloadable(t *testing.T, log io.Writer, edits ...string) *stack {
	s := startStack(t, t.TempDir(), edits...)
	s.stop()
	next := startLogging(t, log, s.ecr, s.hub, t.TempDir(), edits...)
	return next
}

// TestReloadOperators: who may operate dray, and under which names, changes at once.
func TestReloadOperators(t *testing.T) {
	auth := usersOf(t, "{users: [alice], actions: [operate]}")
	s := startStack(t, t.TempDir(), "cache: {dir", auth+"\nadmin: {address: 'localhost:6060', health_address: '127.0.0.1:0'}\ncache: {dir")
	s.reload("admin.auth", "", "health_address", "auth: people, health_address")
	if code, _, stderr := s.operator("ls"); code != exitFailed || !strings.Contains(stderr, "authentication required") {
		t.Errorf("%d %s", code, stderr)
	}
	login := write(t, "login", "alice:wonderland\n")
	token := write(t, "token", "a token\n")
	s.edit("auth: people, health_address", "token_file: "+token+", hosts: [dray.example], health_address")
	if code, stdout, stderr := s.operator("reload", "--login-file", login); code != exitOK || stdout != "changed:\n  admin.auth\n  admin.hosts\n  admin.token_file\n" {
		t.Errorf("%d %s%s", code, stdout, stderr)
	}
	if code, _, stderr := s.operator("ls", "--token-file", token); code != exitOK {
		t.Errorf("%d %s", code, stderr)
	}
	req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+s.admin()+"/api/v1/stats", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "dray.example"
	req.Header.Set("Authorization", "Bearer a token")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if resp.Body.Close(); resp.StatusCode != 200 {
		t.Errorf("under another name: %s", resp.Status)
	}
}

// TestReloadRefused: what cannot be used leaves everything as it was, and the metric says so until
// a reload succeeds.
func TestReloadRefused(t *testing.T) {
	s := startStack(t, t.TempDir())
	seed(t, s.hub, "library/alpine", "3", 1<<10)
	sound, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	const success, when = "dray_config_last_reload_successful", "dray_config_last_reload_success_timestamp_seconds"
	started := s.gauge(when)
	if s.gauge(success) != 1 || started == 0 {
		t.Error("the start is no success")
	}
	before := s.cfg
	for _, test := range []struct {
		edits []string
		want  []string
	}{
		{[]string{"kind: ecr", "kind: nonsense", "min_free_bytes: 0", "min_free: 0", "prefixes: [hub]", "prefixes: [other]"},
			[]string{"the configuration is not valid, so the former one stays in force:\ndray.yaml:", `upstreams[0].kind: "nonsense"`, "cache.min_free: unknown key"}},
		{[]string{"upstreams: [ecr, hub]", "upstreams: [ecr, hub, ci]", "- name: hub", "- {name: ci, kind: local}\n- name: hub"},
			[]string{"needs a restart: without one, dray cannot change upstreams[ci], and", `listeners[0].upstreams[2]: there is no upstream named "ci"`}},
		{[]string{string(sound), "[\n"}, []string{"dray.yaml:1: "}},
	} {
		s.edit(test.edits...)
		code, stdout, stderr := s.operator("reload")
		if code != exitFailed || stdout != "" {
			t.Errorf("%d %s", code, stdout)
		}
		for _, want := range test.want {
			if !strings.Contains(stderr, want) {
				t.Errorf("%q is not in %s", want, stderr)
			}
		}
		if diff := cmp.Diff(before, s.cfg); diff != "" {
			t.Error(diff)
		}
		s.want(200, "GET", "/v2/hub/alpine/manifests/3", nil)
		if s.gauge(success) != 0 || s.gauge(when) != started {
			t.Errorf("the metrics say %v, %v", s.gauge(success), s.gauge(when))
		}
		if err := os.WriteFile(s.path, sound, 0o600); err != nil {
			t.Fatal(err)
		}
		s.reload("", "")
		if s.gauge(success) != 1 {
			t.Error("a success is not shown")
		}
		started = s.gauge(when)
	}
	if err := os.Remove(s.path); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := s.operator("reload"); code != exitFailed || !strings.Contains(stderr, "no such file") {
		t.Errorf("%d %s", code, stderr)
	}
	s.reloads.Stop()
	if code, _, stderr := s.operator("reload"); code != exitFailed || stderr != "dray: dray is stopping\n" {
		t.Errorf("%d %s", code, stderr)
	}
}

// TestReloadPending: what needs a restart is named, as long as the file and the running dray
// differ; what does not takes effect.
func TestReloadPending(t *testing.T) {
	log := &fixture.Log{}
	s := startReloadable(t, log)
	seed(t, s.hub, "library/alpine", "3", 1<<10)
	other := t.TempDir()
	pending := "listeners[main].send listeners[second] cache.directory cache.memory_bytes state.directory"
	got := s.reload("upstreams[hub].prefixes", pending, "prefixes: [hub]", "prefixes: [other]",
		"listeners: [{name: main,", "listeners: [{name: second, address: ':0', external_url: 'http://second.example/'}, {send: copy, name: main,",
		"cache: {directory: "+s.cfg.Cache.Directory, "cache: {memory_bytes: 1MiB, directory: "+other)
	if len(got.Notices) != 2 || !strings.Contains(got.Notices[0], "second") {
		t.Errorf("notices %q", got.Notices)
	}
	s.want(200, "GET", "/v2/other/alpine/manifests/3", nil)
	line := fmt.Sprintf("msg=%q changed=upstreams[hub].prefixes takes_effect_at_next_start=%q", "the configuration was reloaded", strings.ReplaceAll(pending, " ", ", "))
	if !strings.Contains(log.String(), line) || !strings.Contains(log.String(), "level=WARN") {
		t.Errorf("no line has %s:\n%s", line, log)
	}
	if code, stdout, _ := s.operator("reload"); code != exitOK || stdout != "takes effect at the next start:\n  "+strings.ReplaceAll(pending, " ", "\n  ")+"\n" {
		t.Errorf("%d %s", code, stdout)
	}
}

// TestReloadHangup: SIGHUP reloads the file that dray was started with, and ends nothing.
func TestReloadHangup(t *testing.T) {
	s := startStack(t, t.TempDir())
	seed(t, s.hub, "library/alpine", "3", 1<<10)
	s.stop()
	port := freePort(t)
	run := runServe(t, []string{"DRAY_CONFIG=" + s.path, "PORT=" + port, "DRAY_ADMIN_ADDRESS=off"}, &http.Client{}, "http://127.0.0.1:"+port+"/v2/")
	s.url = "http://127.0.0.1:" + port
	for _, step := range []struct{ was, is, line, path string }{
		{"prefixes: [hub]", "prefixes: [other]", "changed=upstreams[hub].prefixes", "other"},
		{"prefixes: [other]", "prefixes: {}", "the configuration was not reloaded; the former one stays in force", "other"},
		{"prefixes: {}", "prefixes: [third]", "changed=upstreams[hub].prefixes takes", "third"},
	} {
		s.edit(step.was, step.is)
		before := len(run.stderr.String())
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		until(t, "a line has "+step.line, func() bool { return strings.Contains(run.stderr.String()[before:], step.line) })
		s.want(200, "GET", "/v2/"+step.path+"/alpine/manifests/3", nil)
	}
	if code := run.end(); code != 0 {
		t.Errorf("ended with %d", code)
	}
}
