package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"dray/upstream"
	"dray/upstream/ecrtest"
	"dray/upstream/oci"
)

// TestRegistries pulls from, lists and pushes to registries that each do one thing in their own
// way.
func TestRegistries(t *testing.T) {
	for name, d := range map[string]ecrtest.Dialect{
		"as Docker Hub":               {},
		"Basic first":                 {BasicFirst: true},
		"Basic":                       {Basic: true},
		"Basic and open":              {Basic: true, Open: true},
		"token denied by scope":       {TokenRefusal: 403},
		"token endpoint moved":        {TokenRedirect: 301},
		"token endpoint moved by 307": {TokenRedirect: 307},
		"loose tokens":                {LooseTokens: true},
		"compresses":                  {Compress: true},
		"compresses whatever is said": {CompressAlways: true},
		"tags by another cursor":      {TagCursor: "next_page"},
		"no referrers 406":            {ReferrersStatus: 406},
		"no referrers 400":            {ReferrersStatus: 400},
		"no referrers 501":            {ReferrersStatus: 501},
		"a page for referrers":        {ReferrersStatus: 200},
		"tags taken for digests":      {ReferrersStatus: 405, DigestTags: true},
	} {
		t.Run(name, func(t *testing.T) {
			edits := asUser(t, "right")
			edits[1] += "\n  push: true"
			s := startDialect(t, d, &recording{}, edits...)
			img := seed(t, s.hub, "team/app", "v1", 10<<10)
			for range 2 { // cold, and by asking again
				r := s.want(200, "GET", "/hub/v2/team/app/manifests/v1", nil)
				if !bytes.Equal(r.body, img.manifest.Raw) || r.Header.Get("X-Cache") == "stale" {
					t.Errorf("%v: %s", r.Header, r.body)
				}
			}
			moved := seed(t, s.hub, "team/app", "v1", 20<<10)
			if r := s.want(200, "GET", "/hub/v2/team/app/manifests/v1", nil); !bytes.Equal(r.body, moved.manifest.Raw) {
				t.Errorf("the moved tag is %s", r.body)
			}
			s.want(200, "GET", "/hub/v2/team/app/manifests/"+img.manifest.Digest.String(), nil)
			for _, l := range []*oci.Manifest{img.manifest, moved.manifest} {
				s.want(200, "GET", "/hub/v2/team/app/blobs/"+l.Config.Digest.String(), nil)
				s.want(200, "GET", "/hub/v2/team/app/blobs/"+l.Layers[0].Digest.String(), nil)
			}
			for _, tag := range []string{"v2", "v3", "v4", "v5"} {
				seed(t, s.hub, "team/app", tag, 100)
			}
			for _, query := range []string{"", "?n=2", "?n=1&ns=docker.io"} {
				s.listAll("/hub/v2/team/app/tags/list"+query, "v1", "v2", "v3", "v4", "v5")
			}

			m := s.push("hub/team/new", "v2", layerOf(3, 1000))
			if got, ok := s.hub.Image("team/new", "v2"); !ok || !bytes.Equal(got.Raw, m.Raw) {
				t.Error("the push did not arrive")
			}
			s.referrers(d, m)
		})
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
		s.want(201, "PUT", "/v2/hub/team/new/manifests/"+upstream.FallbackTag(subject.Digest), []byte(index), "Content-Type", oci.MediaTypeOCIIndex)
	}
	r := s.want(200, "GET", path, nil)
	s.header(r, "Content-Type", oci.MediaTypeOCIIndex)
	if strings.Count(string(r.body), a.Digest.String()) != 1 {
		s.Errorf("referrers: %s", r.body)
	}
}

// TestBudgetReferrersUnsupported: a registry without the referrers call is asked for it once.
func TestBudgetReferrersUnsupported(t *testing.T) {
	s := startDialect(t, ecrtest.Dialect{ReferrersStatus: 406}, &recording{})
	img := seed(t, s.hub, "team/app", "v1", 100)
	for range 3 {
		s.want(200, "GET", "/hub/v2/team/app/referrers/"+img.manifest.Digest.String(), nil)
	}
	if calls, tags := s.hub.Count(ecrtest.KindReferrers), s.hub.Count(ecrtest.KindManifestGet); calls != 2 || tags != 1 { // the first call is challenged
		t.Errorf("%d requests for referrers, %d for the tag", calls, tags)
	}
}
