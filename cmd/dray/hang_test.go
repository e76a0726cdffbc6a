package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/upstream/ecrtest"
)

// hangPatience is the time after which a request counts as one that hangs. dray answers within
// 25 s, but this test must also pass on a machine that is slow.
const hangPatience = 4 * time.Minute

// hangs are the parts that dray waits for, each of which hangs: what to configure, and what to do
// before the first request.
var hangs = map[string]struct {
	edits func(t *testing.T) []string
	begin func(t *testing.T, s *stack)
}{
	"the upstream accepts, and does not answer":  {begin: upstreamHangs(ecrtest.Fault{Latency: time.Hour})},
	"the upstream sends headers, and no body":    {begin: upstreamHangs(ecrtest.Fault{StallAt: ecrtest.At(0)})},
	"the token service does not answer":          {begin: upstreamHangs(ecrtest.Fault{Kinds: []ecrtest.Kind{"GetAuthorizationToken", ecrtest.KindToken}, Latency: time.Hour})},
	"what a redirect leads to does not answer":   {begin: upstreamHangs(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindObjectGet}, Latency: time.Hour})},
	"the resolver of names does not answer":      {edits: unresolved},
	"Redis does not answer":                      {edits: silentRedis},
	"a service of notifications does not answer": {edits: silentNotifications},
	"a check does not answer":                    {edits: silentCheck},
	"the password file is a pipe":                {edits: passwords, begin: passwordsInAPipe},
}

// upstreamHangs arms a fault of both registries for all requests of its kinds.
func upstreamHangs(f ecrtest.Fault) func(*testing.T, *stack) {
	f.Count = -1
	return func(_ *testing.T, s *stack) {
		s.ecr.AddFault(f)
		s.hub.AddFault(f)
	}
}

// silent is the address of a server that accepts connections and never answers.
func silent(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var taken []net.Conn
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			taken = append(taken, c)
			mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		mu.Lock()
		defer mu.Unlock()
		for _, c := range taken {
			_ = c.Close()
		}
	})
	return ln.Addr().String()
}

// unresolved gives the registries names for which the resolver, which never answers, is asked.
func unresolved(*testing.T) []string {
	return []string{"  address: ECR_ADDR\n", "", "http://ECR_HOST", "http://123456789012.dkr.ecr.eu-west-1.amazonaws.com", "http://HUB_ADDR", "http://registry.test"}
}

func silentRedis(t *testing.T) []string {
	return []string{"cache: {", "metadata: {url: 'redis://" + silent(t) + "'}\ncache: {"}
}

func silentNotifications(t *testing.T) []string {
	return []string{"cache: {", "notifications: [{url: 'http://" + silent(t) + "'}]\ncache: {"}
}

// silentCheck checks pushes by a service and by a scanner, both of which do not answer.
func silentCheck(t *testing.T) []string {
	return []string{
		"  push: true\n", "  push: true\n  checks: [gate]\n",
		"cache: {", fmt.Sprintf("checks: [{name: gate, webhooks: [{mode: enforce, url: 'http://%s', timeout: 1s, within: 1s}], clamd: {mode: enforce, address: 'tcp:%s', within: 1s}}]\ncache: {", silent(t), silent(t)),
	}
}

func passwords(t *testing.T) []string { return withAuth(usersOf(t, ""), "") }

// passwordsInAPipe puts a pipe, into which nobody writes, in the place of the password file.
func passwordsInAPipe(t *testing.T, s *stack) {
	file := s.cfg.Auth[0].HTPasswd.File
	if err := errors.Join(os.Remove(file), syscall.Mkfifo(file, 0o600)); err != nil {
		t.Fatal(err)
	}
}

// TestNothingHangs: while a part that dray waits for hangs, each kind of request is answered, or
// its connection is closed.
func TestNothingHangs(t *testing.T) {
	former := net.DefaultResolver
	t.Cleanup(func() { net.DefaultResolver = former }) // when all stacks have ended
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	var rows sync.WaitGroup
	defer rows.Wait()
	for name, part := range hangs {
		edits := []string{"{name: main,", "{name: main, allow_anonymous_push: true, answer_within: 20s,", "  push: true\n", "  push: true\n  delete: true\n"}
		if part.edits != nil {
			edits = append(part.edits(t), edits...)
		}
		s := startStack(t, t.TempDir(), append(edits, "cache: {directory", "cache: {stall_timeout: 1s, directory")...)
		h := &hanging{stack: s, name: name, ecr: seed(t, s.ecr, "team/app", "v1", 64<<10), hub: seed(t, s.hub, "library/app", "v1", 64<<10), client: &http.Client{Timeout: hangPatience}}
		h.admin() // is served from now on
		if part.begin != nil {
			part.begin(t, s)
		}
		rows.Go(h.askAll)
	}
	rows.Wait()
}

// hanging is a stack one part of which hangs.
type hanging struct {
	*stack
	name     string
	ecr, hub seeded
	client   *http.Client
}

// askAll sends all kinds of requests at the same time, so that each meets the part that hangs, and
// then once more, when dray may know that it hangs.
func (h *hanging) askAll() {
	for range 2 {
		var all sync.WaitGroup
		for _, ask := range append(h.requests(), h.push) {
			all.Go(ask)
		}
		all.Wait()
	}
}

// requests are requests of each kind, but those of a push.
func (h *hanging) requests() (all []func()) {
	add := func(method, url string) {
		all = append(all, func() { h.ask(method, url, nil) })
	}
	for _, path := range []string{"/healthz", "/readyz", "/metrics", "/api/v1/stats"} {
		add("GET", h.adminURL+path)
	}
	for repo, img := range map[string]seeded{"team/app": h.ecr, "hub/app": h.hub} {
		at := h.url + "/v2/" + repo
		for _, method := range []string{"GET", "HEAD"} {
			add(method, h.url+"/v2/")
			for _, path := range []string{"/manifests/v1", "/manifests/" + img.manifest.Digest.String(), "/blobs/" + img.layer.String(), "/tags/list", "/referrers/" + img.manifest.Digest.String()} {
				add(method, at+path)
			}
		}
	}
	absent := digest.FromString("absent").String()
	add("DELETE", h.url+"/v2/team/app/manifests/"+absent)
	add("DELETE", h.url+"/v2/team/app/blobs/"+absent)
	add("POST", h.url+"/v2/team/app/blobs/uploads/?from=team/base&mount="+absent)
	return all
}

// push pushes an image, as far as dray accepts it.
func (h *hanging) push() {
	layer := layerOf(1, 10<<10)
	m := imageOf(h, layer)
	for _, blob := range [][]byte{layer, imageConfig} {
		start := h.ask("POST", h.url+"/v2/team/app/blobs/uploads/", nil)
		at := h.url + "/v2/team/app/blobs/uploads/none"
		if start != nil && start.StatusCode == http.StatusAccepted {
			at = h.url + start.Header.Get("Location")
		}
		h.ask("PATCH", at, blob)
		h.ask("GET", at, nil)
		h.ask("PUT", at+"?digest="+digest.FromBytes(blob).String(), nil)
	}
	h.ask("PUT", h.url+"/v2/team/app/manifests/pushed", m.Raw, "Content-Type", m.MediaType)
}

// ask sends a request, and fails if it hangs. It returns nil if dray closed the connection.
func (h *hanging) ask(method, url string, body []byte, headers ...string) *http.Response {
	began := time.Now()
	req, err := http.NewRequestWithContext(h.Context(), method, url, strings.NewReader(string(body)))
	if err != nil {
		h.Error(err)
		return nil
	}
	req.SetBasicAuth("alice", "wonderland")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := h.client.Do(req)
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	took := time.Since(began)
	switch {
	case errors.Is(err, context.DeadlineExceeded) || os.IsTimeout(err):
		h.Errorf("%s: %s %s hangs: %v", h.name, method, url, err)
	case took > 10*time.Second:
		h.Logf("%s: %s %s took %v: %v", h.name, method, url, took.Round(time.Second), err)
	}
	return resp
}
