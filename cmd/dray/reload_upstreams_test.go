package main

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/mirror/fixture"
	"dray/upstream/ecrtest"
)

// until waits for a condition, for as long as the slowest machine needs.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in a minute: %s", what)
		}
	}
}

// has reports whether a metric has a series with a label of this value.
func (s *stack) has(metric, value string) bool {
	s.Helper()
	families, err := s.metrics.Gather()
	if err != nil {
		s.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == metric && l.GetValue() == value {
					return true
				}
			}
		}
	}
	return false
}

// ready is the answer of /readyz.
func (s *stack) ready() string {
	s.Helper()
	resp, err := http.Get("http://" + s.admin() + "/readyz")
	if err != nil {
		s.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.Fatal(err)
	}
	return string(body)
}

// countingConns is a registry that knows how many connections to it are open.
func countingConns(t *testing.T, h http.Handler) (address string, open func() int) {
	t.Helper()
	conns := make(chan int, 1)
	conns <- 0
	s := httptest.NewUnstartedServer(h)
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		n := <-conns
		switch state {
		case http.StateNew:
			n++
		case http.StateClosed, http.StateHijacked:
			n--
		}
		conns <- n
	}
	s.Start()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String(), func() int { n := <-conns; conns <- n; return n }
}

// TestReloadUpstreams: an upstream that is added answers, and one that is removed does not, but a
// pull that has begun there ends. Then nothing of it is left.
func TestReloadUpstreams(t *testing.T) {
	lines := &fixture.Log{}
	s := startReloadable(t, lines)
	more := ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()})
	img := seed(t, more, "library/debian", "13", 16<<20)
	address, open := countingConns(t, more.Registry())
	const path = "/v2/more.example/debian"
	s.want(404, "GET", path+"/manifests/13", nil)
	entry := "- name: more\n  url: http://" + address + "\n  hosts: [more.example]\n  default_namespace: library\n  prefetch: {enabled: false}\n- name: hub"
	s.reload("listeners[main].upstreams upstreams[more]", "", "- name: hub", entry, "upstreams: [ecr, hub]", "upstreams: [ecr, hub, more]")
	s.want(200, "GET", path+"/manifests/13", nil)
	until(t, "the upstream is greeted", func() bool { return strings.Contains(lines.String(), `msg="upstream is available" upstream=more`) })
	if !strings.Contains(s.ready(), `"upstream more"`) || !s.has("dray_upstream_breaker_open", "more") || !s.has("dray_stale_answers_total", "more") {
		t.Errorf("it is not watched: %s", s.ready())
	}

	pull, err := http.Get(s.url + path + "/blobs/" + img.layer.String())
	if err != nil || pull.StatusCode != 200 {
		t.Fatal(err, pull)
	}
	defer pull.Body.Close()
	if _, err := io.CopyN(io.Discard, pull.Body, 1); err != nil {
		t.Fatal(err)
	}
	s.reload("listeners[main].upstreams upstreams[more]", "", entry, "- name: hub", "upstreams: [ecr, hub, more]", "upstreams: [ecr, hub]")
	s.want(404, "GET", path+"/manifests/13", nil)
	if n, err := io.Copy(io.Discard, pull.Body); err != nil || n != img.manifest.Layers[0].Size-1 {
		t.Errorf("the pull that had begun: %d bytes, %v", n, err)
	}
	if strings.Contains(s.ready(), `"upstream more"`) || s.has("dray_upstream_breaker_open", "more") {
		t.Errorf("it is still watched: %s", s.ready())
	}
	until(t, "its connections are closed", func() bool { return open() == 0 })
}

// TestReloadUnchangedUpstream: an upstream whose settings stay keeps what it knows of its registry.
func TestReloadUnchangedUpstream(t *testing.T) {
	s := startStack(t, t.TempDir())
	ecr, hub := s.registries[0], s.registries[1]
	s.reload("upstreams[hub].tags.fresh upstreams[hub].prefetch.enabled", "", "default_namespace: library\n  tags: {fresh: 1h, stale: 24h, not_found: 1h}\n  prefetch: {enabled: false}",
		"default_namespace: library\n  tags: {fresh: 2h, stale: 24h, not_found: 1h}\n  prefetch: {enabled: true}")
	if s.registries[0] != ecr || s.registries[1] == hub {
		t.Error("not only what has changed was replaced")
	}
	hub = s.registries[1]
	s.reload("upstreams[hub].prefetch.enabled upstreams[hub].keep_alive", "", "prefetch: {enabled: true}", "prefetch: {enabled: false}\n  keep_alive: 3h")
	if s.registries[1] != hub {
		t.Error("the registry was replaced for nothing")
	}
}

// TestReloadPrefetch: prefetching begins and ends at once.
func TestReloadPrefetch(t *testing.T) {
	s := startStack(t, t.TempDir())
	for i, enabled := range []string{"false", "true", "false"} {
		if i > 0 {
			former := map[string]string{"true": "false", "false": "true"}[enabled]
			s.reload("upstreams[hub].prefetch.enabled", "", "library\n  tags: {fresh: 1h, stale: 24h, not_found: 1h}\n  prefetch: {enabled: "+former+"}",
				"library\n  tags: {fresh: 1h, stale: 24h, not_found: 1h}\n  prefetch: {enabled: "+enabled+"}")
		}
		repo := "library/image" + enabled + string(rune('a'+i))
		img := seed(t, s.hub, repo, "1", 1<<10)
		s.want(200, "GET", "/v2/hub/"+repo+"/manifests/1", nil)
		here := func() bool { _, ok := s.cache.Stat(img.layer); return ok }
		if enabled == "true" {
			until(t, "the layer is prefetched", here)
		} else if here() {
			t.Errorf("%d: the layer is here", i)
		}
	}
}

// TestReloadDuringPush: an upload that is open, and a layer whose manifest is still to come, stay
// when the settings of their upstream change. If it is another registry, that one gets everything.
func TestReloadDuringPush(t *testing.T) {
	at := func(r *ecrtest.Running) string {
		r.CreateRepository("team/app")
		return "{url: 'http://" + r.RegistryHost + "', address: '" + r.RegistryAddr + "', credentials: {username: AWS, password_file: " + write(t, "password", r.Token("")) + "}, "
	}
	first, second := ecrtest.Start(t, ecrtest.Options{}), ecrtest.Start(t, ecrtest.Options{})
	here, there := at(first), at(second)
	s := startStack(t, t.TempDir(), "upstreams: [ecr, hub]", "upstreams: [ours, hub]", "- name: hub", "- "+here+"name: ours, kind: oci, push: true}\n- name: hub")
	one, two := []byte("the first layer"), []byte("the second layer")
	s.upload("team/app", one)
	upload := s.want(202, "POST", "/v2/team/app/blobs/uploads/", nil).Header.Get("Location")
	upload = s.want(202, "PATCH", upload, two[:5]).Header.Get("Location")
	s.reload("upstreams[ours].tags.fresh", "", "kind: oci, push: true}", "kind: oci, push: true, tags: {fresh: 7s}}")
	upload = s.want(202, "PATCH", upload, two[5:]).Header.Get("Location")
	s.reload("upstreams[ours].url upstreams[ours].hosts upstreams[ours].credentials.password_file upstreams[ours].address", "", here, there)
	s.want(201, "PUT", upload+"?digest="+digest.FromBytes(two).String(), nil)
	s.upload("team/app", imageConfig)
	m := imageOf(t, one, two)
	s.want(201, "PUT", "/v2/team/app/manifests/1", m.Raw, "Content-Type", m.MediaType)
	if _, ok := second.Image("team/app", m.Digest.String()); !ok {
		t.Error("the image is not there")
	}
	if n := s.gauge("dray_push_blobs_staged"); n != 0 {
		t.Errorf("%v blobs are still staged", n)
	}
}

// TestReloadFirstECR: an upstream at AWS can be the first one, and the last.
func TestReloadFirstECR(t *testing.T) {
	s := startStack(t, t.TempDir())
	seed(t, s.ecr, "team/app", "v1", 1<<10)
	_, ecr, _ := strings.Cut(stackConfig, "upstreams:\n- name: ecr\n")
	ecr, _, _ = strings.Cut("- name: ecr\n"+ecr, "- name: hub\n")
	s.stop()
	next := startBefore(t, s.ecr, s.hub, t.TempDir(), ecr, "", "upstreams: [ecr, hub]", "upstreams: [hub]")
	if next.session != nil {
		t.Fatal("a session without need")
	}
	filled := strings.NewReplacer("ECR_HOST", s.ecr.RegistryHost, "ECR_ADDR", s.ecr.RegistryAddr).Replace(ecr)
	next.reload("listeners[main].upstreams upstreams[ecr]", "", "upstreams: [hub]", "upstreams: [hub, ecr]", "- name: hub\n", filled+"- name: hub\n")
	next.want(200, "GET", "/v2/aws/team/app/manifests/v1", nil)
	if len(next.session.Tokens()) != 1 || !next.has("dray_ecr_token_expiry_timestamp_seconds", "eu-west-1") {
		t.Errorf("%d tokens are renewed", len(next.session.Tokens()))
	}
	next.reload("listeners[main].upstreams upstreams[ecr]", "", "upstreams: [hub, ecr]", "upstreams: [hub]", filled, "")
	if len(next.session.Tokens()) != 0 || next.has("dray_ecr_token_expiry_timestamp_seconds", "eu-west-1") {
		t.Errorf("%d tokens are still renewed", len(next.session.Tokens()))
	}
}

// TestReloadLocal: of an upstream of kind local, names change at once, and all else waits.
func TestReloadLocal(t *testing.T) {
	s := startStack(t, t.TempDir(), "- name: hub", "- {name: ci, kind: local, prefixes: [ci]}\n- name: hub", "upstreams: [ecr, hub]", "upstreams: [ecr, hub, ci]")
	s.push("ci/app", "1", []byte("layer"))
	s.reload("upstreams[ci].prefixes", "upstreams[ci].local.unused", "kind: local, prefixes: [ci]", "kind: local, prefixes: [builds], local: {unused: 77h}")
	s.want(200, "GET", "/v2/builds/app/manifests/1", nil)
	s.reload("listeners[main].upstreams", "upstreams[ci]", "- {name: ci, kind: local, prefixes: [builds], local: {unused: 77h}}\n", "", "[ecr, hub, ci]", "[ecr, hub]")
	s.want(404, "GET", "/v2/builds/app/manifests/1", nil)
	s.reload("", "upstreams[ci] upstreams[queued]", "- name: hub", "- {name: queued, url: 'http://127.0.0.1:1', push: true, acknowledge: local}\n- name: hub")
	if s.mirrorHas("queued") {
		t.Error("it was added")
	}
}

func (s *stack) mirrorHas(upstream string) bool {
	for _, u := range s.upstreams {
		if u.Name == upstream {
			return true
		}
	}
	return false
}
