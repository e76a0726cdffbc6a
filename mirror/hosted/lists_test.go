package hosted

import (
	"encoding/json"
	"errors"
	"net/url"
	"slices"
	"testing"

	"dray/upstream"
	"dray/upstream/oci"
)

func TestReferrers(t *testing.T) {
	h := begin(t, t.TempDir(), Options{})
	img := h.push("team/app", "v1", 1000)
	subject := img.Manifest.Descriptor()
	sig, sbom := h.referrer("team/app", "application/sig", subject), h.referrer("team/app", "application/sbom", subject)
	list := func(repo string, query url.Values) ([]string, upstream.Page) {
		t.Helper()
		p, err := h.Referrers(t.Context(), upstream.Repo{Name: repo}, subject.Digest, query)
		if err != nil {
			t.Fatal(err)
		}
		var index struct{ Manifests []oci.Descriptor }
		if err := json.Unmarshal(p.Body, &index); err != nil || index.Manifests == nil {
			t.Fatalf("%s: %v", p.Body, err)
		}
		var types []string
		for _, d := range index.Manifests {
			types = append(types, d.ArtifactType)
			if d.Annotations["of"] != repo || d.MediaType != oci.MediaTypeOCIManifest {
				t.Errorf("descriptor %+v", d)
			}
		}
		slices.Sort(types)
		return types, p
	}
	if got, p := list("team/app", nil); !slices.Equal(got, []string{"application/sbom", "application/sig"}) || p.FiltersApplied != "" {
		t.Errorf("all: %v, filters %q", got, p.FiltersApplied)
	}
	if got, p := list("team/app", url.Values{"artifactType": {"application/sig"}}); !slices.Equal(got, []string{"application/sig"}) || p.FiltersApplied != "artifactType" {
		t.Errorf("filtered: %v, filters %q", got, p.FiltersApplied)
	}
	if got, _ := list("nobody", nil); len(got) != 0 {
		t.Errorf("of a repository that is not there: %v", got)
	}
	for range 5 { // a page goes on after the last digest of the one before
		h.referrer("team/app", "application/more", subject)
	}
	least := min(sig.Digest.String(), sbom.Digest.String())
	if got, _ := list("team/app", url.Values{"last": {least}}); slices.Contains(got, "") || len(got) > 2 {
		t.Errorf("after %s: %v", least, got)
	}
}

func TestTagsPages(t *testing.T) {
	h := begin(t, t.TempDir(), Options{})
	img := h.push("r", "b", 100)
	for _, tag := range []string{"A", "c", "a", "B"} {
		img.Push(t, h, "r", tag)
	}
	read := func(q url.Values) ([]string, url.Values) {
		t.Helper()
		p, err := h.Tags(t.Context(), upstream.Repo{Name: "r"}, q)
		if err != nil {
			t.Fatal(err)
		}
		var list struct{ Tags []string }
		if err := json.Unmarshal(p.Body, &list); err != nil || list.Tags == nil {
			t.Fatalf("%s: %v", p.Body, err)
		}
		return list.Tags, p.Next
	}
	all := []string{"A", "a", "B", "b", "c"}
	if got, next := read(nil); !slices.Equal(got, all) || next != nil {
		t.Errorf("all: %v, next %v", got, next)
	}
	var got []string
	for q := (url.Values{"n": {"2"}}); q != nil; {
		page, next := read(q)
		got, q = append(got, page...), next
	}
	if !slices.Equal(got, all) {
		t.Errorf("page by page: %v", got)
	}
	if got, next := read(url.Values{"n": {"0"}}); len(got) != 0 || next != nil {
		t.Errorf("none: %v, next %v", got, next)
	}
	if got, _ := read(url.Values{"last": {"aa"}}); !slices.Equal(got, []string{"B", "b", "c"}) {
		t.Errorf("after what is not there: %v", got)
	}
	if _, err := h.Tags(t.Context(), upstream.Repo{Name: "r"}, url.Values{"n": {"x"}}); !errors.Is(err, oci.ErrPaginationInvalid) {
		t.Errorf("n=x: %v", err)
	}
	if _, err := h.Tags(t.Context(), upstream.Repo{Name: "s"}, nil); !errors.Is(err, oci.ErrNameUnknown) {
		t.Errorf("no repository: %v", err)
	}
}
