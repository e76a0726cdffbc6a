package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"dray/mirror/admin/api"
	"dray/mirror/notify"
	"dray/upstream/ecrtest"
)

// listener collects events.
type listener struct {
	mu     sync.Mutex
	events []notify.Event
}

func (l *listener) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var envelope struct{ Events []notify.Event }
	body, err := io.ReadAll(r.Body)
	if err != nil || json.Unmarshal(body, &envelope) != nil || r.Header.Get("Content-Type") != notify.MediaType {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, envelope.Events...)
}

// next waits for so many events, and forgets them.
func (l *listener) next(t *testing.T, n int) []notify.Event {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(2 * time.Millisecond) {
		l.mu.Lock()
		events := l.events
		if len(events) >= n {
			l.events = nil
			l.mu.Unlock()
			return events
		}
		l.mu.Unlock()
		if time.Now().After(end) {
			t.Fatalf("%d events, want %d", len(events), n)
		}
	}
}

// A webhook gets an event for each verdict, push and deletion, with the user, the image and the
// repository; the log has the same.
func TestNotifications(t *testing.T) {
	told := &listener{}
	service := httptest.NewServer(told)
	defer service.Close()
	log := &recording{}
	s := startLogging(t, log, ecrtest.Start(t, ecrtest.Options{}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()}), t.TempDir(),
		"  push: true\n", "  push: true\n  delete: true\n  checks: [gate]\n", "upstreams:\n",
		"notifications: [{url: '"+service.URL+"'}]\nchecks:\n- {name: gate, names: {mode: enforce, forbidden_tags: [latest]}, metadata: {mode: warn, required: [{key: team}]}}\nupstreams:\n")
	s.ecr.CreateRepository("team/app")
	img := newImage(t, plainConfig, gzipOf(t, tarOf(t, "a", "b")))
	s.message(s.pushImage("team/app", "latest", img, "User-Agent", "tester"))
	e := told.next(t, 1)[0]
	if e.Action != notify.Verdict || e.Verdict == nil || e.Verdict.Result != "reject" || e.Verdict.Checks != "gate" || e.Verdict.Findings != 2 || len(e.Verdict.Rules) != 1 ||
		e.Target.Tag != "latest" || e.Target.Digest != img.man.Digest || e.Upstream != "ecr" || e.Request.UserAgent != "tester" || e.ID == "" || e.Timestamp.IsZero() || e.Source.InstanceID == "" {
		t.Errorf("a rejection: %+v, %+v", e, e.Verdict)
	}
	if r := s.want(200, "GET", strings.TrimPrefix(e.Verdict.Report, s.url), nil); !strings.Contains(string(r.body), "forbidden-tag") {
		t.Errorf("the report: %s", r.body)
	}
	for _, want := range []string{"verdict=reject", "client=127.0.0.1:", "rules=names/forbidden-tag", `found="metadata/required=1 names/forbidden-tag=1"`} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("%s is not in the log", want)
		}
	}

	if r := s.pushImage("team/app", "v1", img); r.StatusCode != http.StatusCreated {
		t.Fatalf("%s %s", r.Status, r.body)
	}
	both := told.next(t, 2)
	if e := both[0]; e.Action != notify.Verdict || e.Verdict.Result != "pass" {
		t.Errorf("a verdict: %+v", e)
	}
	e = both[1]
	if e.Action != notify.Push || e.Verdict != nil || e.Target.Repository != "team/app" || e.Target.Tag != "v1" || e.Target.Size != int64(len(img.man.Raw)) || e.Target.MediaType != img.man.MediaType {
		t.Errorf("a push: %+v", e)
	}
	s.want(200, "GET", strings.TrimPrefix(e.Target.URL, s.url), nil)

	s.want(202, "DELETE", "/v2/team/app/manifests/"+img.man.Digest.String(), nil)
	if e := told.next(t, 1)[0]; e.Action != notify.Delete || e.Target.Digest != img.man.Digest || e.Request.Method != "DELETE" {
		t.Errorf("a deletion: %+v", e)
	}
}

// A service that wants pulls gets one event for each image, when the pull has ended. Others get
// none.
func TestPullEvents(t *testing.T) {
	everything, pushes := &listener{}, &listener{}
	a, b := httptest.NewServer(everything), httptest.NewServer(pushes)
	defer a.Close()
	defer b.Close()
	s := startStack(t, t.TempDir(), "upstreams:\n",
		"notifications: [{name: all, url: '"+a.URL+"', pulls: true}, {name: pushes, url: '"+b.URL+"'}]\nupstreams:\n")
	img := seed(t, s.hub, "team/app", "v1", 1000)
	s.want(200, "HEAD", "/hub/v2/team/app/manifests/v1", nil)
	s.want(200, "GET", "/hub/v2/team/app/manifests/v1", nil, "User-Agent", "tester")
	s.want(200, "GET", "/hub/v2/team/app/blobs/"+img.layer.String(), nil)
	s.want(200, "HEAD", "/hub/v2/team/app/manifests/v1", nil)
	s.untilLive("the end of the requests", func(l api.Live) bool { return len(l.Pulls) == 1 && l.Pulls[0].State == api.LiveIdle })
	s.graph.live.End()
	s.ecr.CreateRepository("team/pushed")
	s.push("team/pushed", "v1", []byte("layer")) // later than the pull, so it is the only event where pulls are not wanted
	e := everything.next(t, 2)[0]
	if e.Action != notify.Pull || e.Upstream != "hub" || e.Target.Repository != "team/app" || e.Target.Tag != "v1" || e.Target.Digest != img.manifest.Digest ||
		e.Target.Size != int64(len(img.manifest.Raw)) || e.Request.Addr != "127.0.0.1" || e.Request.UserAgent == "" || e.Pull == nil || e.Verdict != nil {
		t.Fatalf("%+v", e)
	}
	if p := e.Pull; p.Asked != 1 || p.Layers != len(img.manifest.Layers) || p.Bytes != img.manifest.Layers[0].Size+int64(len(img.manifest.Raw)) || p.Failures != 0 || p.Began.IsZero() || p.Ended.IsZero() {
		t.Errorf("%+v", p)
	}
	if got := pushes.next(t, 1); len(got) != 1 || got[0].Action != notify.Push {
		t.Errorf("where pulls are not wanted: %+v", got)
	}
}
