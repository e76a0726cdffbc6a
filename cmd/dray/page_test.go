package main

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// TestPage: every page of a running dray is there, with what dray has done, and without secrets.
func TestPage(t *testing.T) {
	s := startStack(t, t.TempDir())
	m := imageOf(s, []byte("layer"))
	s.upload("team/app", imageConfig)
	s.upload("team/app", []byte("layer"))
	s.putManifest("team/app", "v1", m)
	s.want(200, "GET", "/v2/team/app/manifests/v1", nil)
	s.live() // so that the pull has been seen
	page := func(path string, want int) string {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.admin()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept", "text/html")
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != want || resp.Header.Get("Content-Security-Policy") == "" {
			t.Errorf("%s: %d, want %d; %v\n%s", path, resp.StatusCode, want, err, text)
		}
		return string(text)
	}
	name := "ecr/team/app:v1"
	for path, words := range map[string][]string{
		"/":                 {name, "Layers held", "Cache on disk", "Upstreams", "Traffic", "upstream ecr", "Net savings"},
		"/ui/live":          {name},
		"/ui/images?q=team": {name, "1 image", m.Digest.Hex()[:12]},
		"/ui/image?name=" + url.QueryEscape(name): {name, m.Digest.String(), "Next pull", "config", "layer"},
		"/ui/pushes":        {"Queue", "Uploads"},
		"/ui/savings":       {"By upstream", "ecr"},
		"/ui/configuration": {"listeners:", "upstreams:"},
	} {
		text := page(path, http.StatusOK)
		for _, w := range words {
			if !strings.Contains(text, w) {
				t.Errorf("%s lacks %q:\n%s", path, w, text)
			}
		}
		if strings.Contains(text, "not-a-secret") {
			t.Errorf("%s has a secret", path)
		}
	}
	page("/ui/fleet", http.StatusNotFound)
	page("/ui/image?name=@@", http.StatusBadRequest)
}
