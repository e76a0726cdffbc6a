package ecrtest_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"dray/upstream/ecrtest"
)

// next is the target of a Link header, or empty.
func (a answer) next() string {
	link := a.Header.Get("Link")
	if !strings.HasPrefix(link, "<") || !strings.HasSuffix(link, `>; rel="next"`) {
		return ""
	}
	return link[1 : len(link)-len(`>; rel="next"`)]
}

// tagged starts a server with n tags on one image.
func tagged(t *testing.T, n int, opts ecrtest.Options) (*rig, []string) {
	t.Helper()
	r := start(t, opts)
	_, raw := r.image("team/app", "t0000", "layer")
	tags := []string{"t0000"}
	for i := 1; i < n; i++ {
		tags = append(tags, fmt.Sprintf("t%04d", i))
		r.putManifest("team/app", tags[i], raw, v1.MediaTypeImageManifest).want(t, http.StatusCreated, "", "")
	}
	return r, tags
}

// Source: docker_registry2#34 (absolute Link, opaque last, text/plain, no lexical order), ECR guide
// (100 and 1000), GGCR#681 (n above 1000).
func TestTagsList(t *testing.T) {
	r, tags := tagged(t, 230, ecrtest.Options{})
	var got []string
	var sizes []int
	for url := "/v2/team/app/tags/list"; url != ""; {
		a := r.get(url).want(t, http.StatusOK, "", "")
		if ct := a.Header.Get("Content-Type"); ct != "text/plain; charset=utf-8" {
			t.Errorf("Content-Type %s", ct)
		}
		var page struct {
			Name string
			Tags []string
		}
		unmarshal(t, a.Body, &page)
		got = append(got, page.Tags...)
		sizes = append(sizes, len(page.Tags))
		url = a.next()
		if url != "" {
			prefix := "http://" + r.RegistryHost + "/v2/team/app/tags/list?last="
			token, ok := strings.CutPrefix(url, prefix)
			if last := page.Tags[len(page.Tags)-1]; !ok || len(token) < 100 || strings.Contains(token, last) {
				t.Errorf("Link %s", url)
			}
		}
	}
	if !slices.Equal(sizes, []int{100, 100, 30}) {
		t.Errorf("pages of %v", sizes)
	}
	if slices.IsSorted(got) {
		t.Error("sorted")
	}
	slices.Sort(got)
	if !slices.Equal(got, tags) {
		t.Errorf("%d tags", len(got))
	}
	var page struct{ Tags []string }
	unmarshal(t, r.get("/v2/team/app/tags/list?n=1000").want(t, http.StatusOK, "", "").Body, &page)
	if len(page.Tags) != 230 {
		t.Errorf("n=1000: %d tags", len(page.Tags))
	}
	r.get("/v2/team/app/tags/list?n=1001").want(t, http.StatusMethodNotAllowed, "UNSUPPORTED",
		"Invalid parameter at 'maxResults' failed to satisfy constraint: 'Member must have value less than or equal to 1000'")
	r.get("/v2/team/app/tags/list?n=0").want(t, http.StatusMethodNotAllowed, "UNSUPPORTED", "")
	// A client that continues from a tag, as elsewhere, gets nowhere.
	r.get("/v2/team/app/tags/list?last=t0100").want(t, http.StatusMethodNotAllowed, "UNSUPPORTED", "")
	r.get("/v2/team/none/tags/list").want(t, http.StatusNotFound, "NAME_UNKNOWN", "")
}

// The size asked for holds for the following pages, which are asked for by the Link alone.
func TestTagsPageSize(t *testing.T) {
	r, _ := tagged(t, 5, ecrtest.Options{})
	a := r.get("/v2/team/app/tags/list?n=2").want(t, http.StatusOK, "", "")
	var page struct{ Tags []string }
	unmarshal(t, r.get(a.next()).want(t, http.StatusOK, "", "").Body, &page)
	if len(page.Tags) != 2 {
		t.Errorf("%v", page.Tags)
	}
}

// Source: ECR what's-new of 2024-06-27: referrers of OCI 1.1.
func TestReferrers(t *testing.T) {
	r := start(t, ecrtest.Options{})
	_, raw := r.image("team/app", "v1", "layer")
	subject := digest.FromBytes(raw)
	ref := "/v2/team/app/referrers/" + subject.String()
	list := func(a answer) []v1.Descriptor {
		t.Helper()
		if ct := a.want(t, http.StatusOK, "", "").Header.Get("Content-Type"); ct != v1.MediaTypeImageIndex {
			t.Errorf("Content-Type %s", ct)
		}
		var idx v1.Index
		unmarshal(t, a.Body, &idx)
		return idx.Manifests
	}
	if got := list(r.get(ref)); got == nil || len(got) != 0 {
		t.Errorf("empty: %v", got)
	}
	for _, kind := range []string{"application/vnd.example.sbom", "application/vnd.example.signature"} {
		r.refer("team/app", raw, kind)
	}
	got := list(r.get(ref))
	if len(got) != 2 || got[0].MediaType != v1.MediaTypeImageManifest || got[0].Size == 0 || got[0].ArtifactType == got[1].ArtifactType {
		t.Errorf("%+v", got)
	}
	r.get("/v2/team/app/referrers/latest").want(t, http.StatusBadRequest, "DIGEST_INVALID", "")
}

// refer pushes an artifact that refers to a manifest.
func (r *rig) refer(repo string, subject []byte, artifactType string) digest.Digest {
	r.t.Helper()
	var m v1.Manifest
	unmarshal(r.t, r.manifest(repo, artifactType), &m)
	m.ArtifactType = artifactType
	m.Subject = &v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromBytes(subject), Size: int64(len(subject))}
	raw := marshal(r.t, m)
	d := digest.FromBytes(raw)
	r.putManifest(repo, d.String(), raw, v1.MediaTypeImageManifest).want(r.t, http.StatusCreated, "", "")
	return d
}

// Routes that no registry has, and repository names that hold the words of routes.
func TestRoutes(t *testing.T) {
	r := start(t, ecrtest.Options{})
	for _, path := range []string{"/", "/v1/", "/v2/x", "/v2/team/app/unknown/x", "/v3/"} {
		r.get(path).want(t, http.StatusNotFound, "", "404 page not found\n")
	}
	r.do(http.MethodPost, "/v2/team/app/manifests/v1", nil).want(t, http.StatusNotFound, "", "")
	r.get("/v2/Team/app/manifests/v1").want(t, http.StatusBadRequest, "NAME_INVALID", "")
	for _, name := range []string{"tags/list", "a/blobs/uploads", "manifests/blobs", "v2/manifests"} {
		r.image(name, "v1", "layer")
		r.get("/v2/"+name+"/manifests/v1").want(t, http.StatusOK, "", "")
		r.get("/v2/"+name+"/tags/list").want(t, http.StatusOK, "", "")
	}
}
