package main

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/mirror/admin/api"
	"dray/upstream/ecrtest"
	"dray/upstream/oci"
)

// TestExplainForetellsFallbacks: explain says which fallback answers, and what the pull asks of
// whom.
func TestExplainForetellsFallbacks(t *testing.T) {
	fresh := behind()[:2] // tags are fresh for an hour
	for name, tc := range map[string]struct {
		edits    []string
		down     bool
		before   func(s *stack, img seeded)
		tag      string
		fallback string
		serves   api.Serving
	}{
		"the upstream answers": {edits: fresh, tag: "both", serves: api.ServeOrigin},
		"nothing is here": {
			edits: fresh, down: true, tag: "v1", fallback: "hub", serves: api.ServeOrigin,
		},
		"all of it is here": {
			edits: fresh, down: true, tag: "v1", fallback: "hub", serves: api.ServeCache,
			before: func(s *stack, img seeded) {
				if status := s.pullWhole("/v2/team/app", "v1"); status != http.StatusOK {
					s.Fatal(status)
				}
			},
		},
		"a layer is not here": {
			edits: fresh, down: true, tag: "v1", fallback: "hub", serves: api.ServeCache,
			before: func(s *stack, img seeded) {
				s.want(200, "GET", "/v2/team/app/manifests/v1", nil, "Accept", strings.Join(oci.AnyManifest(), ", "))
			},
		},
		"the tag is not fresh": {
			edits: behind(), down: true, tag: "v1", fallback: "hub", serves: api.ServeConfirm,
			before: func(s *stack, img seeded) {
				if status := s.pullWhole("/v2/team/app", "v1"); status != http.StatusOK {
					s.Fatal(status)
				}
			},
		},
		"an old answer of the upstream is here": {
			edits: behind(), down: true, tag: "both", serves: api.ServeStale,
			before: func(s *stack, img seeded) {},
		},
		"the upstream does not have it": {edits: fresh, tag: "v1", serves: api.ServeOrigin},
	} {
		t.Run(name, func(t *testing.T) {
			s := startStack(t, t.TempDir(), tc.edits...)
			img := seed(t, s.hub, "team/app", "v1", 10<<10)
			seed(t, s.ecr, "team/app", "both", 1<<10)
			seed(t, s.hub, "team/app", "both", 2<<10)
			seed(t, s.hub, "team/app", "late", 3<<10)
			if tc.down && tc.tag == "both" {
				if status := s.pullWhole("/v2/team/app", "both"); status != http.StatusOK {
					t.Fatal(status)
				}
			}
			if tc.down {
				s.ecr.AddFault(ecrtest.Fault{Kinds: readKinds, Count: -1, Status: 503})
				if tc.before != nil {
					tc.before(s, img)
				}
			}
			for range 100 { // the breaker lets a question through every 5 s, so a slow machine tries again
				began := time.Now()
				if tc.down {
					s.want(200, "GET", "/v2/team/app/manifests/late", nil)
				}
				s.sent()
				sentTo(s.hub)
				e := operated[api.Explanation](s, "explain", "ecr/team/app:"+tc.tag, "--platform", "linux/amd64")
				if to := fmt.Sprint(s.sent(), sentTo(s.hub)); to != "map[] map[]" {
					t.Errorf("explain sent %s", to)
				}
				status := 200
				if e.Pull.Open {
					status = s.do("GET", "/v2/team/app/manifests/"+tc.tag, nil, "Accept", strings.Join(oci.AnyManifest(), ", ")).StatusCode
				} else {
					status = s.pullWhole("/v2/team/app", tc.tag)
				}
				ecr, hub := s.sent(), sentTo(s.hub)
				if tc.down && time.Since(began) >= 4*time.Second {
					continue
				}
				if e.Pull.Serves != tc.serves || e.Pull.Fallback != tc.fallback {
					t.Errorf("%+v", e.Pull)
				}
				if wantECR, wantHub := foretold(e.Pull), foretoldFor(e.Pull, "hub"); fmt.Sprint(ecr, hub) != fmt.Sprint(wantECR, wantHub) {
					t.Errorf("the pull was answered by %d, and sent %v %v; %v %v was foretold", status, ecr, hub, wantECR, wantHub)
				}
				return
			}
			t.Fatal("no pull took less than 4 s")
		})
	}
}

// TestExplainForetellsBucket: what the bucket has costs the upstream no bytes, and explain says so.
func TestExplainForetellsBucket(t *testing.T) {
	b := pulled(t, t.TempDir(), 40<<10)
	s := b.emptied(t, t.TempDir())
	accept := strings.Join(oci.AnyManifest(), ", ")
	step := func(name string, serves api.Serving, open bool, inBucket ...digest.Digest) {
		t.Helper()
		s.idle()
		s.sent()
		e := operated[api.Explanation](s, "explain", "team/app:v1", "--platform", "linux/amd64")
		if got := s.sent(); len(got) > 0 {
			t.Errorf("%s: explain sent %v", name, got)
		}
		if e.Pull.Serves != serves || e.Pull.Open != open {
			t.Errorf("%s: %+v", name, e.Pull)
		}
		var has []digest.Digest
		for _, p := range e.Parts {
			if slices.Contains(p.Where, "bucket") {
				has = append(has, p.Digest)
			}
		}
		slices.Sort(has)
		slices.Sort(inBucket)
		if !slices.Equal(has, inBucket) {
			t.Errorf("%s: the bucket has %v, want %v: %+v", name, has, inBucket, e.Parts)
		}
		if open {
			s.want(200, "GET", "/v2/team/app/manifests/v1", nil, "Accept", accept)
		} else if status := s.pullWhole("/v2/team/app", "v1"); status != http.StatusOK {
			t.Errorf("%s: %d", name, status)
		}
		want := foretold(e.Pull)
		if len(e.Parts) == 1 && e.Parts[0].Digest == "" {
			delete(want, "manifest-get") // nobody knew what the tag means, and that is in the bucket
		}
		if got := s.sent(); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: the pull sent %v, and %v was foretold", name, got, want)
		}
	}
	config := b.manifest.Config.Digest
	step("nothing is known", api.ServeOrigin, true)
	step("the manifest is here", api.ServeCache, false, b.seeded.layer, config)
	step("all is here", api.ServeCache, false)
	s.planned(0)
	operated[api.Evicted](s, "evict", "--bytes", "1TB")
	// A hot answer would hide that: another process has none.
	dir := s.cfg.Cache.Directory
	s.stop()
	s = startBefore(t, b.ecr, b.hub, dir, withBucket(b.store)...)
	step("all was evicted", api.ServeCache, true, b.manifest.Digest)
	step("only the manifest is back", api.ServeCache, false, b.seeded.layer, config)
}
