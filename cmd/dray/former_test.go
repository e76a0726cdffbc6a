package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/cache/meta/metatest"
	"dray/mirror/admin/api"
	"dray/upstream/ecrtest"
	"dray/upstream/oci"
)

// formerEdits configure what has left something in testdata/former, and who takes it over. Content
// of the cache and facts go by the names of upstreams, so addresses may differ.
var formerEdits = []string{
	"upstreams: [ecr, hub]", "upstreams: [ecr, hub, own]",
	"upstreams:\n", "checks:\n- {name: gate, repositories: ['checked/*'], secrets: {mode: enforce}, base: {mode: enforce, allowed: ['docker.io/library/*']}}\nupstreams:\n- {name: own, kind: local, prefixes: [own]}\n",
	"  push: true\n", "  push: true\n  acknowledge: local\n  checks: [gate]\n  build_cache: {to: own}\n",
	"keep_alive: 0s", "keep_alive: 6h",
	"default_namespace: library\n", "default_namespace: library\n  push: true\n",
	"not_found: 1h}", "not_found: 20h}", "fresh: 1h", "fresh: 20h", "stale: 24h", "stale: 240h",
}

// oldBinary is a dray to compare with, or "".
func oldBinary() string { return os.Getenv("DRAY_OLD") }

// lone makes a connection for each request, so that none is left behind.
var lone = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// startBinary starts a dray that was built before, in a process of its own, as startBefore starts
// this one.
func startBinary(t *testing.T, binary string, ecr, hub *ecrtest.Running, dir string, edits ...string) *stack {
	t.Helper()
	front := "127.0.0.1:" + freePort(t)
	admin := front
	for admin == front {
		admin = "127.0.0.1:" + freePort(t)
	}
	s := &stack{TB: t, ecr: ecr, hub: hub, url: "http://" + front, adminURL: "http://" + admin}
	config := s.file(dir, append(edits, "listeners: [{", "admin: {address: '"+admin+"'}\nlisteners: [{address: '"+front+"', ")...)
	cmd := exec.Command(binary, "serve", "--config", config)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + os.TempDir(), "AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY=not-a-secret",
		"AWS_REGION=eu-west-1", "AWS_ENDPOINT_URL_ECR=" + ecr.APIURL, "AWS_ENDPOINT_URL_CLOUDWATCH=" + ecr.APIURL, "AWS_EC2_METADATA_DISABLED=true"}
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.stop = sync.OnceFunc(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(s.stop)
	s.client = lone
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		_, err := s.try("GET", "/v2/", nil)
		if resp, failed := lone.Get(s.adminURL + "/healthz"); err == nil && failed == nil {
			resp.Body.Close()
			return s
		}
		if time.Now().After(end) {
			t.Fatalf("%s does not start", binary)
		}
	}
}

// series is the sum of a metric at the admin listener, of this process or another one.
func (s *stack) series(name string) (sum float64) {
	s.Helper()
	resp, err := lone.Get("http://" + s.admin() + "/metrics")
	if err != nil {
		s.Fatal(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	for _, m := range regexp.MustCompile(`(?m)^`+regexp.QuoteMeta(name)+`(?:\{.*\})? (\S+)$`).FindAllStringSubmatch(string(text), -1) {
		v, _ := strconv.ParseFloat(m[1], 64)
		sum += v
	}
	return sum
}

// eventually waits for what happens in the background.
func (s *stack) eventually(what string, done func() bool) {
	s.Helper()
	for end := time.Now().Add(30 * time.Second); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			s.Fatalf("it never came to that: %s", what)
		}
	}
}

// pending are the pushes that the queue holds, as REPOSITORY:REFERENCE STATE, in order.
func (s *stack) pending() (found []string) {
	s.Helper()
	for _, p := range operated[api.Queued](s, "queue").Pushes {
		state := "waiting"
		if p.State == "failed" {
			state = "failed"
		}
		found = append(found, fmt.Sprintf("%s:%s %s", p.Repository, p.Reference, state))
	}
	return found
}

// flush lets the queue forward everything that is not refused, without its pauses.
func (s *stack) flush() {
	s.Helper()
	s.eventually("the queue is empty", func() bool {
		left := 0
		for _, p := range operated[api.Queued](s, "queue").Pushes {
			if p.State != "failed" {
				left++
				s.operator("queue", "retry", fmt.Sprint(p.ID))
			}
		}
		return left == 0
	})
}

// asked are the requests for one repository that a registry got, without those of its token
// service.
func asked(r *ecrtest.Running, repo string) (found []string) {
	<-r.Idle()
	for _, line := range r.Sequence("registry", "objects") {
		if strings.Contains(line, "/"+repo+"/") {
			found = append(found, line)
		}
	}
	return found
}

// TestFormerDirectory starts on what a former program left. Nothing of it is lost, and nothing is
// asked for again.
func TestFormerDirectory(t *testing.T) {
	f := newFormer(t)
	if *remake {
		f.make(t)
	}
	dir := t.TempDir()
	m := unpack(t, dir)
	f.shiftFacts(t, filepath.Join(dir, "facts.db"), time.Since(m.At))
	ecr, hub := f.registries(t)
	var log recording
	ecr.AddFault(ecrtest.Fault{Close: true, Count: 1 << 30})
	s := startLogging(t, io.MultiWriter(&log, t.Output()), ecr, hub, dir, formerEdits...)
	f.usesFacts(s)

	// Held content is served, pins hold, and hosted content is there.
	for _, name := range []string{"team/pulled:v1", "hub/library/base:12"} {
		if code, _, stderr := s.operator("purge", name); code != exitFailed || !strings.Contains(stderr, "pin") {
			t.Errorf("what is pinned can be purged: %s", stderr)
		}
	}
	pins := operated[api.Items[api.Pin]](s, "pin").Items
	if len(pins) != 2 || pins[0].HeldBlobs == 0 || len(pins[0].Missing)+len(pins[1].Missing) != 0 {
		t.Errorf("the pins are %+v", pins)
	}
	s.served("own/team/app", "v1", f.hosted, layerOf(3, 5000))
	s.served("team/cache", "main", f.cache, layerOf(11, 7000))
	s.served("own/ecr/team/cache", "main", f.cache, layerOf(11, 7000))
	if n := s.series("dray_keep_alive_images"); n < 1 {
		t.Errorf("%v images are kept alive", n)
	}

	// Every push is queued as it was, and is served meanwhile.
	if got := s.pending(); !slices.Equal(got, append(f.everythingWaits(), "checked/app:v2 waiting")) { // the last one is of this test
		t.Errorf("the queue has %q", got)
	}
	if p := operated[api.Queued](s, "queue").Pushes[0]; !strings.Contains(p.Error, "ecr:PutImage") {
		t.Errorf("the refused push has the error %q", p.Error)
	}
	for _, b := range append(f.refused.Layers, *f.refused.Config) {
		s.want(200, "HEAD", "/v2/team/refused/blobs/"+b.Digest.String(), nil)
	}
	s.served("team/a", "v1", f.second, layerOf(5, 4001), layerOf(6, 200))
	s.served("team/b", "v1", f.other, layerOf(7, 4002))
	if r := s.want(200, "GET", "/v2/team/c/manifests/all", nil); !bytes.Equal(r.body, f.index.Raw) {
		t.Error("another index")
	}
	f.continues(s, m)

	ecr.ClearFaults()
	s.flush()
	f.arrived(s)
	if got := s.pending(); !slices.Equal(got, f.everythingWaits()[:1]) {
		t.Errorf("the queue still has %q", got)
	}
	if _, ok := ecr.Image("team/refused", "v1"); ok {
		t.Error("the refused push was forwarded without anybody's retry")
	}
	if code, _, stderr := s.operator("queue", "retry", fmt.Sprint(operated[api.Queued](s, "queue").Pushes[0].ID)); code != 0 {
		t.Error(stderr)
	}
	s.flush()
	f.image(s, "team/refused", "v1", f.refused)
	if n := s.series("dray_meta_unreadable_total"); n != 0 {
		t.Errorf("%v facts were not understood", n)
	}
	for line := range strings.Lines(log.String()) {
		for _, word := range []string{"level=ERROR", "ignored", "discarded", "removed", "damaged", "moved its file", "corrupt"} {
			if strings.Contains(line, word) && !strings.Contains(line, "the push is queued") {
				t.Errorf("something was lost: %s", line)
			}
		}
	}

	// And back: the former program starts on what this one leaves.
	if oldBinary() == "" {
		s.stop()
		return
	}
	s.outage()
	late := s.push("team/late", "v1", layerOf(13, 3000))
	at := s.start("team/late")
	s.want(202, "PATCH", at, session()[:sessionSent])
	s.stop()
	old := startBinary(t, oldBinary(), ecr, hub, dir, formerEdits...)
	f.usesFacts(old)
	old.served("own/team/app", "v1", f.hosted, layerOf(3, 5000))
	old.served("team/cache", "main", f.cache, layerOf(11, 7000))
	old.served("team/late", "v1", late, layerOf(13, 3000))
	if pins := operated[api.Items[api.Pin]](old, "pin").Items; len(pins) != 2 {
		t.Errorf("the old program has the pins %+v", pins)
	}
	old.header(old.want(204, "GET", at, nil), "Range", fmt.Sprintf("0-%d", sessionSent-1))
	ecr.ClearFaults()
	old.flush()
	f.image(old, "team/late", "v1", late)
	if n := old.series("dray_meta_unreadable_total"); n != 0 {
		t.Errorf("the old program did not understand %v facts", n)
	}
	old.stop()
}

// TestFormerStateIsTakenOver starts with a state directory on what a program without one left, and
// once more: everything that exists nowhere else is in that directory and in use.
func TestFormerStateIsTakenOver(t *testing.T) {
	f, dir, state := newFormer(t), t.TempDir(), t.TempDir()
	unpack(t, dir)
	ecr, hub := f.registries(t)
	ecr.AddFault(ecrtest.Fault{Close: true, Count: 1 << 30})
	edits := append(slices.Clone(formerEdits), "listeners: [{", "state: {directory: '"+state+"'}\nlisteners: [{")
	for range 2 {
		s := startBefore(t, ecr, hub, dir, edits...)
		if got := s.pending(); !slices.Equal(got, f.everythingWaits()) {
			t.Errorf("the queue has %q", got)
		}
		pins := operated[api.Items[api.Pin]](s, "pin").Items
		if len(pins) != 2 || pins[0].HeldBlobs == 0 || len(pins[0].Missing)+len(pins[1].Missing) != 0 {
			t.Errorf("the pins are %+v", pins)
		}
		s.served("own/team/app", "v1", f.hosted, layerOf(3, 5000))
		s.stop()
		for _, gone := range []string{"queue", "hosted", "content/pins/*"} {
			if left, _ := filepath.Glob(filepath.Join(dir, gone)); len(left) > 0 {
				t.Errorf("still in the cache directory: %q", left)
			}
		}
	}
}

// usesFacts holds that what is known costs no request.
func (f *former) usesFacts(s *stack) {
	s.Helper()
	s.ecr.ResetCounters()
	s.hub.ResetCounters()
	for _, img := range []struct {
		at, tag string
		seeded
	}{{"/v2/team/pulled", "v1", f.pulled}, {"/v2/hub/library/base", "12", f.base}} {
		if r := s.want(200, "GET", img.at+"/manifests/"+img.tag, nil); !bytes.Equal(r.body, img.manifest.Raw) {
			s.Errorf("%s: another manifest", img.at)
		}
		s.want(200, "HEAD", img.at+"/manifests/"+img.tag, nil)
		for _, d := range []digest.Digest{img.manifest.Config.Digest, img.layer} {
			if r := s.want(200, "GET", img.at+"/blobs/"+d.String(), nil); digest.FromBytes(r.body) != d {
				s.Errorf("%s: another blob", img.at)
			}
		}
	}
	s.want(404, "GET", "/v2/team/pulled/manifests/none", nil)
	// The registry has the layers of the image, so no layer is fetched. The former checks judged
	// layers by other rules, so these are walked again, once; what is known of their base is enough.
	if r := s.putManifest("checked/app", "v2", f.built(s).man); r.StatusCode != 201 {
		s.Errorf("an image whose base is known: %s %s", r.Status, r.body)
	}
	walks := s.series(`dray_check_layers_total{source="walk"}`)
	if r := s.putManifest("checked/app", "v2", f.built(s).man); r.StatusCode != 201 {
		s.Errorf("an image whose layers are known: %s %s", r.Status, r.body)
	}
	if n := s.series(`dray_check_layers_total{source="walk"}`); n != walks {
		s.Errorf("%v layers were walked again", n-walks)
	}
	for _, got := range [][]string{asked(s.ecr, "team/pulled"), asked(s.hub, "library/base")} {
		if len(got) > 0 {
			s.Errorf("the registry was asked %q", got)
		}
	}
}

// continues checks that uploads go on where they were, and that received bytes need no second
// upload.
func (f *former) continues(s *stack, m made) {
	s.Helper()
	s.hub.ClearFaults()
	for _, repo := range []string{"team/", "hub/library/"} {
		s.want(200, "HEAD", "/v2/"+repo+"staged/blobs/"+digest.FromBytes(layerOf(10, 6000)).String(), nil)
		s.upload(repo+"staged", imageConfig)
		s.want(201, "PUT", "/v2/"+repo+"staged/manifests/v1", f.waited.Raw, "Content-Type", f.waited.MediaType)
		at, blob := m.Uploads[repo+"session"], session()
		s.header(s.want(204, "GET", at, nil), "Range", fmt.Sprintf("0-%d", sessionSent-1))
		s.refused(416, "RANGE_INVALID", "PATCH", at, blob[:100], "Content-Range", "0-99")
		s.want(202, "PATCH", at, blob[sessionSent:])
		s.want(201, "PUT", at+"?digest="+digest.FromBytes(blob).String(), nil)
		s.want(200, "HEAD", "/v2/"+repo+"session/blobs/"+digest.FromBytes(blob).String(), nil)
	}
}

// arrived holds that the registries have everything, in the order in which it was pushed.
func (f *former) arrived(s *stack) {
	s.Helper()
	f.image(s, "team/a", "v1", f.second)
	f.image(s, "team/b", "v1", f.other)
	f.image(s, "team/c", "all", f.index, f.children...)
	f.image(s, "team/staged", "v1", f.waited)
	if img, ok := s.hub.Image("library/staged", "v1"); !ok || !bytes.Equal(img.Raw, f.waited.Raw) {
		s.Error("the image of staged layers did not arrive at the hub")
	}
	var order []string
	for _, line := range s.ecr.Sequence("registry") {
		if name, ok := strings.CutPrefix(line, "PUT /v2/team/c/manifests/"); ok {
			order = append(order, name)
		}
	}
	order = slices.Compact(order) // an attempt may have failed
	if len(order) < 3 || order[len(order)-1] != "all" || slices.Index(order, "all") < 2 {
		s.Errorf("the index and its children came in the order %q", order)
	}
}

// image holds that the registry has an image with all its blobs.
func (f *former) image(s *stack, repo, ref string, m *oci.Manifest, children ...*oci.Manifest) {
	s.Helper()
	img, ok := s.ecr.Image(repo, ref)
	if !ok || !bytes.Equal(img.Raw, m.Raw) {
		s.Errorf("%s:%s did not arrive, or is another", repo, ref)
	}
	blobs := slices.Clone(m.Layers)
	if m.Config != nil {
		blobs = append(blobs, *m.Config)
	}
	for _, b := range blobs {
		if !s.ecr.HasBlob(repo, b.Digest) {
			s.Errorf("%s:%s: blob %s did not arrive", repo, ref, b.Digest)
		}
	}
	for _, c := range children {
		f.image(s, repo, c.Digest.String(), c)
	}
}

// TestFormerRedis uses the facts that a former program left in Redis, and shares one with it.
func TestFormerRedis(t *testing.T) {
	f := newFormer(t)
	server := metatest.StartRedis(t)
	restore(t, server)
	edits := append(slices.Clone(formerEdits), "cache: {dir", "metadata: {url: 'redis://"+server.Addr+"'}\ncache: {dir")
	directory := func() string {
		dir := t.TempDir()
		unpack(t, dir)
		if err := os.Remove(filepath.Join(dir, "facts.db")); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	ecr, hub := f.registries(t)
	s := startBefore(t, ecr, hub, directory(), edits...)
	f.usesFacts(s)
	if n := s.series("dray_meta_unreadable_total"); n != 0 {
		t.Errorf("%v facts were not understood", n)
	}
	if oldBinary() == "" {
		return
	}
	old := startBinary(t, oldBinary(), ecr, hub, directory(), edits...)
	f.usesFacts(old)
	for _, pair := range []struct {
		name            string
		asks, remembers *stack
	}{{"new", s, old}, {"old", old, s}} {
		// A fact about a tag that one program records is known to the other.
		img := seed(t, ecr, "team/shared", pair.name, 5000)
		pair.remembers.want(200, "GET", "/v2/team/shared/manifests/"+img.manifest.Digest.String(), nil)
		pair.asks.want(200, "GET", "/v2/team/shared/manifests/"+pair.name, nil)
		pair.asks.want(404, "GET", "/v2/team/shared/manifests/no-"+pair.name, nil)
		ecr.ResetCounters()
		pair.remembers.want(404, "GET", "/v2/team/shared/manifests/no-"+pair.name, nil)
		if r := pair.remembers.want(200, "GET", "/v2/team/shared/manifests/"+pair.name, nil); !bytes.Equal(r.body, img.manifest.Raw) {
			t.Error("another manifest")
		}
		if got := asked(ecr, "team/shared"); len(got) > 0 {
			t.Errorf("after the %s one had asked, the other one asked %q", pair.name, got)
		}
		// A push through one is what the tag is at the other.
		pushed := pair.asks.push("team/shared", pair.name, layerOf(20, 3000))
		pair.asks.flush()
		pair.remembers.eventually("the tag is what was pushed", func() bool {
			return bytes.Equal(pair.remembers.want(200, "GET", "/v2/team/shared/manifests/"+pair.name, nil).body, pushed.Raw)
		})
	}
	for _, one := range []*stack{s, old} {
		if n := one.series("dray_meta_unreadable_total"); n != 0 {
			t.Errorf("%v facts were not understood", n)
		}
	}
}
