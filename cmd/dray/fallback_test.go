package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/cmd/dray/routes"
	"dray/upstream/ecrtest"
)

// behind are the edits by which the hub is the fallback of ECR. ECR takes no pushes, and tags are
// asked for each time.
func behind(edits ...string) []string {
	return append([]string{"  push: true\n", "  fallbacks: [hub]\n", "fresh: 1h", "fresh: 0s", "not_found: 1h", "not_found: 0s"}, edits...)
}

// onNotFound is behind with a fallback that is also asked for what ECR does not have.
func onNotFound() []string {
	return append([]string{"  push: true\n", "  fallbacks: [{upstream: hub, on: not_found}]\n"}, behind()[2:]...)
}

// answeredBy checks which upstream an answer says it comes from: a fallback, or for "" the first.
func (s *stack) answeredBy(r got, fallback string) {
	s.Helper()
	if have := r.Header.Get("X-Dray-Fallback"); have != fallback {
		s.Errorf("%s %s comes from the fallback %q, want %q", r.Request.Method, r.Request.URL.Path, have, fallback)
	}
	warned := slices.ContainsFunc(r.Header.Values("Warning"), func(w string) bool { return strings.HasPrefix(w, `199 dray "Answered by the fallback `) })
	if warned != (fallback != "") {
		s.Errorf("%s %s: Warning %q", r.Request.Method, r.Request.URL.Path, r.Header.Values("Warning"))
	}
}

// pullsFrom pulls an image by tag and digest with its layer, by GET and HEAD, and checks that every
// answer is that of the fallback, or for "" that of ECR.
func (s *stack) pullsFrom(img seeded, fallback string) {
	s.Helper()
	d, layer := img.manifest.Digest.String(), img.layer.String()
	for _, path := range []string{"manifests/v1", "manifests/" + d, "blobs/" + layer} {
		for _, method := range []string{"HEAD", "GET"} {
			r := s.want(200, method, "/v2/team/app/"+path, nil)
			s.answeredBy(r, fallback)
			if method == "GET" && digest.FromBytes(r.body).String() != map[string]string{"manifests/v1": d, "manifests/" + d: d, "blobs/" + layer: layer}[path] {
				s.Errorf("%s: other bytes", path)
			}
		}
	}
}

// A fallback answers what the first upstream does not answer, and nothing else. Each answer of the
// first one says something, unless it is listed here as silence.
func TestFallbackWhen(t *testing.T) {
	notFound := ecrtest.Fault{Status: 404, Code: "MANIFEST_UNKNOWN"}
	for name, tc := range map[string]struct {
		fault  ecrtest.Fault
		edits  []string
		status int
	}{
		"down":                     {ecrtest.Fault{Close: true}, behind(), 200},
		"500":                      {ecrtest.Fault{Status: 500}, behind(), 200},
		"503":                      {ecrtest.Fault{Status: 503}, behind(), 200},
		"throttles":                {ecrtest.Fault{Status: 429}, behind(), 200},
		"refuses dray":             {ecrtest.Fault{Status: 403, Code: "DENIED", Message: "Your authorization token has expired. Reauthenticate and try again."}, behind(), 200},
		"refuses the repository":   {ecrtest.Fault{Status: 403, Code: "DENIED", Message: "User: x is not authorized to perform: ecr:BatchGetImage"}, onNotFound(), 403},
		"404":                      {notFound, behind(), 404},
		"404, with on: not_found":  {notFound, onNotFound(), 200},
		"500, with on: not_found":  {ecrtest.Fault{Status: 500}, onNotFound(), 200},
		"excluded at the fallback": {ecrtest.Fault{Status: 501}, behind("  default_namespace: library", "  repositories: {deny: [team/*]}"), 501},
	} {
		t.Run(strings.ReplaceAll(name, ",", ""), func(t *testing.T) {
			s := startStack(t, t.TempDir(), tc.edits...)
			img := seed(t, s.hub, "team/app", "v1", 10<<10)
			<-s.hub.Idle()
			s.hub.ResetCounters()
			tc.fault.Kinds, tc.fault.Count = readKinds, -1
			s.ecr.AddFault(tc.fault)
			if tc.status == 200 {
				s.pullsFrom(img, "hub")
				return
			}
			methods, paths := []string{"HEAD", "GET"}, []string{"manifests/v1", "manifests/" + img.manifest.Digest.String()}
			if tc.status >= 500 { // for a while, ECR is not asked again
				methods, paths = methods[1:], paths[1:]
			}
			for _, path := range paths {
				for _, method := range methods {
					s.answeredBy(s.want(tc.status, method, "/v2/team/app/"+path, nil), "")
				}
			}
			spent(t, s.hub, kinds{})
		})
	}
}

// While the first upstream answers, a fallback costs nothing. While it is down, it gets no request
// but the probe of the breaker, and the fallback gets those of its own budget. Once it is back, it
// answers again, but what the fallback has begun, the fallback ends.
func TestBudgetFallback(t *testing.T) {
	s := startStack(t, t.TempDir(), behind()[:2]...)
	img := seed(t, s.ecr, "team/app", "v1", 10<<10)
	other := seed(t, s.hub, "team/late", "v1", 20<<10)
	held := func() {
		for range 2 {
			for _, path := range []string{"manifests/v1", "manifests/" + img.manifest.Digest.String(), "blobs/" + img.layer.String()} {
				s.answeredBy(s.want(200, "GET", "/v2/team/app/"+path, nil), "")
			}
		}
	}
	held()
	spent(t, s.ecr, kinds{"GetAuthorizationToken": 1, "manifest-get": 1, "blob-get": 1, "s3-get": 1})
	spent(t, s.hub, kinds{})

	began, down := time.Now(), s.ecr.AddFault(ecrtest.Fault{Count: -1, Status: 503})
	manifest, layer := "/v2/team/late/manifests/", "/v2/team/late/blobs/"+other.layer.String()
	for range 3 {
		s.answeredBy(s.want(200, "GET", manifest+"v1", nil), "hub")
		s.answeredBy(s.want(200, "GET", manifest+other.manifest.Digest.String(), nil), "hub")
	}
	held()
	<-s.ecr.Idle()
	probes := s.ecr.Counters()["manifest-get"].Requests
	if most := 1 + int64(time.Since(began)/(5*time.Second)); probes > most { // the breaker lets one through in 5 s
		t.Errorf("%d probes in %v", probes, time.Since(began))
	}
	spent(t, s.ecr, kinds{"manifest-get": max(probes, 1)})
	spent(t, s.hub, kinds{"token": 1, "manifest-get": 2}) // the first GET gets a challenge

	s.ecr.RemoveFault(down)
	s.answeredBy(s.want(200, "GET", manifest+other.manifest.Digest.String(), nil), "hub")
	s.answeredBy(s.want(200, "GET", layer, nil), "hub")
	spent(t, s.ecr, kinds{})
	spent(t, s.hub, kinds{"blob-get": 1, "s3-get": 1})
}

// A failure that passes is no answer: if the fallback does not have the content either, the first
// upstream is asked once more, and answers in its own name.
func TestFallbackHasItNot(t *testing.T) {
	s := startStack(t, t.TempDir(), behind()...)
	img := seed(t, s.ecr, "team/app", "v1", 10<<10)
	for _, path := range []string{"manifests/v1", "manifests/" + img.manifest.Digest.String(), "blobs/" + img.layer.String()} {
		s.ecr.AddFault(ecrtest.Fault{Kinds: readKinds, Status: 503})
		s.answeredBy(s.want(200, "GET", "/v2/team/app/"+path, nil), "")
	}
	if n := s.metric("dray_fallback_answers_total"); n != 0 {
		t.Errorf("%v answers of the fallback were counted", n)
	}
}

// A pull that a fallback has begun goes on there, although the first upstream is back and does not
// have the image: an index, its manifests, their blobs, and what refers to them. A new process does
// the same.
func TestFallbackEndsWhatItBegan(t *testing.T) {
	dir := t.TempDir()
	edits := []string{"  prefixes: [hub]\n", "  prefixes: [hub]\n  fallbacks: [ecr]\n"}
	s := startStack(t, dir, edits...)
	layer := layerOf(7, 5000)
	m := pushDirectly(t, s.ecr, "team/app", "child", layer)
	putDirectly(t, s.ecr, "team/app", "v1", indexOf(t, m))
	down := s.hub.AddFault(ecrtest.Fault{Count: -1, Status: 503})
	s.answeredBy(s.want(200, "GET", "/v2/hub/team/app/manifests/v1", nil), "ecr")
	s.hub.RemoveFault(down)
	s.stop()

	s = startBefore(t, s.ecr, s.hub, dir, edits...)
	s.want(404, "GET", "/v2/hub/team/app/manifests/v1", nil) // Docker Hub answers again
	for _, path := range []string{"manifests/" + m.Digest.String(), "blobs/" + digest.FromBytes(layer).String(), "referrers/" + m.Digest.String()} {
		s.answeredBy(s.want(200, "GET", "/v2/hub/team/app/"+path, nil), "ecr")
	}
	s.answeredBy(s.want(200, "HEAD", "/v2/hub/team/app/blobs/"+digest.FromBytes(imageConfig).String(), nil), "ecr")
}

// A blob that breaks off for good breaks off for the client. It is not continued from elsewhere,
// and the next request gets it from the fallback.
func TestFallbackAfterABrokenBlob(t *testing.T) {
	s := startStack(t, t.TempDir(), behind("fresh: 0s", "fresh: 1h")...)
	img := seed(t, s.ecr, "team/app", "v1", 4<<20)
	seed(t, s.hub, "team/app", "v1", 4<<20)
	path := "/v2/team/app/blobs/" + img.layer.String()
	s.answeredBy(s.want(200, "GET", "/v2/team/app/manifests/v1", nil), "")
	s.hub.ResetCounters()
	s.ecr.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindObjectGet}, CutAt: ecrtest.At(1 << 20), Count: -1})
	s.ecr.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindBlobGet}, Skip: 1, Status: 404, Count: -1})
	if r, err := s.try("GET", path, nil); err == nil {
		t.Errorf("%s, %d bytes", r.Status, len(r.body))
	}
	spent(t, s.hub, kinds{})
	s.ecr.AddFault(ecrtest.Fault{Count: -1, Close: true})
	r := s.want(200, "GET", path, nil)
	if s.answeredBy(r, "hub"); digest.FromBytes(r.body) != img.layer {
		t.Errorf("%d other bytes", len(r.body))
	}
}

// An old answer of the first upstream goes before a fallback, whose tag may be older. Without one,
// the fallback answers, by what it says now and not by what it said before the first one did.
func TestFallbackTagOlder(t *testing.T) {
	for stale, want := range map[string]string{"24h": "ecr", "0s": "hub"} {
		t.Run(stale, func(t *testing.T) {
			const ofECR = "keep_alive: 0s\n  tags: {fresh: "
			s := startStack(t, t.TempDir(), behind()[0], behind()[1], ofECR+"1h, stale: 24h", ofECR+"0s, stale: "+stale)
			images := map[string]seeded{"ecr": seed(t, s.ecr, "team/app", "v1", 1000), "hub": seed(t, s.hub, "team/app", "v1", 2000)}
			s.answeredBy(s.want(200, "GET", "/v2/hub/team/app/manifests/v1", nil), "")
			s.answeredBy(s.want(200, "GET", "/v2/team/app/manifests/v1", nil), "")
			<-s.hub.Idle()
			s.hub.ResetCounters()
			down := s.ecr.AddFault(ecrtest.Fault{Kinds: readKinds, Count: -1, Status: 503})
			for _, method := range []string{"HEAD", "GET", "GET"} {
				r := s.want(200, method, "/v2/team/app/manifests/v1", nil)
				s.answeredBy(r, map[string]string{"hub": "hub"}[want])
				if have := r.Header.Get("Docker-Content-Digest"); have != images[want].manifest.Digest.String() {
					t.Errorf("%s: %s is not the image of %s", method, have, want)
				}
			}
			spent(t, s.hub, map[string]kinds{"ecr": {}, "hub": {"manifest-get": 1}}[want])
			s.ecr.RemoveFault(down)
		})
	}
}

// Content that a client has pulled from the fallback by its own name is not content of the first
// upstream, which is asked and does not have it.
func TestFallbackLeaksNothing(t *testing.T) {
	s := startStack(t, t.TempDir(), behind()...)
	img := seed(t, s.hub, "team/app", "v1", 3000)
	s.want(200, "GET", "/v2/hub/team/app/manifests/v1", nil)
	s.want(200, "GET", "/v2/hub/team/app/blobs/"+img.layer.String(), nil)
	for _, path := range []string{"manifests/v1", "manifests/" + img.manifest.Digest.String(), "blobs/" + img.layer.String()} {
		for _, method := range []string{"HEAD", "GET"} {
			s.answeredBy(s.want(404, method, "/v2/team/app/"+path, nil), "")
		}
	}
	// Content that the fallback gave in place of one repository belongs to no other repository.
	down := s.ecr.AddFault(ecrtest.Fault{Kinds: readKinds, Count: -1, Status: 503})
	s.pullsFrom(img, "hub")
	s.ecr.RemoveFault(down)
	s.want(404, "GET", "/v2/team/other/blobs/"+img.layer.String(), nil)
	s.want(404, "GET", "/v2/hub/team/other/blobs/"+img.layer.String(), nil)
	// The client needs the rights for the name that it uses, and no others.
	rules := `{anonymous: true, repositories: ["open/*"], actions: [pull]}`
	secured := startStack(t, t.TempDir(), behind(withAuth(usersOf(t, rules), "")...)...)
	for _, repo := range []string{"open/app", "team/app"} {
		seed(t, secured.hub, repo, "v1", 1000)
	}
	secured.ecr.AddFault(ecrtest.Fault{Kinds: readKinds, Count: -1, Status: 503})
	secured.hub.ResetCounters()
	secured.want(403, "GET", "/v2/team/app/manifests/v1", nil)
	secured.want(403, "GET", "/v2/hub/open/app/manifests/v1", nil)
	spent(t, secured.hub, kinds{})
	secured.answeredBy(secured.want(200, "GET", "/v2/open/app/manifests/v1", nil), "hub")
}

// Lists come from a fallback, too.
func TestFallbackLists(t *testing.T) {
	s := startStack(t, t.TempDir(), behind()...)
	img := seed(t, s.hub, "team/app", "v1", 1000)
	s.ecr.AddFault(ecrtest.Fault{Count: -1, Status: 503})
	r := s.want(200, "GET", "/v2/team/app/tags/list", nil)
	if s.answeredBy(r, "hub"); !bytes.Contains(r.body, []byte(`{"name":"team/app","tags":["v1"]}`)) {
		t.Errorf("%s", r.body)
	}
	s.answeredBy(s.want(200, "GET", "/v2/team/app/referrers/"+img.manifest.Digest.String(), nil), "hub")
}

// A push goes to the first upstream alone, and so do the questions that tell a client what to leave
// out of it.
func TestFallbackTakesNoPush(t *testing.T) {
	s := startStack(t, t.TempDir(), "  push: true\n", "  push: true\n  fallbacks: [{upstream: hub, on: not_found}]\n",
		"listeners: [{name: main, upstreams: [ecr, hub]}]", "listeners: [{name: main, upstreams: [ecr, hub], role: registry, allow_anonymous_push: true}]")
	img := seed(t, s.hub, "team/app", "v1", 3000)
	for _, path := range []string{"manifests/v1", "manifests/" + img.manifest.Digest.String(), "blobs/" + img.layer.String()} {
		s.want(404, "HEAD", "/v2/team/app/"+path, nil)
	}
	m := s.push("team/app", "v2", layerOf(5, 3000))
	s.ecr.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindManifestPut}, Count: -1, Status: 403, Code: "DENIED"})
	s.want(403, "PUT", "/v2/team/app/manifests/v3", m.Raw, "Content-Type", m.MediaType)
	spent(t, s.hub, kinds{})
}

// The log and the metrics tell which upstream a client asked for, and which one answered.
func TestFallbackIsTold(t *testing.T) {
	log := &recording{}
	s := startLogging(t, log, ecrtest.Start(t, ecrtest.Options{}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()}), t.TempDir(), behind()...)
	seed(t, s.hub, "team/app", "v1", 1000)
	s.ecr.AddFault(ecrtest.Fault{Kinds: readKinds, Count: -1, Status: 501})
	s.want(200, "GET", "/v2/team/app/manifests/v1", nil)
	s.want(501, "GET", "/v2/team/none/manifests/v1", nil)
	s.stop()
	for _, want := range []string{"upstream=hub instead_of=ecr repository=team/app", "upstream=ecr repository=team/none"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log has no %q:\n%s", want, log)
		}
	}
	if n := s.metric("dray_fallback_answers_total"); n != 1 {
		t.Errorf("%v answers of the fallback were counted", n)
	}
}

// The examples of the page are configurations that dray takes without a warning, but for the names
// that it asks for below a prefix.
func TestFallbackExamples(t *testing.T) {
	page, err := os.ReadFile("../../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## Fallbacks\n")
	section, _, _ = strings.Cut(section, "\n## ")
	examples := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(section, -1)
	for _, m := range examples {
		path := filepath.Join(t.TempDir(), "dray.yaml")
		if err := os.WriteFile(path, []byte(m[1]+"cache: {directory: "+t.TempDir()+"}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, err := load(path, nil)
		if err != nil {
			t.Errorf("%v\n%s", err, m[1])
			continue
		}
		for _, n := range slices.Concat(cfg.Notices(), routes.FallbackNotices(cfg)) {
			if !strings.Contains(n, "requests alpine as docker-hub/library/alpine") {
				t.Errorf("%s\n%s", n, m[1])
			}
		}
	}
	if len(examples) != 2 {
		t.Errorf("%d examples", len(examples))
	}
}

// An image that is warmed while the first upstream is down comes from the fallback, and clients get
// it from here.
func TestFallbackWarms(t *testing.T) {
	s := startStack(t, t.TempDir(), behind("fresh: 0s", "fresh: 1h")...)
	img := seed(t, s.hub, "team/app", "v1", 3000)
	s.ecr.AddFault(ecrtest.Fault{Kinds: readKinds, Count: -1, Status: 501})
	if code, _, stderr := s.warm("", "ecr/team/app:v1"); code != 0 {
		t.Fatalf("%d %s", code, stderr)
	}
	<-s.hub.Idle()
	s.hub.ResetCounters()
	for _, path := range []string{"manifests/" + img.manifest.Digest.String(), "blobs/" + img.layer.String()} {
		s.answeredBy(s.want(200, "GET", "/v2/team/app/"+path, nil), "hub")
	}
	spent(t, s.hub, kinds{})
	if code, _, stderr := s.warm("", "ecr/team/none:v1"); code == 0 || !strings.Contains(stderr, "ecr") {
		t.Errorf("%d %s", code, stderr)
	}

	shut := startStack(t, t.TempDir(), behind("  default_namespace: library", "  repositories: {deny: [team/*]}",
		"listeners: [{name: main, upstreams: [ecr, hub]}]", "listeners: [{name: main, upstreams: [ecr]}]")...)
	seed(t, shut.hub, "team/app", "v1", 3000)
	<-shut.hub.Idle()
	shut.hub.ResetCounters()
	shut.ecr.AddFault(ecrtest.Fault{Kinds: readKinds, Count: -1, Status: 501})
	if code, _, stderr := shut.warm("", "ecr/team/app:v1"); code == 0 {
		t.Errorf("%d %s", code, stderr)
	}
	spent(t, shut.hub, kinds{})
}
