package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/upstream/ecrtest"
	"dray/upstream/oci"
)

// dialects are registries that each do one thing in their own way. Clients of dray must notice no
// difference.
var dialects = map[string]ecrtest.Dialect{
	"none": {},

	"pages: another cursor": {Pages: ecrtest.Pages{TagCursor: "next_page"}},
	"pages: absolute links": {Redirects: ecrtest.Redirects{Absolute: true}},
	"pages: none":           {Pages: ecrtest.Pages{NoPages: true}},

	"challenges: Basic first":    {BasicFirst: true},
	"challenges: in one line":    {OneLine: true},
	"challenges: Basic":          {Basic: true},
	"challenges: Basic and open": {Basic: true, Open: true},

	"redirects: signed for GET":             {Redirects: ecrtest.Redirects{SignedForGet: true}},
	"redirects: 301":                        {Redirects: ecrtest.Redirects{RedirectStatus: http.StatusMovedPermanently}},
	"redirects: 302":                        {Redirects: ecrtest.Redirects{RedirectStatus: http.StatusFound}},
	"redirects: 303":                        {Redirects: ecrtest.Redirects{RedirectStatus: http.StatusSeeOther}},
	"redirects: 308":                        {Redirects: ecrtest.Redirects{RedirectStatus: http.StatusPermanentRedirect}},
	"redirects: storage on its own host":    {Redirects: ecrtest.Redirects{ObjectsHere: true}},
	"redirects: storage named without TLS":  {Redirects: ecrtest.Redirects{ObjectsHere: true, PlainLocation: true}},
	"redirects: below a path":               {Redirects: ecrtest.Redirects{Path: "/artifactory/api/docker/hub"}},
	"redirects: below a path that it omits": {Redirects: ecrtest.Redirects{Path: "/registries/main", PathUnknown: true}},

	"tokens: denied by scope":       {Tokens: ecrtest.Tokens{TokenRefusal: http.StatusForbidden}},
	"tokens: endpoint moved":        {Tokens: ecrtest.Tokens{TokenRedirect: http.StatusMovedPermanently}},
	"tokens: endpoint moved by 307": {Tokens: ecrtest.Tokens{TokenRedirect: http.StatusTemporaryRedirect}},
	"tokens: another scope of /v2/": {Tokens: ecrtest.Tokens{BaseScope: "registry:catalog:*"}},
	"tokens: 201 and text":          {Tokens: ecrtest.Tokens{LooseTokens: true}},
	"tokens: of unknown life":       {Tokens: ecrtest.Tokens{BareTokens: true}},

	"HEAD: not found":         {Heads: ecrtest.Heads{HeadStatus: http.StatusNotFound}},
	"HEAD: not allowed":       {Heads: ecrtest.Heads{HeadStatus: http.StatusMethodNotAllowed}},
	"HEAD: bad request":       {Heads: ecrtest.Heads{HeadStatus: http.StatusBadRequest}},
	"HEAD: unauthorized":      {Heads: ecrtest.Heads{HeadStatus: http.StatusUnauthorized}},
	"HEAD: forbidden":         {Heads: ecrtest.Heads{HeadStatus: http.StatusForbidden}},
	"HEAD: fails":             {Heads: ecrtest.Heads{HeadStatus: http.StatusInternalServerError}},
	"HEAD: not implemented":   {Heads: ecrtest.Heads{HeadStatus: http.StatusNotImplemented}},
	"HEAD: by the wrong gate": {Heads: ecrtest.Heads{HeadStatus: http.StatusBadGateway}},
	"HEAD: not available":     {Heads: ecrtest.Heads{HeadStatus: http.StatusServiceUnavailable}},
	"HEAD: without an answer": {Heads: ecrtest.Heads{HeadStatus: http.StatusNoContent}},
	"HEAD: without a digest":  {Heads: ecrtest.Heads{NoDigests: true}},
	"HEAD: blobs not allowed": {Heads: ecrtest.Heads{BlobHeadStatus: http.StatusMethodNotAllowed}},
	"HEAD: blobs forbidden":   {Heads: ecrtest.Heads{BlobHeadStatus: http.StatusForbidden}},

	"referrers: 406":                    {ReferrersStatus: http.StatusNotAcceptable},
	"referrers: 400":                    {ReferrersStatus: http.StatusBadRequest},
	"referrers: 501":                    {ReferrersStatus: http.StatusNotImplemented},
	"referrers: 404":                    {ReferrersStatus: http.StatusNotFound},
	"referrers: a page":                 {ReferrersStatus: http.StatusOK},
	"referrers: tags taken for digests": {ReferrersStatus: http.StatusMethodNotAllowed, DigestTags: true},

	"compression":                  {Compress: true},
	"compression whatever is said": {CompressAlways: true},

	"clocks: ahead":  {ClockAhead: 1000 * 24 * time.Hour},
	"clocks: behind": {ClockAhead: -1000 * 24 * time.Hour},
}

// TestDialects pulls an image, finds that its tag has moved, lists tags and referrers, and pushes,
// at a registry of every dialect. Nothing of it may be taken for a failure.
func TestDialects(t *testing.T) {
	for name, d := range dialects {
		t.Run(name, func(t *testing.T) {
			s := startAnyDialect(t, d)
			first := seed(t, s.hub, "team/app", "v1", 10<<10)
			s.pullAll(first)
			moved := seed(t, s.hub, "team/app", "v1", 20<<10)
			s.pullAll(moved)
			s.want(200, "GET", "/hub/v2/team/app/manifests/"+first.manifest.Digest.String(), nil)
			for _, tag := range []string{"v2", "v3", "v4", "v5"} {
				seed(t, s.hub, "team/app", tag, 100)
			}
			for _, query := range []string{"", "?n=2", "?n=1&ns=docker.io"} {
				s.listAll("/hub/v2/team/app/tags/list"+query, "v1", "v2", "v3", "v4", "v5")
			}
			if r := s.want(200, "GET", "/hub/v2/team/app/referrers/"+moved.manifest.Digest.String(), nil); !bytes.Contains(r.body, []byte(`"manifests":[]`)) {
				t.Errorf("referrers %s", r.body)
			}
			for _, method := range []string{"GET", "HEAD"} {
				s.want(404, method, "/hub/v2/team/app/manifests/absent", nil)
				s.want(404, method, "/hub/v2/team/app/blobs/"+digest.FromString("absent").String(), nil)
			}

			m := s.push("hub/team/new", "v2", layerOf(3, 1000))
			if got, ok := s.hub.Image("team/new", "v2"); !ok || !bytes.Equal(got.Raw, m.Raw) {
				t.Error("the push did not arrive")
			}
			s.referrers(d, m)
			if st := s.registries[1].Breaker.State(); st.Failures != 0 {
				t.Errorf("a failure of the registry: %+v", st)
			}
		})
	}
}

// pullAll pulls team/app:v1 from the hub, more often than it takes to learn a dialect.
func (s *stack) pullAll(img seeded) {
	s.Helper()
	for range 5 {
		r := s.want(200, "GET", "/hub/v2/team/app/manifests/v1", nil)
		if !bytes.Equal(r.body, img.manifest.Raw) || r.Header.Get("Warning") != "" {
			s.Errorf("another image, or an old one: %v", r.Header)
		}
	}
	s.want(200, "HEAD", "/hub/v2/team/app/manifests/"+img.manifest.Digest.String(), nil)
	for _, d := range []digest.Digest{img.layer, img.manifest.Config.Digest} {
		s.want(200, "HEAD", "/hub/v2/team/app/blobs/"+d.String(), nil)
		if r := s.want(200, "GET", "/hub/v2/team/app/blobs/"+d.String(), nil); digest.FromBytes(r.body) != d {
			s.Error("another blob")
		}
	}
}

// listAll follows the pages of a list of tags.
func (s *stack) listAll(path string, want ...string) {
	s.Helper()
	var tags []string
	for pages := 0; path != ""; pages++ {
		r := s.want(200, "GET", path, nil)
		var page struct{ Tags []string }
		if err := json.Unmarshal(r.body, &page); err != nil {
			s.Fatalf("%s: %v", r.body, err)
		}
		tags = append(tags, page.Tags...)
		if path = ""; r.Header.Get("Link") != "" {
			path = nextLink.FindStringSubmatch(r.Header.Get("Link"))[1]
		}
		if pages > len(want) {
			s.Fatalf("the list has no end: %q", tags)
		}
	}
	if fmt.Sprint(tags) != fmt.Sprint(want) {
		s.Errorf("tags %q, want %q", tags, want)
	}
}

// referrers pushes an artifact that refers to an image of the hub, and lists it. At a registry
// without the call, it pushes the index that clients leave under a tag.
func (s *stack) referrers(d ecrtest.Dialect, subject *oci.Manifest) {
	s.Helper()
	s.upload("hub/team/new", imageConfig)
	a := referrer(s.TB.(*testing.T), subject, "application/x.type1")
	s.want(201, "PUT", "/v2/hub/team/new/manifests/"+a.Digest.String(), a.Raw, "Content-Type", a.MediaType)
	path := "/hub/v2/team/new/referrers/" + subject.Digest.String()
	if d.ReferrersStatus != 0 {
		r := s.want(200, "GET", path, nil)
		if s.header(r, "Content-Type", oci.MediaTypeOCIIndex); !strings.Contains(string(r.body), `"manifests":[]`) {
			s.Errorf("without a list under the tag: %s", r.body)
		}
		index := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`, oci.MediaTypeOCIIndex, a.MediaType, a.Digest, len(a.Raw))
		s.want(201, "PUT", "/v2/hub/team/new/manifests/"+oci.FallbackTag(subject.Digest), []byte(index), "Content-Type", oci.MediaTypeOCIIndex)
	}
	r := s.want(200, "GET", path, nil)
	s.header(r, "Content-Type", oci.MediaTypeOCIIndex)
	if strings.Count(string(r.body), a.Digest.String()) != 1 {
		s.Errorf("referrers: %s", r.body)
	}
}

// startAnyDialect starts a stack before a registry with a dialect, by TLS if the dialect concerns
// that. dray has a password and may push. Tags have no window.
func startAnyDialect(t *testing.T, d ecrtest.Dialect) *stack {
	t.Helper()
	edits := asUser(t, "right")
	edits[1] += "\n  push: true"
	address := "HUB_ADDR" + d.Path
	if !d.PlainLocation {
		return startDialect(t, d, &recording{}, append(edits, "HUB_ADDR", address)...)
	}
	hub := ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Other(), Dialect: d, SelfSigned: true, Hub: robot()})
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, hub.CAPEM, 0o600); err != nil {
		t.Fatal(err)
	}
	edits = append(edits, "url: http://HUB_ADDR", "url: https://"+address+"\n  tls: {ca_file: "+ca+"}")
	return startBefore(t, ecrtest.Start(t, ecrtest.Options{}), hub, t.TempDir(), edits...)
}

// TestRegistryBehindAnotherName pulls by a name that only redirects to another registry. That one
// wants a token of its own, for which dray's password is not shown.
func TestRegistryBehindAnotherName(t *testing.T) {
	for _, path := range []string{"", "/below/a/path"} {
		other := ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Other(), Dialect: ecrtest.Dialect{Redirects: ecrtest.Redirects{Path: path}}})
		img := seed(t, other, "team/app", "v1", 3000)
		s := startDialect(t, ecrtest.Dialect{Redirects: ecrtest.Redirects{Elsewhere: other.RegistryURL + path}, Basic: true, Open: true}, &recording{}, asUser(t, "right")...)
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
		if other.Count(ecrtest.KindToken) == 0 || s.registries[1].Breaker.State().Failures != 0 {
			t.Errorf("%d tokens, %+v", other.Count(ecrtest.KindToken), s.registries[1].Breaker.State())
		}
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
		"HEAD not found": {ecrtest.Dialect{Heads: ecrtest.Heads{HeadStatus: 404}}, kinds{"manifest-head": 1, "manifest-get": 1}, kinds{"manifest-head": 1, "manifest-get": 1}, kinds{"manifest-get": 1}, kinds{"manifest-get": 1}},
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
