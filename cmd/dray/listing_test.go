package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"dray/upstream/ecrtest"
	"dray/upstream/oci"
)

var nextLink = regexp.MustCompile(`^<([^>]+)>; rel="next"$`)

// next is the path of the following page, "" after the last.
func next(t testing.TB, r got) string {
	t.Helper()
	h := r.Header.Get("Link")
	if h == "" {
		return ""
	}
	m := nextLink.FindStringSubmatch(h)
	if m == nil {
		t.Fatalf("Link: %s", h)
	}
	return m[1]
}

// ECR's pages come in no order and continue at an opaque place. A client that follows the links
// sees each tag once, in whichever form it addresses dray.
func TestListingTags(t *testing.T) {
	s := startStack(t, t.TempDir())
	var want []string
	for i := range 250 {
		tag := fmt.Sprintf("v%03d", i)
		seed(t, s.ecr, "team/app", tag, 64)
		want = append(want, tag)
	}
	host := url.QueryEscape(s.ecr.RegistryHost)
	for _, tc := range []struct{ first, base, name, query string }{
		{"/v2/team/app/tags/list", "/v2/team/app/tags/list", "team/app", ""},
		{"/v2/team/app/tags/list?n=7", "/v2/team/app/tags/list", "team/app", ""},
		{"/aws/v2/team/app/tags/list?n=60", "/aws/v2/team/app/tags/list", "team/app", ""},
		{"/v2/aws/team/app/tags/list?n=60", "/v2/aws/team/app/tags/list", "aws/team/app", ""},
		{"/v2/team/app/tags/list?n=60&ns=" + host, "/v2/team/app/tags/list", "team/app", "ns=" + host},
		{"/v2/team/app/tags/list?n=5000", "/v2/team/app/tags/list", "team/app", ""}, // ECR refuses more than 1000
	} {
		var tags []string
		pages := 0
		for path := tc.first; path != ""; pages++ {
			r := s.want(200, "GET", path, nil)
			var page struct {
				Name string
				Tags []string
			}
			if err := json.Unmarshal(r.body, &page); err != nil || page.Name != tc.name {
				t.Fatalf("%s: %v, name %q", path, err, page.Name)
			}
			if ct := r.Header.Get("Content-Type"); !strings.HasPrefix(ct, "application/json") {
				t.Errorf("%s: Content-Type %q", path, ct)
			}
			tags = append(tags, page.Tags...)
			if path = next(t, r); path != "" && (!strings.HasPrefix(path, tc.base+"?") || !strings.Contains(path, tc.query)) {
				t.Fatalf("%s: the next page is %s", tc.first, path)
			}
			if pages > 100 {
				t.Fatal("the pages have no end")
			}
		}
		slices.Sort(tags)
		if !slices.Equal(tags, want) {
			t.Errorf("%s: %d tags in %d pages, want %d once each", tc.first, len(tags), pages, len(want))
		}
		if strings.Contains(tc.first, "n=7") && pages < 35 || strings.Contains(tc.first, "n=5000") && pages != 1 {
			t.Errorf("%s: %d pages", tc.first, pages)
		}
	}
	if r := s.want(200, "HEAD", "/v2/team/app/tags/list", nil); len(r.body) > 0 {
		t.Error("HEAD has a body")
	}
	s.ecr.CreateRepository("team/empty")
	if r := s.want(200, "GET", "/v2/team/empty/tags/list", nil); !strings.Contains(string(r.body), `"tags":[]`) {
		t.Errorf("no tags: %s", r.body)
	}
}

// referrer is an artifact that refers to a subject.
func referrer(t testing.TB, subject *oci.Manifest, artifactType string) *oci.Manifest {
	t.Helper()
	raw := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"artifactType":%q,"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":%d},"layers":[{"mediaType":"application/json","digest":%q,"size":%d}],"subject":{"mediaType":%q,"digest":%q,"size":%d}}`,
		oci.MediaTypeOCIManifest, artifactType, digest.FromBytes(imageConfig), len(imageConfig), digest.FromBytes(imageConfig), len(imageConfig), subject.MediaType, subject.Digest, len(subject.Raw))
	m, err := oci.ParseManifest(oci.MediaTypeOCIManifest, []byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestListingReferrers(t *testing.T) {
	for _, filters := range []bool{true, false} {
		for _, empty := range []int{200, 404} {
			t.Run(fmt.Sprintf("filters %t and none is %d", filters, empty), func(t *testing.T) {
				sw := ecrtest.DefaultSwitches()
				sw.FiltersReferrers, sw.NoReferrersStatus, sw.ReferrersPageSize, sw.SubjectHeader = filters, empty, 2, true
				s := startBefore(t, ecrtest.Start(t, ecrtest.Options{Switches: &sw}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()}), t.TempDir())
				m := s.push("team/app", "v1", layerOf(1, 1000))
				list := func(first string) (all []oci.Descriptor, last got) {
					for path := first; path != ""; {
						r := s.want(200, "GET", path, nil)
						s.header(r, "Content-Type", oci.MediaTypeOCIIndex)
						var index struct {
							SchemaVersion int
							MediaType     string
							Manifests     []oci.Descriptor
						}
						if err := json.Unmarshal(r.body, &index); err != nil || index.SchemaVersion != 2 || index.MediaType != oci.MediaTypeOCIIndex || index.Manifests == nil {
							t.Fatalf("%s: %s, %v", path, r.body, err)
						}
						all, last = append(all, index.Manifests...), r
						if path = next(t, r); path != "" && !strings.HasPrefix(path, strings.Split(first, "?")[0]+"?") {
							t.Fatalf("the page after %s is %s", first, path)
						}
					}
					return all, last
				}
				path := "/aws/v2/team/app/referrers/" + m.Digest.String()
				if all, _ := list(path); len(all) != 0 {
					t.Errorf("%d referrers of an image without any", len(all))
				}
				for i := range 5 {
					a := referrer(t, m, fmt.Sprintf("application/x.type%d", i%2))
					a.Raw = append(bytes.Clone(a.Raw), strings.Repeat(" ", i)...)
					r := s.want(201, "PUT", "/v2/team/app/manifests/"+digest.FromBytes(a.Raw).String(), a.Raw, "Content-Type", a.MediaType)
					s.header(r, "OCI-Subject", m.Digest.String())
				}
				if all, _ := list(path); len(all) != 5 {
					t.Errorf("%d referrers, want 5", len(all))
				}
				for query, want := range map[string]int{"": 5, "?artifactType=application/x.type1": 2, "?artifactType=application/x.type1&artifactType=application/x.type0": 5, "?artifactType=application/y": 0} {
					all, last := list(path + query)
					if applied := last.Header.Get("OCI-Filters-Applied"); len(all) != want || (applied == "artifactType") != (query != "") {
						t.Errorf("%q: %d referrers, want %d; OCI-Filters-Applied %q", query, len(all), want, applied)
					}
				}
			})
		}
	}
}

// A registry without the call keeps the referrers under a tag.
func TestListingReferrersFromTheFallbackTag(t *testing.T) {
	s := startStack(t, t.TempDir(), "not_found: 1h", "not_found: 0s")
	img := seed(t, s.ecr, "team/app", "v1", 100)
	s.ecr.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindReferrers}, Count: -1, Status: 404, Code: "NOT_FOUND"})
	path := "/v2/team/app/referrers/" + img.manifest.Digest.String()
	r := s.want(200, "GET", path, nil)
	s.header(r, "Content-Type", oci.MediaTypeOCIIndex)
	if !strings.Contains(string(r.body), `"manifests":[]`) {
		t.Errorf("none: %s", r.body)
	}
	index := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":%d,"artifactType":"application/x.sbom"}]}`,
		oci.MediaTypeOCIIndex, img.manifest.MediaType, img.manifest.Digest, len(img.manifest.Raw))
	tag := strings.Replace(img.manifest.Digest.String(), ":", "-", 1)
	s.want(201, "PUT", "/v2/team/app/manifests/"+tag, []byte(index), "Content-Type", oci.MediaTypeOCIIndex)
	r = s.want(200, "GET", path, nil)
	s.header(r, "Content-Type", oci.MediaTypeOCIIndex)
	if string(r.body) != index {
		t.Errorf("referrers: %s", r.body)
	}
	s.header(r, "Oci-Filters-Applied", "")
	for of, want := range map[string]int{"application/x.sbom": 1, "application/x.sig": 0} {
		r = s.want(200, "GET", path+"?artifactType="+of, nil)
		s.header(r, "Oci-Filters-Applied", "artifactType")
		var list struct {
			SchemaVersion int
			Manifests     []oci.Descriptor
		}
		if err := json.Unmarshal(r.body, &list); err != nil || len(list.Manifests) != want || list.Manifests == nil || list.SchemaVersion != 2 {
			t.Errorf("referrers of type %s: %s", of, r.body)
		}
	}
}

// dray sends no content again that a client already has.
func TestListingConditional(t *testing.T) {
	s, img := warm(t)
	tag, digestPath, blob := "/v2/team/app/manifests/v1", "/v2/team/app/manifests/"+img.manifest.Digest.String(), "/v2/team/app/blobs/"+img.layer.String()
	for _, path := range []string{tag, digestPath, blob, blob} { // the blob cold and warm
		etag := `"` + img.manifest.Digest.String() + `"`
		if path == blob {
			etag = `"` + img.layer.String() + `"`
		}
		for _, have := range []string{etag, "W/" + etag, `"other", ` + etag, "*"} {
			r := s.want(304, "GET", path, nil, "If-None-Match", have)
			s.header(r, "Etag", etag)
			if len(r.body) > 0 {
				t.Error("304 with a body")
			}
		}
		r := s.want(200, "GET", path, nil, "If-None-Match", `"other"`)
		s.header(r, "Etag", etag)
		s.want(200, "GET", path, nil, "If-None-Match", strings.Trim(etag, `"`))
	}
	s.header(s.do("GET", tag, nil), "Cache-Control", "")
	s.header(s.do("GET", digestPath, nil), "Cache-Control", "max-age=31536000, immutable")
	s.header(s.do("GET", blob, nil), "Cache-Control", "max-age=31536000, immutable")
}

// Ranges of a blob are the same bytes whether it is cold, on its way, or held; several at once are
// answered whole.
func TestListingRanges(t *testing.T) {
	const all = 5 << 20
	layer := layerOf(7, all)
	d := digest.FromBytes(layer)
	etag := `"` + d.String() + `"`
	for _, state := range []string{"cold", "warm"} {
		t.Run(state, func(t *testing.T) {
			s := startStack(t, t.TempDir())
			m := pushDirectly(t, s.ecr, "team/app", "v1", layer)
			path := "/v2/team/app/blobs/" + d.String()
			s.want(200, "GET", "/v2/team/app/manifests/v1", nil)
			if state == "warm" {
				s.want(200, "GET", path, nil)
			}
			for _, tc := range []struct {
				header, ifRange string
				from, to        int // of the answer; to 0: whole
			}{
				{"bytes=0-", "", 0, all}, {"bytes=1-1", "", 1, 2}, {"bytes=0-99", "", 0, 100}, {"bytes=4194304-", "", 4 << 20, all}, {"bytes=5242879-", "", all - 1, all},
				{"bytes=-1", "", all - 1, all}, {"bytes=-9999999", "", 0, all}, {"bytes=100-99999999", "", 100, all}, {"Bytes=5-9", "", 5, 10},
				{"bytes=1048576-2097151", etag, 1 << 20, 2 << 20}, {"bytes=1-2", `"other"`, 0, 0}, {"bytes=0-1,5-6", "", 0, 0}, {"lines=0-1", "", 0, 0},
			} {
				headers := []string{"Range", tc.header}
				if tc.ifRange != "" {
					headers = append(headers, "If-Range", tc.ifRange)
				}
				r := s.do("GET", path, nil, headers...)
				want, status, contentRange := layer[tc.from:max(tc.to, tc.from)], http.StatusPartialContent, fmt.Sprintf("bytes %d-%d/%d", tc.from, tc.to-1, all)
				if tc.to == 0 {
					want, status, contentRange = layer, http.StatusOK, ""
				}
				if r.StatusCode != status || !bytes.Equal(r.body, want) || r.ContentLength != int64(len(want)) {
					t.Errorf("%s: %s, %d bytes of %d", tc.header, r.Status, len(r.body), len(want))
				}
				s.header(r, "Content-Range", contentRange)
				s.header(r, "Accept-Ranges", "bytes")
			}
			// HEAD has no ranges: it tells about the whole.
			for _, head := range []string{path, "/v2/team/app/manifests/v1"} {
				if r := s.do("HEAD", head, nil, "Range", "bytes=99999999-"); r.StatusCode != 200 || head == path && r.ContentLength != all {
					t.Errorf("HEAD %s: %s, %d bytes", head, r.Status, r.ContentLength)
				}
			}
			// Ranges of manifests: containerd asks for bytes=0- with every GET.
			r := s.do("GET", "/v2/team/app/manifests/v1", nil, "Range", "bytes=0-")
			if r.StatusCode != 206 || !bytes.Equal(r.body, m.Raw) {
				t.Errorf("manifest: %s", r.Status)
			}
			if n := s.ecr.Count(ecrtest.KindObjectGet); n != 1 {
				t.Errorf("%d fetches of one blob", n)
			}
		})
	}
}

// A queued tag is on the first pages, wherever it sorts, and no page is longer than the client
// wants. A list after a tag has only the queued tags after it.
func TestListingQueuedTags(t *testing.T) {
	s := startStack(t, t.TempDir(), acknowledging...)
	for i := range 20 {
		seed(t, s.ecr, "team/app", fmt.Sprintf("v%03d", i), 64)
	}
	s.ecr.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindManifestPut}, Count: -1, Status: 503})
	s.push("team/app", "aaa", layerOf(1, 1000))
	s.push("team/app", "zzz", layerOf(2, 1000))
	list := func(path string) (tags []string, link string) {
		r := s.want(200, "GET", path, nil)
		var page struct{ Tags []string }
		if err := json.Unmarshal(r.body, &page); err != nil {
			t.Fatal(err)
		}
		return page.Tags, next(t, r)
	}
	whole := func(path string, longest int) (all []string) {
		for pages := 0; path != ""; pages++ {
			var tags []string
			if tags, path = list(path); len(tags) > longest || pages > 30 {
				t.Fatalf("page %d has %q", pages, tags)
			}
			all = append(all, tags...)
		}
		slices.Sort(all)
		return all
	}
	for path, longest := range map[string]int{"/v2/team/app/tags/list": 1000, "/v2/team/app/tags/list?n=5": 5, "/v2/team/app/tags/list?n=1": 1, "/v2/team/app/tags/list?n=2": 2, "/v2/team/app/tags/list?n=3": 3} {
		all := whole(path, longest)
		if len(all) != 22 || len(slices.Compact(all)) != 22 || all[0] != "aaa" || all[21] != "zzz" {
			t.Errorf("%q", all)
		}
	}
	s.outage()
	if all := whole("/v2/team/app/tags/list?n=1", 1); !slices.Equal(all, []string{"aaa", "zzz"}) {
		t.Errorf("in an outage: %q", all)
	}
	if tags, link := list("/v2/team/app/tags/list?n=5"); !slices.Equal(tags, []string{"aaa", "zzz"}) || link != "" {
		t.Errorf("in an outage: %q, %s", tags, link)
	}
}

// TestListingQueuedTagsAfter: a list that begins after a tag has the queued tags after it, once.
func TestListingQueuedTagsAfter(t *testing.T) {
	quirks := ecrtest.ECR()
	quirks.OpaquePages = false // the registry of this test takes any tag for last
	s := startBefore(t, ecrtest.Start(t, ecrtest.Options{Quirks: quirks}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()}), t.TempDir(), acknowledging...)
	for i := range 9 {
		seed(t, s.ecr, "team/app", fmt.Sprintf("v%d", i), 64)
	}
	s.ecr.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindManifestPut}, Count: -1, Status: 503})
	for i, tag := range []string{"aaa", "v5x", "v7x"} {
		s.push("team/app", tag, layerOf(uint64(i), 1000))
	}
	for n := range 8 {
		path, pages := "/v2/team/app/tags/list?last=v5", 0
		if n > 0 {
			path += fmt.Sprint("&n=", n)
		}
		var all []string
		for ; path != ""; pages++ {
			r := s.want(200, "GET", path, nil)
			var page struct{ Tags []string }
			if err := json.Unmarshal(r.body, &page); err != nil || n > 0 && len(page.Tags) > n || pages > 9 {
				t.Fatalf("%s: %v, %s", path, err, r.body)
			}
			all, path = append(all, page.Tags...), next(t, r)
		}
		slices.Sort(all)
		if !slices.Equal(all, []string{"v5x", "v6", "v7", "v7x", "v8"}) {
			t.Errorf("n=%d: %q", n, all)
		}
	}
}
