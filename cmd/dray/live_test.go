package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"dray/mirror/admin/api"
	"dray/upstream/ecrtest"
)

// pullOf pulls what a client does that has some of the layers: an index, the manifest of a
// platform, its configuration, and the other layers.
func (s *stack) pullOf(prefix, tag string, index, platform digest.Digest, blobs ...digest.Digest) {
	s.Helper()
	s.want(200, "HEAD", prefix+"/manifests/"+tag, nil)
	s.want(200, "GET", prefix+"/manifests/"+index.String(), nil)
	s.want(200, "GET", prefix+"/manifests/"+platform.String(), nil)
	for _, b := range blobs {
		s.want(200, "GET", prefix+"/blobs/"+b.String(), nil)
	}
}

func (s *stack) live() api.Live {
	s.Helper()
	return operated[api.Live](s, "top", "--once")
}

// untilLive waits until dray shows what is wanted.
func (s *stack) untilLive(what string, ok func(api.Live) bool) api.Live {
	s.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		l := s.live()
		if ok(l) {
			return l
		}
		if time.Now().After(end) {
			s.Fatalf("%s: %+v", what, l)
		}
	}
}

// TestLivePulls: dray top shows a pull while a layer arrives, and what came from where.
func TestLivePulls(t *testing.T) {
	s := startStack(t, t.TempDir())
	layers := [][]byte{bytes.Repeat([]byte("a"), 3<<20), bytes.Repeat([]byte("b"), 5000), []byte("c")}
	m := imageOf(t, layers...)
	other := []byte("another platform")
	m2 := imageOf(t, other)
	index := indexOf(t, m, m2)
	s.ecr.CreateRepository("team/app")
	putDirectly(t, s.ecr, "team/app", m.Digest.String(), m, append(layers, imageConfig)...)
	putDirectly(t, s.ecr, "team/app", m2.Digest.String(), m2, other)
	putDirectly(t, s.ecr, "team/app", "v1", index)
	names := make([]digest.Digest, len(layers))
	for i, l := range layers {
		names[i] = digest.FromBytes(l)
	}

	held := s.ecr.AddFault(ecrtest.Fault{Blob: names[0], Kinds: []ecrtest.Kind{ecrtest.KindObjectGet}, HoldAt: ecrtest.At(1 << 20)})
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.pullOf("/v2/team/app", "v1", index.Digest, m.Digest, digest.FromBytes(imageConfig), names[1], names[0])
	}()
	now := s.untilLive("half of a layer", func(l api.Live) bool {
		return len(l.Pulls) == 1 && l.Pulls[0].Layers.Asked == 2 && l.Pulls[0].Bytes > 1<<19
	})
	if p := now.Pulls[0]; p.State != api.LiveActive || p.Bytes > 2<<20 || p.Reference != "v1" || p.Client != "127.0.0.1" || p.Upstream != "ecr" || p.Repository != "team/app" {
		t.Errorf("under way: %+v", p)
	}
	if code, out, errs := s.operator("top", "--once"); code != 0 || !strings.Contains(out, "ecr/team/app:v1  127.0.0.1  2 of 3") || !strings.Contains(out, "active") {
		t.Errorf("%d %s%s", code, out, errs)
	}
	s.ecr.RemoveFault(held)
	<-done
	now = s.untilLive("the end", func(l api.Live) bool { return l.Pulls[0].State == api.LiveIdle })
	p := now.Pulls[0]
	content := int64(len(index.Raw) + len(m.Raw) + len(imageConfig) + len(layers[0]) + len(layers[1]))
	want := api.LiveLayers{Asked: 2, Of: 3, Bytes: int64(len(layers[0]) + len(layers[1]))}
	if len(now.Pulls) != 1 || p.Bytes != content || p.Layers != want || p.Failures != 0 || p.Digest != index.Digest.String() {
		t.Errorf("at the end: %+v, %d bytes", now.Pulls, content)
	}
	if p.Sources["origin"] < int64(len(layers[0])) {
		t.Error("where it came from:", p.Sources)
	}

	// Again, and the layer in ranges: the same pull, from the cache.
	r := s.do("GET", "/v2/team/app/blobs/"+names[2].String(), nil)
	s.do("GET", "/v2/team/app/blobs/"+names[0].String(), nil, "Range", "bytes=0-99")
	s.do("GET", "/v2/team/app/blobs/"+names[0].String(), nil, "Range", "bytes=100-199")
	p = s.untilLive("again", func(l api.Live) bool { return l.Pulls[0].State == api.LiveIdle }).Pulls[0]
	if p.Layers.Asked != 3 || p.Bytes != content+int64(len(r.body))+200 || p.Sources["disk"]+p.Sources["memory"] < 200 {
		t.Errorf("again: %+v", p)
	}

	// HEAD alone is no pull; a failure is shown with the ID that the log has.
	s.want(200, "HEAD", "/hub/v2/team/other/manifests/"+s.seedHub("team/other"), nil)
	s.want(404, "GET", "/hub/v2/team/app/blobs/"+digest.FromString("none").String(), nil, "X-Request-Id", "lost-1")
	l := s.live()
	if len(l.Pulls) != 2 || l.Pulls[1].RequestID != "lost-1" || l.Pulls[1].Failures != 1 || l.Pulls[1].Bytes != 0 || l.Pulls[1].Digest != "" {
		t.Errorf("a failure: %+v", l.Pulls)
	}
}

func (s *stack) seedHub(repo string) string {
	s.Helper()
	return seed(s, s.hub, repo, "v1", 1000).manifest.Digest.String()
}

// TestLivePushes: dray top shows how far a push is, and the verdict.
func TestLivePushes(t *testing.T) {
	s := startStack(t, t.TempDir(), "  push: true\n", "  push: true\n  checks: [gate]\n", "upstreams:\n",
		"checks:\n- {name: gate, names: {mode: enforce, forbidden_tags: [latest]}}\nupstreams:\n")
	s.ecr.CreateRepository("team/app")
	img := newImage(t, plainConfig, gzipOf(t, tarOf(t, "a", "b")))
	if r := s.pushImage("team/app", "v1", img, "User-Agent", "tester"); r.StatusCode != http.StatusCreated {
		t.Fatal(r.Status, string(r.body))
	}
	if r := s.pushImage("team/app", "latest", img); r.StatusCode != http.StatusForbidden {
		t.Fatal(r.Status)
	}
	size := int64(len(img.layers[0]) + len(img.config))
	var got []string
	for _, p := range s.untilLive("the end", func(l api.Live) bool {
		return len(l.Pushes) == 2 && l.Pushes[1].State == api.LiveIdle && l.Pushes[0].Forwarded == size && l.Pushes[1].Forwarded > 0
	}).Pushes {
		got = append(got, fmt.Sprintf("%s:%s pushed=%v blobs=%d blob bytes=%v forwarded=%v checks=%s failures=%d", p.Repository, p.Reference, p.Pushed, p.Blobs,
			p.Received-int64(len(img.man.Raw)) == size, p.Forwarded > 0, p.Checks, p.Failures))
	}
	want := []string{
		"team/app:v1 pushed=true blobs=2 blob bytes=true forwarded=true checks=pass failures=0",
		"team/app:latest pushed=false blobs=2 blob bytes=true forwarded=true checks=reject failures=1",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// events requests the stream of events as a user with the password of bob; "" means no credentials.
func (s *stack) events(user string) *http.Response {
	s.Helper()
	r, err := http.NewRequestWithContext(s.Context(), http.MethodGet, "http://"+s.admin()+"/api/v1/live/events", nil)
	if err != nil {
		s.Fatal(err)
	}
	if user != "" {
		r.SetBasicAuth(user, "builder")
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

// TestLiveStream: operators who may view get an event at once, and the stream ends when dray stops.
func TestLiveStream(t *testing.T) {
	auth := usersOf(t, "{users: [bob], actions: [view]}")
	s := startStack(t, t.TempDir(), "cache: {dir", auth+"\nadmin: {auth: people}\ncache: {dir")
	if r := s.events(""); r.StatusCode != http.StatusUnauthorized {
		t.Error("without credentials:", r.Status)
	}
	s.want(200, "GET", "/hub/v2/team/app/manifests/"+s.seedHub("team/app"), nil)
	resp := s.events("bob")
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" || resp.Header.Get("Cache-Control") != "no-store" {
		t.Fatal(resp.Status, resp.Header)
	}
	in := bufio.NewReader(resp.Body)
	for range 2 {
		line, err := in.ReadString('\n')
		data, ok := strings.CutPrefix(line, "data: ")
		var l api.Live
		if err != nil || !ok || json.Unmarshal([]byte(data), &l) != nil || len(l.Pulls) != 1 {
			t.Fatal(line, err)
		}
		if empty, err := in.ReadString('\n'); empty != "\n" {
			t.Fatalf("after an event: %q, %v", empty, err)
		}
	}
	s.endWatching() // as when the admin listener stops
	if _, err := io.Copy(io.Discard, in); err != nil {
		t.Error("the end of the stream:", err)
	}
}

// TestStreamEndsAtReload: a reload ends the streams, so an operator who may no longer view gets no
// more events.
func TestStreamEndsAtReload(t *testing.T) {
	auth := usersOf(t, "{users: [bob], actions: [view]}")
	s := startStack(t, t.TempDir(), "cache: {dir", auth+"\nadmin: {auth: people}\ncache: {dir")
	stream := s.events("bob")
	in := bufio.NewReader(stream.Body)
	if line, err := in.ReadString('\n'); stream.StatusCode != http.StatusOK || !strings.HasPrefix(line, "data: ") {
		t.Fatal(stream.Status, line, err)
	}
	s.edit("users: [bob]", "users: [alice]")
	if _, err := s.reloads.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, in); err != nil {
		t.Error("the end of the stream:", err)
	}
	if r := s.events("bob"); r.StatusCode != http.StatusForbidden {
		t.Error("after the reload:", r.Status)
	}
}

// TestTop: without a terminal, dray top prints lines, or JSON, until it is stopped. It opens
// another stream when one ends.
func TestTop(t *testing.T) {
	s := startStack(t, t.TempDir())
	s.want(200, "GET", "/hub/v2/team/app/manifests/"+s.seedHub("team/app"), nil)
	followUntil := func(enough func() bool, args ...string) (code int, out, errs string) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		lines := &eachLine{then: func() {
			if enough() {
				cancel()
			}
		}}
		var problems bytes.Buffer
		code = run(ctx, append([]string{"top", "--admin", s.admin()}, args...), nil, strings.NewReader(""), lines, &problems)
		return code, lines.String(), problems.String()
	}
	follow := func(args ...string) (code int, out, errs string) {
		return followUntil(func() bool { return true }, args...)
	}
	if code, out, errs := follow(); code != exitOK || !strings.Contains(out, " pull hub/team/app@sha256:") || !strings.Contains(out, "  0 of 1  ") {
		t.Errorf("%d %q %s", code, out, errs)
	}
	var l api.Live
	if code, out, errs := follow("--json"); code != exitOK || json.Unmarshal([]byte(strings.SplitAfter(out, "\n")[0]), &l) != nil || len(l.Pulls) != 1 {
		t.Errorf("%d %q %s", code, out, errs)
	}
	s.admin()
	ended := false
	if code, out, errs := followUntil(func() bool { // streams end, as after a reload
		enough := ended
		ended = true
		s.endWatching()
		return enough
	}, "--json"); code != exitOK || strings.Count(out, "\n") < 2 {
		t.Errorf("after the end of a stream: %d %q %s", code, out, errs)
	}
}

// eachLine calls a function when a line was written.
type eachLine struct {
	bytes.Buffer
	then func()
}

func (f *eachLine) Write(p []byte) (int, error) {
	n, err := f.Buffer.Write(p)
	f.then()
	return n, err
}
