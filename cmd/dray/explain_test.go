package main

import (
	"cmp"
	"fmt"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"dray/cache/disk"
	"dray/mirror/admin/api"
	"dray/upstream/ecrtest"
	"dray/upstream/oci"
)

// pullWhole gets an image as containerd on linux/amd64 does, each part once. It stops at the first
// answer that is not 200, and returns its status.
func (s *stack) pullWhole(path, ref string) int {
	s.Helper()
	r := s.do("GET", path+"/manifests/"+ref, nil, "Accept", strings.Join(oci.AnyManifest(), ", "))
	if r.StatusCode != http.StatusOK {
		return r.StatusCode
	}
	m, err := oci.ParseManifest(r.Header.Get("Content-Type"), r.body)
	if err != nil {
		s.Fatal(err)
	}
	for _, c := range m.Children() {
		if c.Manifest {
			if c.Platform.Architecture == "amd64" {
				if status := s.pullWhole(path, c.Digest.String()); status != http.StatusOK {
					return status
				}
			}
			continue
		}
		if r := s.do("GET", path+"/blobs/"+c.Digest.String(), nil); r.StatusCode != http.StatusOK {
			return r.StatusCode
		}
	}
	return http.StatusOK
}

// sent counts the requests that a registry got, by their kind, without those of its storage and
// for tokens, and forgets them.
func (s *stack) sent() kinds { return sentTo(s.ecr) }

func sentTo(r *ecrtest.Running) kinds {
	<-r.Idle()
	got := kinds{}
	for k, c := range r.Counters() {
		switch k {
		case ecrtest.KindObjectGet, ecrtest.KindObjectHead, "GetAuthorizationToken", "token":
		default:
			if c.Requests > 0 {
				got[k] = c.Requests
			}
		}
	}
	r.ResetCounters()
	return got
}

// foretold counts the requests of an explanation, as sent does.
func foretold(p api.ExplainedPull) kinds { return foretoldFor(p, "ecr") }

// foretoldFor counts the requests to an upstream.
func foretoldFor(p api.ExplainedPull, upstream string) kinds {
	got := kinds{}
	for _, q := range p.Requests {
		if q.Upstream != upstream {
			continue
		}
		kind := "base"
		if _, rest, ok := strings.Cut(q.Path, "/manifests/"); ok && rest != "" {
			kind = "manifest-" + strings.ToLower(q.Method)
		} else if _, rest, ok := strings.Cut(q.Path, "/blobs/"); ok && rest != "" {
			kind = "blob-" + strings.ToLower(q.Method)
		}
		got[ecrtest.Kind(kind)] += int64(q.Count)
	}
	return got
}

// TestExplainForetellsPulls: in each state of the cache and of the registry, explain names the
// requests that the next pull sends, and sends none itself.
func TestExplainForetellsPulls(t *testing.T) {
	whole := func(s *stack, ref string) {
		if status := s.pullWhole("/v2/team/app", ref); status != http.StatusOK {
			s.Fatalf("the first pull is answered by %d", status)
		}
	}
	manifestOnly := func(s *stack, ref string) {
		s.want(200, "GET", "/v2/team/app/manifests/"+ref, nil, "Accept", strings.Join(oci.AnyManifest(), ", "))
	}
	layer := noise(77, 40<<10)
	for name, tc := range map[string]struct {
		edits  []string
		before func(s *stack)
		name   string
		serves api.Serving
		state  api.Freshness
		count  int
		open   bool // only the manifest is foretold
		status int
	}{
		"cold": {
			before: func(s *stack) { seed(s, s.ecr, "team/app", "v1", 1<<10) },
			serves: api.ServeOrigin, state: api.TagUnknown, count: 1, open: true,
		},
		"only the manifest is here": {
			before: func(s *stack) { seed(s, s.ecr, "team/app", "v1", 1<<10); manifestOnly(s, "v1") },
			serves: api.ServeCache, state: api.TagFresh, count: 2,
		},
		"a layer is fetched in parts": {
			before: func(s *stack) { seed(s, s.ecr, "team/app", "v1", 36<<20); manifestOnly(s, "v1") },
			serves: api.ServeCache, state: api.TagFresh, count: 1 + 5,
		},
		"warm": {
			before: func(s *stack) { seed(s, s.ecr, "team/app", "v1", 1<<10); whole(s, "v1") },
			serves: api.ServeCache, state: api.TagFresh,
		},
		"not fresh": {
			edits:  []string{"fresh: 1h", "fresh: 0s"},
			before: func(s *stack) { seed(s, s.ecr, "team/app", "v1", 1<<10); whole(s, "v1") },
			serves: api.ServeConfirm, state: api.TagStale, count: 1,
		},
		"not fresh and too old to be stale": {
			edits:  []string{"fresh: 1h", "fresh: 0s", "stale: 24h", "stale: 0s"},
			before: func(s *stack) { seed(s, s.ecr, "team/app", "v1", 1<<10); whole(s, "v1") },
			serves: api.ServeConfirm, state: api.TagExpired, count: 1,
		},
		"updated in the background": {
			edits: []string{"fresh: 1h", "fresh: 1ns, revalidate: 1h"},
			before: func(s *stack) {
				seed(s, s.ecr, "team/app", "v1", 1<<10)
				whole(s, "v1")
			},
			serves: api.ServeUpdating, state: api.TagUpdating, count: 1,
		},
		"absent": {
			before: func(s *stack) {
				s.ecr.CreateRepository("team/app")
				s.want(404, "GET", "/v2/team/app/manifests/v1", nil, "Accept", strings.Join(oci.AnyManifest(), ", "))
			},
			serves: api.ServeAbsent, state: api.TagAbsent, status: 404,
		},
		"an index one image of it warm": {
			before: func(s *stack) { s.indexed("team/app", "v1", "amd64", "arm64"); whole(s, "v1") },
			serves: api.ServeCache, state: api.TagFresh,
		},
		"an index its images unknown": {
			before: func(s *stack) { s.indexed("team/app", "v1", "amd64", "arm64"); manifestOnly(s, "v1") },
			serves: api.ServeCache, state: api.TagFresh, count: 1, open: true,
		},
		"an index the blobs of its image missing": {
			before: func(s *stack) {
				m := s.indexed("team/app", "v1", "amd64", "arm64")
				manifestOnly(s, "v1")
				manifestOnly(s, m.Manifests[0].Digest.String())
			},
			serves: api.ServeCache, state: api.TagFresh, count: 2,
		},
		"a digest held through another repository": {
			before: func(s *stack) {
				m := pushDirectly(s, s.ecr, "team/other", "v1", layer)
				pushDirectly(s, s.ecr, "team/app", "v1", layer)
				if status := s.pullWhole("/v2/team/other", m.Digest.String()); status != http.StatusOK {
					s.Fatal(status)
				}
			},
			name:   "team/app@" + imageOf(t, layer).Digest.String(),
			serves: api.ServeConfirm, count: 1,
		},
		"a blob held through another repository": {
			before: func(s *stack) {
				m := pushDirectly(s, s.ecr, "team/other", "v1", layer)
				pushDirectly(s, s.ecr, "team/app", "v1", layer)
				whole(s, "v1")
				for _, c := range m.Children() {
					if err := s.inventory.Visibility.Forget(s.Context(), "ecr", "team/app", c.Digest); err != nil {
						s.Fatal(err)
					}
				}
				// Leases end after a second; another process has none.
				s.stop()
				*s = *startBefore(s.TB, s.ecr, s.hub, s.cfg.Cache.Directory)
			},
			serves: api.ServeCache, state: api.TagFresh, count: 2,
		},
		"in the queue": {
			edits: acknowledging,
			before: func(s *stack) {
				s.outage()
				s.push("team/app", "v1", layer)
			},
			serves: api.ServeCache, state: api.TagQueued,
		},
		"the manifest was evicted": {
			before: func(s *stack) {
				img := seed(s, s.ecr, "team/app", "v1", 1<<10)
				whole(s, "v1")
				if err := s.cache.Delete(s.Context(), img.manifest.Digest); err != nil {
					s.Fatal(err)
				}
				// A hot answer would hide that: another process has none.
				s.stop()
				*s = *startBefore(s.TB, s.ecr, s.hub, s.cfg.Cache.Directory)
			},
			serves: api.ServeOrigin, state: api.TagLost, count: 1, open: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := startStack(t, t.TempDir(), tc.edits...)
			tc.before(s)
			s.idleButQueue()
			s.sent()
			named := tc.name
			if named == "" {
				named = "team/app:v1"
			}
			before := s.contents()
			e := operated[api.Explanation](s, "explain", named, "--platform", "linux/amd64")
			again := operated[api.Explanation](s, "explain", named, "--platform", "linux/amd64")
			if got := s.contents(); got != before {
				t.Errorf("the cache has\n%s\nand had before\n%s", got, before)
			}
			if tc.name != "in the queue" && len(s.queue.List()) == 0 {
				if got := s.sent(); len(got) > 0 {
					t.Errorf("explain sent %v", got)
				}
			}
			if e.Pull.Serves != tc.serves || e.Pull.Count != tc.count || e.Pull.Open != tc.open || e.Tag != nil && e.Tag.State != tc.state {
				t.Errorf("%+v %+v", e.Pull, e.Tag)
			}
			if !reflect.DeepEqual(again.Pull, e.Pull) {
				t.Errorf("explained again: %+v", again.Pull)
			}
			_, ref, _ := strings.Cut(named, "app")
			status := 0
			if tc.open && e.Parts[0].Kind != "index" {
				status = s.do("GET", "/v2/team/app/manifests/"+ref[1:], nil, "Accept", strings.Join(oci.AnyManifest(), ", ")).StatusCode
			} else if tc.open {
				status = s.do("GET", "/v2/team/app/manifests/"+e.Parts[1].Digest.String(), nil, "Accept", strings.Join(oci.AnyManifest(), ", ")).StatusCode
			} else {
				status = s.pullWhole("/v2/team/app", ref[1:])
			}
			if status != cmp.Or(tc.status, http.StatusOK) {
				t.Errorf("the pull is answered by %d", status)
			}
			if len(s.queue.List()) > 0 {
				return // dray forwards it meanwhile, so what the registry gets is not counted
			}
			for give := time.Now().Add(time.Minute); e.Pull.Serves == api.ServeUpdating && s.ecr.Count("manifest-head") == 0 && time.Now().Before(give); {
				time.Sleep(time.Millisecond) // the question in the background
			}
			if got, want := s.sent(), foretold(e.Pull); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("the pull sent %v, and %v was foretold", got, want)
			}
		})
	}
}

// contents describes the blobs on disk, with all that eviction goes by.
func (s *stack) contents() string {
	s.Helper()
	var all []string
	err := s.disk.List(s.Context(), func(i disk.Info) bool {
		i.Open = false // a blob is also open while it is synced
		all = append(all, fmt.Sprintf("%+v", i))
		return true
	})
	if err != nil {
		s.Fatal(err)
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

// idleButQueue is idle, but for the blobs that the queue needs.
func (s *stack) idleButQueue() {
	n := 0
	for _, e := range s.queue.List() {
		n += len(e.Blobs)
	}
	s.idleBut(n)
}

// TestExplainOutage: while dray does not ask the registry, a pull costs nothing, and gets what is
// held or an error.
func TestExplainOutage(t *testing.T) {
	s := startStack(t, t.TempDir(), "fresh: 1h", "fresh: 0s")
	seed(t, s.ecr, "team/app", "v1", 1<<10)
	if status := s.pullWhole("/v2/team/app", "v1"); status != http.StatusOK {
		t.Fatal(status)
	}
	s.ecr.AddFault(ecrtest.Fault{Kinds: readKinds, Count: -1, Status: 503})
	// The breaker lets one question through every 5 s. So what is foretold is compared with a pull
	// that ended before that.
	for range 100 {
		began := time.Now()
		s.pullWhole("/v2/team/app", "v1")
		s.sent()
		e := operated[api.Explanation](s, "explain", "team/app:v1", "--platform", "linux/amd64")
		status, sent := s.pullWhole("/v2/team/app", "v1"), s.sent()
		if time.Since(began) >= 5*time.Second {
			continue // a slow machine
		}
		if e.Pull.Serves != api.ServeStale || e.Pull.Count != 0 || e.Pull.Why == "" || status != http.StatusOK || len(sent) > 0 {
			t.Errorf("%+v; the pull is answered by %d, and sent %v", e.Pull, status, sent)
		}
		return
	}
	t.Fatal("no pull took less than 5 s")
}

// TestExplainRights: explain says which rule decides about a caller, and a caller who may not pull
// costs the registry nothing.
func TestExplainRights(t *testing.T) {
	auth := usersOf(t, "{users: [alice], repositories: ['team/*'], actions: [pull, push]}, {anonymous: true, repositories: ['public/*'], actions: [pull]}")
	s := startStack(t, t.TempDir(), "listeners: [{name: main,", auth+"\nlisteners: [{name: main, role: registry, auth: people,")
	for _, tc := range []struct {
		name, as string
		pull     bool
		rule     int
	}{
		{"team/app:v1", "alice", true, 0},
		{"team/app:v1", "bob", false, -1},
		{"team/app:v1", "", false, -1},
		{"public/app:v1", "", true, 1},
		{"public/app:v1", "bob", true, 1},
	} {
		args := []string{"explain", tc.name}
		if tc.as != "" {
			args = append(args, "--as", tc.as)
		}
		e := operated[api.Explanation](s, args...)
		right := e.Caller.Rights[0]
		rule := -1
		if right.Rule != nil {
			rule = *right.Rule
		}
		if right.Action != "pull" || right.Allowed != tc.pull || rule != tc.rule || right.Why == "" {
			t.Errorf("%s as %q: %+v", tc.name, tc.as, right)
		}
		refused := e.Pull.Serves == api.ServeRefused
		if refused == tc.pull || refused && e.Pull.Count != 0 {
			t.Errorf("%s as %q: %+v", tc.name, tc.as, e.Pull)
		}
	}
}

// TestExplainReloaded: explain goes by the configuration in force.
func TestExplainReloaded(t *testing.T) {
	auth := usersOf(t, "{users: [alice], repositories: ['team/*'], actions: [pull]}")
	s := startStack(t, t.TempDir(), "listeners: [{name: main,", auth+"\nlisteners: [{name: main, auth: people,")
	for _, who := range []string{"alice", "bob"} {
		if e := operated[api.Explanation](s, "explain", "team/app", "--as", who); !e.Caller.Rights[0].Allowed {
			t.Errorf("%s: %+v", who, e.Caller)
		}
		if who == "alice" {
			s.reload("auth[people].rules", "", "{users: [alice],", "{users: [bob],")
		}
	}
}

// TestExplainNeedsView: an operator without the right to see is shown nothing.
func TestExplainNeedsView(t *testing.T) {
	auth := usersOf(t, "{users: [bob], actions: [view]}")
	s := startStack(t, t.TempDir(), "cache: {dir", auth+"\nadmin: {auth: people}\ncache: {dir")
	for who, want := range map[string]int{"bob:builder": exitOK, "carol:christmas": exitFailed} {
		file := write(t, "login", who)
		code, stdout, stderr := s.operator("explain", "team/app:v1", "--login-file", file)
		if code != want || code != exitOK && (stdout != "" || strings.Contains(stderr, "team/app")) {
			t.Errorf("%s: %d %s%s", who, code, stdout, stderr)
		}
	}
}

// TestExplainRoutes: explain says through which listener a name is found, and what in the name
// decides.
func TestExplainRoutes(t *testing.T) {
	s := startStack(t, t.TempDir(), "listeners: [{name: main, upstreams: [ecr, hub]}]",
		"listeners: [{name: main, upstreams: [ecr], address: '127.0.0.1:5000'}, {name: hub, upstreams: [hub], address: '127.0.0.1:5001', external_url: 'https://hub.example'}]",
		"default_namespace: library", "default_namespace: library\n  repositories: {deny: ['library/secret*']}")
	for name, want := range map[string]string{
		"team/app":                    "main ecr team/app first ",
		"aws/team/app:1":              "main ecr team/app prefix aws",
		"hub/alpine":                  "hub hub library/alpine prefix hub",
		"docker.io/alpine":            "hub hub library/alpine host docker.io",
		"hub.example/alpine:3":        "hub hub library/alpine first ",
		"127.0.0.1:5000/ecr/team/app": "main ecr team/app upstream ecr",
	} {
		e := operated[api.Explanation](s, "explain", name)
		r := e.Route
		if got := strings.Join([]string{r.Listener, r.Upstream, r.Repository, r.Rule, r.Word}, " "); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	e := operated[api.Explanation](s, "explain", "docker.io/secret:1")
	if e.Route.Refused == "" || e.Pull.Serves != api.ServeRefused || e.Pull.Count != 0 {
		t.Errorf("%+v %+v", e.Route, e.Pull)
	}
	if e := operated[api.Explanation](s, "explain", "alpine", "--listener", "hub"); e.Route.Upstream != "hub" {
		t.Errorf("%+v", e.Route)
	}
	for args, because := range map[string]string{
		"sha256:" + strings.Repeat("a", 64): "write NAME@sha256:",
		"other.example/app":                 "is not a name of dray",
		"team/app --listener none":          `no listener is named "none"`,
	} {
		if code, _, stderr := s.operator(append([]string{"explain"}, strings.Fields(args)...)...); code != exitFailed || !strings.Contains(stderr, because) {
			t.Errorf("%s: %d %s", args, code, stderr)
		}
	}
}

// TestExplainHosted: content that is stored in dray alone costs no request, and to explain it is no
// use of it.
func TestExplainHosted(t *testing.T) {
	s := startStack(t, t.TempDir(), "upstreams: [ecr, hub]}", "upstreams: [own, ecr, hub]}", "\nupstreams:\n", "\nupstreams:\n- {name: own, kind: local}\n")
	m := s.push("team/app", "v1", noise(5, 3<<10))
	e := operated[api.Explanation](s, "explain", "team/app:v1")
	if e.Digest != m.Digest || len(e.Parts) != 3 || e.Upstream != nil || e.Tag.State != api.TagHosted || e.Pull.Serves != api.ServeCache || e.Pull.Count != 0 {
		t.Errorf("%+v", e)
	}
	if e := operated[api.Explanation](s, "explain", "team/app:v2"); e.Pull.Serves != api.ServeAbsent {
		t.Errorf("%+v", e.Pull)
	}
}

// TestExplained: what people see.
func TestExplained(t *testing.T) {
	s := startStack(t, t.TempDir())
	var out strings.Builder
	see := func(args ...string) {
		text := s.printed(append([]string{"explain"}, args...)...)
		text = strings.ReplaceAll(text, s.ecr.RegistryHost, "111122223333.dkr.ecr.eu-west-1.amazonaws.com")
		text = strings.ReplaceAll(text, s.hub.RegistryAddr, "registry-1.docker.io")
		text = regexp.MustCompile(`\d+ (s|min|h)( ago| more)`).ReplaceAllString(text, "N $1$2")
		text = regexp.MustCompile(`In the last \d+ s`).ReplaceAllString(text, "In the last N s")
		text = regexp.MustCompile(`(after|in) [\d.e-]+ s`).ReplaceAllString(text, "$1 N s")
		text = regexp.MustCompile(`\[[A-Z2-7]{26}\]`).ReplaceAllString(text, "[ID]")
		text = regexp.MustCompile(`asked 127\.0\.0\.1:\d+: GET /[\w/-]+`).ReplaceAllString(text, "asked STORAGE: GET /PATH")
		out.WriteString(text)
	}
	seed(t, s.ecr, "team/app", "v1", 300<<10)
	see("team/app:v1", "--platform", "linux/amd64")
	s.want(200, "GET", "/v2/team/app/manifests/v1", nil, "Accept", strings.Join(oci.AnyManifest(), ", "))
	s.remembers(1)
	see("team/app:v1", "--platform", "linux/amd64")
	s.pullWhole("/v2/team/app", "v1")
	s.remembers(3)
	s.idle()
	see("aws/team/app:v1", "--platform", "linux/amd64", "--as", "alice")
	golden(t, "testdata/explain.golden", out.String())
}
