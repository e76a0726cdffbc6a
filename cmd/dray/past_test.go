package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/mirror/admin/api"
	"dray/upstream/ecrtest"
	"dray/upstream/oci"
)

// explained returns what dray remembers of a request.
func (s *stack) explained(id string) api.Misses {
	s.Helper()
	return operated[api.Misses](s, "explain", "--request", id)
}

// missed returns the one miss with an ID.
func (s *stack) missed(id string) api.Miss {
	s.Helper()
	all := s.explained(id).Items
	for give := time.Now().Add(time.Minute); len(all) == 0 && time.Now().Before(give); all = s.explained(id).Items {
		runtime.Gosched() // a request is remembered after its answer was sent
	}
	if len(all) != 1 {
		s.Fatalf("%d misses have the ID %s: %+v", len(all), id, all)
	}
	return all[0]
}

// remembers waits until dray remembers so many misses. It remembers a request after it has sent the
// answer.
func (s *stack) remembers(n int) {
	s.Helper()
	s.until(func() bool {
		var all api.Misses
		if err := json.Unmarshal([]byte(s.fetched("http://"+s.admin()+"/api/v1/misses")), &all); err != nil {
			s.Fatal(err)
		}
		return len(all.Items) == n
	})
}

// askedLine describes what a miss asked, without redirects to the storage.
func askedLine(m api.Miss) string {
	var lines []string
	for _, q := range m.Asked {
		if strings.HasPrefix(q.Path, "/v2/") {
			_, rest, _ := strings.Cut(q.Path, "team/app/")
			kind, _, _ := strings.Cut(rest, "/")
			lines = append(lines, fmt.Sprint(q.Method, " ", kind, " ", q.Status))
		}
	}
	return strings.Join(lines, ", ")
}

// TestMisses: for each reason that the cache alone does not answer, dray remembers the reason, and
// what it asked of whom. It remembers nothing of what the cache answers.
func TestMisses(t *testing.T) {
	accept := strings.Join(oci.AnyManifest(), ", ")
	const id = "the.request"
	for name, tc := range map[string]struct {
		edits []string
		// before makes the state, and returns what is asked for.
		before func(s *stack, img seeded) (path string)
		method string
		status int
		cause  api.MissCause
		source string
		since  bool
		asked  string
		fails  bool
	}{
		"a tag that nobody has asked for": {
			before: func(*stack, seeded) string { return "manifests/v1" },
			cause:  api.MissNew, source: "origin", asked: "GET manifests 200",
		},
		"a layer that nobody has asked for": {
			before: func(s *stack, img seeded) string { return "blobs/" + img.layer.String() },
			cause:  api.MissNew, source: "origin", asked: "GET blobs 307",
		},
		"a tag that is not fresh": {
			edits: []string{"fresh: 1h", "fresh: 0s"},
			before: func(s *stack, img seeded) string {
				s.want(200, "GET", "/v2/team/app/manifests/v1", nil, "Accept", accept)
				return "manifests/v1"
			},
			cause: api.MissExpired, source: "cache", since: true, asked: "HEAD manifests 200",
		},
		"a tag that is served while the upstream fails": {
			edits: []string{"fresh: 1h", "fresh: 0s"},
			before: func(s *stack, img seeded) string {
				s.want(200, "GET", "/v2/team/app/manifests/v1", nil, "Accept", accept)
				s.ecr.AddFault(ecrtest.Fault{Kinds: readKinds, Count: -1, Status: 503})
				return "manifests/v1"
			},
			cause: api.MissExpired, source: "stale", since: true, asked: "HEAD manifests 503, GET manifests 503",
		},
		"a layer that was evicted": {
			before: func(s *stack, img seeded) string {
				if status := s.pullWhole("/v2/team/app", "v1"); status != http.StatusOK {
					s.Fatal(status)
				}
				s.planned(0)
				operated[api.Evicted](s, "evict", "--bytes", "1TB")
				return "blobs/" + img.layer.String()
			},
			cause: api.MissEvicted, source: "origin", since: true, asked: "GET blobs 307",
		},
		"a layer that was purged": {
			before: func(s *stack, img seeded) string {
				if status := s.pullWhole("/v2/team/app", "v1"); status != http.StatusOK {
					s.Fatal(status)
				}
				s.idle()
				operated[api.Purged](s, "purge", "team/app:v1")
				return "blobs/" + img.layer.String()
			},
			cause: api.MissRemoved, source: "origin", since: true, asked: "GET blobs 307",
		},
		"a layer that came through another repository": {
			before: func(s *stack, img seeded) string {
				layer := noise(78, 40<<10)
				pushDirectly(s, s.ecr, "team/other", "v1", layer)
				m := pushDirectly(s, s.ecr, "team/app", "v2", layer)
				if status := s.pullWhole("/v2/team/other", "v1"); status != http.StatusOK {
					s.Fatal(status)
				}
				s.idle()
				return "blobs/" + m.Layers[0].Digest.String()
			},
			cause: api.MissUnconfirmed, source: "disk", asked: "HEAD blobs 200",
		},
		"a tag that there is not": {
			before: func(*stack, seeded) string { return "manifests/none" },
			status: 404, cause: api.MissNew, asked: "GET manifests 404", fails: true,
		},
		"a tag that there was not a moment ago": {
			before: func(s *stack, _ seeded) string {
				s.want(404, "GET", "/v2/team/app/manifests/none", nil, "Accept", accept)
				return "manifests/none"
			},
			status: 404, cause: api.MissAbsent, since: true, fails: true,
		},
		"a layer that there was not a moment ago": {
			before: func(s *stack, _ seeded) string {
				path := "blobs/" + digest.FromString("absent").String()
				s.want(404, "GET", "/v2/team/app/"+path, nil)
				return path
			},
			status: 404, cause: api.MissAbsent, since: true, fails: true,
		},
		"a layer of another repository that there was not a moment ago": {
			before: func(s *stack, _ seeded) string {
				layer := noise(78, 40<<10)
				m := pushDirectly(s, s.ecr, "team/other", "v1", layer)
				path := "blobs/" + m.Layers[0].Digest.String()
				s.want(404, "GET", "/v2/team/app/"+path, nil)
				if status := s.pullWhole("/v2/team/other", "v1"); status != http.StatusOK {
					s.Fatal(status)
				}
				s.idle()
				return path
			},
			status: 404, cause: api.MissAbsent, since: true, fails: true,
		},
		"a digest that there was not a moment ago": {
			before: func(s *stack, _ seeded) string {
				path := "manifests/" + digest.FromString("absent").String()
				s.want(404, "GET", "/v2/team/app/"+path, nil, "Accept", accept)
				return path
			},
			status: 404, cause: api.MissAbsent, since: true, fails: true,
		},
		"a layer that came through another repository while the upstream fails": {
			before: func(s *stack, img seeded) string {
				m := pushDirectly(s, s.ecr, "team/other", "v1", noise(78, 40<<10))
				if status := s.pullWhole("/v2/team/other", "v1"); status != http.StatusOK {
					s.Fatal(status)
				}
				s.idle()
				s.ecr.AddFault(ecrtest.Fault{Kinds: readKinds, Count: -1, Status: 501})
				return "blobs/" + m.Layers[0].Digest.String()
			},
			status: 501, cause: api.MissUnconfirmed, asked: "HEAD blobs 501, GET blobs 501", fails: true,
		},
		"an upstream that fails": {
			before: func(s *stack, img seeded) string {
				s.ecr.AddFault(ecrtest.Fault{Kinds: readKinds, Count: -1, Status: 501})
				return "manifests/v1"
			},
			status: 501, cause: api.MissNew, asked: "GET manifests 501", fails: true,
		},
		"a layer that is here": {
			before: func(s *stack, img seeded) string {
				if status := s.pullWhole("/v2/team/app", "v1"); status != http.StatusOK {
					s.Fatal(status)
				}
				s.idle()
				return "blobs/" + img.layer.String()
			},
		},
		"a tag that is here": {
			before: func(s *stack, img seeded) string {
				s.want(200, "GET", "/v2/team/app/manifests/v1", nil, "Accept", accept)
				return "manifests/v1"
			},
		},
		"what a push asks": {
			method: "HEAD",
			before: func(*stack, seeded) string { return "blobs/" + digest.FromString("absent").String() },
			status: 404,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := startStack(t, t.TempDir(), tc.edits...)
			img := seed(t, s.ecr, "team/app", "v1", 40<<10)
			path := tc.before(s, img)
			method, status := tc.method, tc.status
			if method == "" {
				method = "GET"
			}
			if status == 0 {
				status = 200
			}
			s.want(status, method, "/v2/team/app/"+path, nil, "Accept", accept, "X-Request-Id", id, "User-Agent", "test/1")
			s.idle()
			if tc.cause == "" {
				if all := s.explained(id); len(all.Items) > 0 || all.Since.IsZero() {
					t.Errorf("%+v", all)
				}
				return
			}
			m := s.missed(id)
			if m.Cause != tc.cause || m.Source != tc.source || m.Since.IsZero() == tc.since || m.Status != status || (m.Error != "") != tc.fails {
				t.Errorf("%+v", m)
			}
			if got := askedLine(m); got != tc.asked {
				t.Errorf("asked %s, want %s", got, tc.asked)
			}
			if _, reference, _ := strings.Cut(path, "/"); m.Upstream != "ecr" || m.Repository != "team/app" || m.Reference != reference || m.Agent != "test/1" || m.Client != "127.0.0.1" {
				t.Errorf("%+v", m)
			}
			if (m.Stale != "") != (tc.source == "stale") {
				t.Errorf("stale %q", m.Stale)
			}
			// The explanation of the image has the miss, too.
			e := operated[api.Explanation](s, "explain", "team/app:v1")
			has := slices.ContainsFunc(e.Misses.Items, func(m api.Miss) bool { return m.RequestID == id })
			if ofImage := path == "manifests/v1" || path == "blobs/"+img.layer.String() && len(e.Parts) > 1; has != ofImage {
				t.Errorf("%+v", e.Misses)
			}
		})
	}
}

// TestLastPull: explain says who pulled an image last, while the pull goes on and after it, by tag
// and by digest.
func TestLastPull(t *testing.T) {
	s := startStack(t, t.TempDir())
	img := seed(t, s.ecr, "team/app", "v1", 40<<10)
	if e := operated[api.Explanation](s, "explain", "team/app:v1"); e.LastPull != nil {
		t.Errorf("%+v", e.LastPull)
	}
	pull := func(agent string) {
		s.want(200, "GET", "/v2/team/app/manifests/v1", nil, "Accept", strings.Join(oci.AnyManifest(), ", "), "User-Agent", agent)
		s.want(200, "GET", "/v2/team/app/blobs/"+img.layer.String(), nil, "User-Agent", agent)
	}
	last := func(want string, ended bool) {
		t.Helper()
		// A request ends after its answer was sent.
		for give := time.Now().Add(time.Minute); time.Now().Before(give); runtime.Gosched() {
			if ended {
				s.graph.live.End()
			}
			if p := operated[api.Explanation](s, "explain", "team/app:v1").LastPull; p != nil && p.Agent == want && p.Bytes >= 40<<10 && len(s.graph.live.Snapshot().Pulls) == 0 == ended {
				break
			}
		}
		for _, name := range []string{"team/app:v1", "team/app@" + img.manifest.Digest.String()} {
			p := operated[api.Explanation](s, "explain", name).LastPull
			if p == nil || p.Agent != want || p.Client != "127.0.0.1" || p.Reference != "v1" || p.Digest != img.manifest.Digest.String() || p.Bytes < 40<<10 {
				t.Errorf("%s: %+v", name, p)
			}
		}
	}
	pull("first/1")
	last("first/1", false)
	last("first/1", true)
	pull("second/1")
	last("second/1", true)
	if e := operated[api.Explanation](s, "explain", "team/app:v2"); e.LastPull != nil {
		t.Errorf("%+v", e.LastPull)
	}
}

// TestExplainVerdict: explain has the verdict on the last push under a name, and what the client
// was told.
func TestExplainVerdict(t *testing.T) {
	s := startStack(t, t.TempDir(), checked("  names: {mode: enforce, forbidden_tags: [bad]}")...)
	img := newImage(t, plainConfig, noise(9, 1<<10))
	for tag, want := range map[string]int{"good": 201, "bad": 403} {
		if r := s.pushImage("team/app", tag, img); r.StatusCode != want {
			t.Fatalf("%s: %s", tag, r.body)
		}
	}
	for tag, want := range map[string]string{"good": "pass", "bad": "reject"} {
		v := operated[api.Explanation](s, "explain", "team/app:"+tag).Verdict
		if v == nil || v.Outcome != want || v.Tag != tag || v.Checks != "gate" || (v.Message != "") != (want == "reject") {
			t.Fatalf("%s: %+v", tag, v)
		}
		s.want(200, "GET", v.Report, nil)
	}
	_, text, _ := s.operator("explain", "team/app:bad")
	if !strings.Contains(text, "was rejected by the checks gate") || !strings.Contains(text, "names/") {
		t.Errorf("%s", text)
	}
}
