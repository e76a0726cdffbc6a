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
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(2 * time.Millisecond) {
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
