package main

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"dray/mirror/pipeline"
)

// TestReportInBrowser: the address in the text of a rejected push gives browsers a page, with a
// policy that allows nothing else, and programs JSON.
func TestReportInBrowser(t *testing.T) {
	s := startStack(t, t.TempDir(), checked("  names: {mode: enforce, forbidden_tags: [bad]}")...)
	r := s.pushImage("team/app", "bad", newImage(t, plainConfig, noise(9, 1<<10)))
	path := regexp.MustCompile(`/dray/reports/\w+`).FindString(string(r.body))
	if path == "" {
		t.Fatalf("%s", r.body)
	}
	const browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
	page := s.want(200, "GET", path, nil, "Accept", browser)
	policy := page.Header.Get("Content-Security-Policy")
	if page.Header.Get("Content-Type") != "text/html; charset=utf-8" || !strings.HasPrefix(policy, "default-src 'none'; style-src 'sha256-") || strings.Contains(policy, "unsafe") {
		t.Errorf("%v", page.Header)
	}
	for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store", "Vary": "Accept"} {
		if got := page.Header.Get(name); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
	for _, want := range []string{"The push was rejected", "team/app:bad", "names/forbidden-tag", "docs/pipeline.md#names"} {
		if !strings.Contains(string(page.body), want) {
			t.Errorf("the page lacks %q:\n%s", want, page.body)
		}
	}
	head := s.want(200, "HEAD", path, nil, "Accept", browser)
	if len(head.body) > 0 || head.Header.Get("Content-Type") != page.Header.Get("Content-Type") || head.ContentLength != int64(len(page.body)) {
		t.Errorf("%v", head.Header)
	}
	for _, accept := range []string{"*/*", "application/json"} {
		program := s.want(200, "GET", path, nil, "Accept", accept)
		var report pipeline.Report
		if err := json.Unmarshal(program.body, &report); err != nil || report.Pass || program.Header.Get("Content-Security-Policy") != "" {
			t.Errorf("%s: %v %s", accept, err, program.body)
		}
	}
	s.want(404, "GET", path+"X", nil, "Accept", browser)
}
