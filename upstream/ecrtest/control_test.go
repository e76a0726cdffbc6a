package ecrtest_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"dray/upstream/ecrtest"
)

// control calls the control API.
func (r *rig) control(method, path, in string) answer {
	r.t.Helper()
	return r.do(method, r.ControlURL+path, strings.NewReader(in))
}

func TestControl(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	r := start(t, ecrtest.Options{Clock: func() time.Time { return now }})
	_, raw := r.image("team/app", "v1", "layer")
	get := func() answer { return r.get("/v2/team/app/manifests/v1") }
	ok := func(method, path, in string) answer {
		t.Helper()
		return r.control(method, path, in).want(t, http.StatusOK, "", "")
	}
	ok("GET", "/", "")
	if a := ok("POST", "/faults", `{"kinds":["manifest-get"],"status":503,"retryAfter":"2s","latency":"1ms"}`); string(a.Body) != `{"id":1}` {
		t.Errorf("%s", a.Body)
	}
	if a := ok("GET", "/faults", ""); string(a.Body) != `[{"id":1,"kinds":["manifest-get"],"status":503,"latency":"1ms","retryAfter":"2s"}]` {
		t.Errorf("%s", a.Body)
	}
	if a := get().want(t, 503, "", ""); a.Header.Get("Retry-After") != "2" {
		t.Errorf("%v", a.Header)
	}
	get().want(t, http.StatusOK, "", string(raw))
	ok("POST", "/faults", `{"count":-1,"cutAt":0}`)
	ok("DELETE", "/faults/1", "")
	ok("DELETE", "/faults", "")
	get().want(t, http.StatusOK, "", string(raw))
	ok("PUT", "/switches", `{"refuseUnacceptable":true}`)
	r.get("/v2/team/app/manifests/v1", "Accept", "text/html").want(t, 404, "", "")
	if sw := r.Switches(); !sw.ManifestPutDigest {
		t.Error("a switch that was not named has changed")
	}
	ok("PUT", "/denials", `[{"action":"ecr:BatchGetImage"}]`)
	get().want(t, http.StatusForbidden, "DENIED", "")
	ok("PUT", "/denials", `[]`)
	ok("PUT", "/quotas", `{"BatchGetImage":{"rate":0,"burst":0}}`)
	get().want(t, http.StatusTooManyRequests, "", "")
	ok("PUT", "/quotas", `null`)
	ok("PUT", "/bandwidth", `{"perConnection":1000000,"total":1000000}`)
	get().want(t, http.StatusOK, "", string(raw))
	if a := ok("POST", "/clock", `{"advance":"13h"}`); string(a.Body) != `{"now":"2026-03-02T01:00:00Z"}` {
		t.Errorf("%s", a.Body)
	}
	get().want(t, http.StatusForbidden, "DENIED", "")
	r.basic = r.Token("")
	ok("POST", "/archive", `{"repository":"team/app","digest":"v1","archived":true}`)
	get().want(t, http.StatusNotFound, "", "")
	var images []ecrtest.Image
	unmarshal(t, ok("GET", "/images", "").Body, &images)
	if len(images) != 1 || images[0].Pulls != 3 || !images[0].Archived || !images[0].LastPull.Equal(now) {
		t.Errorf("%+v", images)
	}
	var counts map[ecrtest.Kind]ecrtest.Count
	unmarshal(t, ok("GET", "/counters", "").Body, &counts)
	if counts["manifest-get"] != r.Counters()["manifest-get"] || counts["manifest-get"].Requests == 0 {
		t.Errorf("%+v", counts)
	}
	ok("POST", "/expire/tokens", "")
	get().want(t, http.StatusForbidden, "DENIED", "")
	ok("POST", "/expire/urls", "")
	ok("POST", "/expire/signer", "")
	ok("GET", "/uploads", "")
	ok("GET", "/idle", "")
	ok("GET", "/metrics", "")
	ok("POST", "/reset", "")
	var log []ecrtest.Entry
	unmarshal(t, ok("GET", "/log", "").Body, &log)
	if len(log) != 0 {
		t.Errorf("%+v", log)
	}
	for path, in := range map[string]string{"POST /faults": `{"nonsense":1}`, "POST /faults ": `{"latency":"soon"}`, "PUT /switches": `[]`, "POST /clock": `{"advance":"x"}`,
		"DELETE /faults/9": "", "POST /archive": `{"repository":"none"}`, "PUT /quotas": `{`} {
		method, path, _ := strings.Cut(strings.TrimSpace(path), " ")
		r.control(method, path, in).want(t, http.StatusBadRequest, "", "")
	}
}
