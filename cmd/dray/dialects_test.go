package main

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"dray/upstream/ecrtest"
)

// dialects are registries that depart from the specification in ways of their own. Each is a whole
// upstream to which clients must notice no difference.
var dialects = map[string]ecrtest.Dialect{
	"none":                      {},
	"HEAD not found":            {HeadStatus: http.StatusNotFound},
	"HEAD not allowed":          {HeadStatus: http.StatusMethodNotAllowed},
	"HEAD bad request":          {HeadStatus: http.StatusBadRequest},
	"HEAD unauthorized":         {HeadStatus: http.StatusUnauthorized},
	"HEAD forbidden":            {HeadStatus: http.StatusForbidden},
	"HEAD fails":                {HeadStatus: http.StatusInternalServerError},
	"HEAD not implemented":      {HeadStatus: http.StatusNotImplemented},
	"HEAD by the wrong gate":    {HeadStatus: http.StatusBadGateway},
	"HEAD not available":        {HeadStatus: http.StatusServiceUnavailable},
	"HEAD without an answer":    {HeadStatus: http.StatusNoContent},
	"redirects signed for GET":  {SignedForGet: true},
	"storage on its own host":   {ObjectsHere: true},
	"storage named without TLS": {ObjectsHere: true, PlainLocation: true},
}

// TestDialects pulls an image, finds that its tag has moved, and lists its referrers and tags, at
// registries of every dialect. Nothing of it may be taken for a failure.
func TestDialects(t *testing.T) {
	for name, d := range dialects {
		t.Run(name, func(t *testing.T) {
			s := startAnyDialect(t, d)
			pull := func(img seeded) {
				t.Helper()
				for range 5 { // more often than it takes to learn the dialect
					r := s.want(200, "GET", "/hub/v2/team/app/manifests/v1", nil)
					if !bytes.Equal(r.body, img.manifest.Raw) || r.Header.Get("Warning") != "" {
						t.Errorf("another image, or an old one: %v", r.Header)
					}
				}
				s.want(200, "HEAD", "/hub/v2/team/app/manifests/"+img.manifest.Digest.String(), nil)
				s.want(200, "HEAD", "/hub/v2/team/app/blobs/"+img.layer.String(), nil)
				if r := s.want(200, "GET", "/hub/v2/team/app/blobs/"+img.layer.String(), nil); digest.FromBytes(r.body) != img.layer {
					t.Error("another layer")
				}
			}
			pull(seed(t, s.hub, "team/app", "v1", 3000))
			moved := seed(t, s.hub, "team/app", "v1", 4000)
			pull(moved)
			if r := s.want(200, "GET", "/hub/v2/team/app/referrers/"+moved.manifest.Digest.String(), nil); !bytes.Contains(r.body, []byte(`"manifests":[]`)) {
				t.Errorf("referrers %s", r.body)
			}
			if r := s.want(200, "GET", "/hub/v2/team/app/tags/list", nil); !bytes.Contains(r.body, []byte(`"v1"`)) {
				t.Errorf("tags %s", r.body)
			}
			for _, method := range []string{"GET", "HEAD"} {
				s.want(404, method, "/hub/v2/team/app/manifests/absent", nil)
			}
			if st := s.registries[1].breaker.State(); st.Failures != 0 {
				t.Errorf("a failure of the registry: %+v", st)
			}
		})
	}
}

// startAnyDialect starts a stack before a hub with a dialect, by TLS if the dialect concerns that.
// Tags have no window.
func startAnyDialect(t *testing.T, d ecrtest.Dialect) *stack {
	t.Helper()
	edits := []string{"fresh: 1h, stale: 24h, not_found: 1h", "fresh: 0s, stale: 24h, not_found: 1h"}
	if !d.PlainLocation {
		return startDialect(t, d, &recording{}, edits...)
	}
	hub := ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub(), Dialect: d, SelfSigned: true})
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, hub.CAPEM, 0o600); err != nil {
		t.Fatal(err)
	}
	edits = append(edits, "url: http://HUB_ADDR", "url: https://HUB_ADDR\n  tls: {ca_file: "+ca+"}")
	return startBefore(t, ecrtest.Start(t, ecrtest.Options{}), hub, t.TempDir(), edits...)
}

// TestRegistryBehindAnotherName pulls by a name that only redirects to another registry. That one
// wants a token of its own, for which dray's password is not shown.
func TestRegistryBehindAnotherName(t *testing.T) {
	other := ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()})
	img := seed(t, other, "team/app", "v1", 3000)
	s := startDialect(t, ecrtest.Dialect{Elsewhere: other.RegistryURL, Basic: true, Open: true}, &recording{}, asUser(t, "right")...)
	for range 2 {
		s.want(200, "GET", "/hub/v2/team/app/manifests/v1", nil)
	}
	s.want(200, "GET", "/hub/v2/team/app/blobs/"+img.layer.String(), nil)
	s.want(200, "GET", "/hub/v2/team/app/tags/list", nil)
	s.refused(404, "MANIFEST_UNKNOWN", "GET", "/hub/v2/team/app/manifests/absent", nil)
	for _, e := range other.Log() {
		if v := e.Request["Authorization"]; strings.HasPrefix(v, "Basic") {
			t.Errorf("%s %s got the password", e.Method, e.Path)
		}
	}
	if other.Count(ecrtest.KindToken) == 0 || s.registries[1].breaker.State().Failures != 0 {
		t.Errorf("%d tokens, %+v", other.Count(ecrtest.KindToken), s.registries[1].breaker.State())
	}
}

// TestBudgetDialects counts the requests by which a tag is asked for again. A registry that does
// not serve HEAD is asked by it three times, and then for an hour not.
func TestBudgetDialects(t *testing.T) {
	for name, c := range map[string]struct {
		dialect      ecrtest.Dialect
		same, moved  kinds
		missing, now kinds
	}{
		"HEAD as GET":    {ecrtest.Dialect{}, kinds{"manifest-head": 1}, kinds{"manifest-head": 1, "manifest-get": 1}, kinds{"manifest-get": 1}, kinds{"manifest-head": 1}},
		"HEAD not found": {ecrtest.Dialect{HeadStatus: 404}, kinds{"manifest-head": 1, "manifest-get": 1}, kinds{"manifest-head": 1, "manifest-get": 1}, kinds{"manifest-get": 1}, kinds{"manifest-get": 1}},
	} {
		t.Run(name, func(t *testing.T) {
			s := startDialect(t, c.dialect, &recording{}, "fresh: 1h, stale: 24h, not_found: 1h", "fresh: 0s, stale: 24h, not_found: 1h")
			pull := func(tag string, status int, budget kinds) {
				t.Helper()
				s.want(status, "GET", "/hub/v2/team/app/manifests/"+tag, nil)
				spent(t, s.hub, budget)
			}
			seed(t, s.hub, "team/app", "v1", 100)
			s.want(200, "GET", "/hub/v2/team/app/manifests/v1", nil)
			s.hub.ResetCounters()
			pull("v1", 200, c.same)
			seed(t, s.hub, "team/app", "v1", 200)
			pull("v1", 200, c.moved)
			pull("v1", 200, c.same)
			pull("absent", 404, c.missing)
			pull("v1", 200, c.now)
		})
	}
}
