package main

import (
	"strings"
	"testing"

	"dray/mirror/fixture"
	"dray/upstream/ecrtest"
)

// Behind a trusted proxy, limits and the log see clients. None of them counts as this machine, even
// if it has a loopback address, and neither does the proxy.
func TestClientsBehindProxy(t *testing.T) {
	log := &fixture.Log{}
	ecr, hub := ecrtest.Start(t, ecrtest.Options{}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()})
	const proxy, header, uploads = "127.0.0.1:4711", "X-Forwarded-For", "/v2/team/app/blobs/uploads/"
	s := startLogging(t, log, ecr, hub, t.TempDir(),
		"{name: main,", "{name: main, trusted_proxies: [127.0.0.1], allow_anonymous_push: true,", "cache: {", "limits: {max_uploads_per_client: 1}\ncache: {")
	for client, want := range map[string]int{"192.0.2.1": 202, "192.0.2.2": 202, "2001:db8::1": 202} {
		r := s.from(proxy, "POST", uploads, nil, header, client)
		if r.StatusCode != want {
			t.Errorf("%s: %s", client, r.Status)
		}
		if line := "client=" + client + " "; !strings.Contains(log.String(), line) || !strings.Contains(log.String(), "proxy="+proxy) {
			t.Errorf("the log has no %s of the proxy:\n%s", line, log.String())
		}
	}
	// A client that invents another before itself keeps its own limit; without a trusted proxy, the
	// header means nothing.
	for what, r := range map[string]got{
		"one that invents another": s.from(proxy, "POST", uploads, nil, header, "192.0.2.9, 192.0.2.1"),
		"one that is no proxy":     s.from("192.0.2.1:1", "POST", uploads, nil, header, "192.0.2.9"),
	} {
		if r.StatusCode != 429 {
			t.Errorf("%s: %s", what, r.Status)
		}
	}

	s = startStack(t, t.TempDir(), "{name: main,", "{name: main, trusted_proxies: [127.0.0.1],")
	for what, r := range map[string]got{
		"a client":           s.from(proxy, "POST", uploads, nil, header, "192.0.2.1"),
		"a loopback address": s.from(proxy, "POST", uploads, nil, header, "127.0.0.1"),
		"the proxy itself":   s.from(proxy, "POST", uploads, nil),
	} {
		if r.StatusCode != 403 {
			t.Errorf("%s pushes: %s", what, r.Status)
		}
	}
	if r := s.from("127.0.0.2:1", "POST", uploads, nil); r.StatusCode != 202 {
		t.Errorf("this machine cannot push: %s", r.Status)
	}
}
