package upstream_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"dray/upstream"
	"dray/upstream/ecrtest"
	"dray/upstream/oci"
	"dray/upstream/upstreamtest"
)

func TestTagsArePassedThroughPageByPage(t *testing.T) {
	r := startECR(t, ecrtest.Options{})
	r.CreateRepository("a")
	img := upstreamtest.NewImage(t, "x", 10)
	var want []string
	for i := range 5 {
		want = append(want, fmt.Sprintf("t%d", i))
		img.Push(t, r.client, "a", want[i])
	}
	r.recorder.Take()
	var got []string
	query := url.Values{"n": {"2"}}
	for pages := 1; query != nil; pages++ {
		p, err := r.client.Tags(t.Context(), upstream.Repo{Name: "a"}, query)
		if err != nil || pages > 3 {
			t.Fatalf("page %d: %v", pages, err)
		}
		if !strings.HasPrefix(p.ContentType, "text/plain") {
			t.Errorf("content type %q was not passed through", p.ContentType)
		}
		var list struct{ Tags []string }
		if err := json.Unmarshal(p.Body, &list); err != nil {
			t.Fatal(err)
		}
		got, query = append(got, list.Tags...), p.Next
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("tags (-want +got):\n%s", diff)
	}
	if n := len(r.recorder.Take()); n != 3 {
		t.Errorf("%d requests for 3 pages", n)
	}
	mine := url.Values{"n": {"5000"}}
	if _, err := r.client.Tags(t.Context(), upstream.Repo{Name: "a"}, mine); err != nil { // ECR refuses more than 1000
		t.Error(err)
	}
	r.recorder.Expect(t, "GET /v2/a/tags/list?n=1000")
	if mine.Get("n") != "5000" {
		t.Error("the caller's query was changed")
	}
	if _, err := r.client.Tags(t.Context(), upstream.Repo{Name: "absent"}, nil); !errors.Is(err, oci.ErrNameUnknown) {
		t.Errorf("tags of a missing repository: %v", err)
	}
}

// TestPageThatLeadsToItself: whoever follows such a link never ends.
func TestPageThatLeadsToItself(t *testing.T) {
	for link, c := range map[string]struct {
		query   url.Values
		refused bool
	}{
		`<?cursor=a&n=5>; rel="next"`:          {url.Values{"cursor": {"a"}}, true},
		`<?n=10>; rel="next"`:                  {nil, true},
		`<?last=a&n=10>; rel="next"`:           {url.Values{"last": {"a"}, "n": {"5"}}, true},
		`<?last=b&n=10>; rel="next"`:           {url.Values{"last": {"a"}, "n": {"10"}}, false},
		`<?cursor=b>; rel="next"`:              {url.Values{"cursor": {"a"}}, false},
		`<?cursor=a&artifactType=x>; rel=next`: {url.Values{"artifactType": {"x"}}, false},
	} {
		_, client := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Link", link)
			_, _ = w.Write([]byte(`{"name":"a","tags":[]}`))
		})
		_, err := client.Tags(t.Context(), upstream.Repo{Name: "a"}, c.query)
		if errors.Is(err, upstream.ErrCorrupt) != c.refused || !c.refused && err != nil {
			t.Errorf("%s after %v: %v, want it refused: %t", link, c.query, err, c.refused)
		}
	}
}

func TestReferrers(t *testing.T) {
	subject := digest.FromString("subject")
	c := upstreamtest.NewRegistry(t).Client(t, upstream.Quirks{})
	upstreamtest.NewImage(t, "x", 10).Push(t, c, "a", "t")
	p, err := c.Referrers(t.Context(), upstream.Repo{Name: "a"}, subject, url.Values{"artifactType": {"x/y"}})
	if err != nil || !strings.Contains(string(p.Body), "manifests") || p.Next != nil {
		t.Errorf("got %+v, %v", p, err)
	}
	r, c := serve(t, func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) })
	if _, err := c.Referrers(t.Context(), upstream.Repo{Name: "a"}, subject, nil); !errors.Is(err, upstream.ErrReferrersUnsupported) {
		t.Errorf("without the call: %v", err)
	}
	r.Recorder.Expect(t, "GET /v2/a/referrers/"+subject.String())
	_, c = serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("OCI-Filters-Applied", "artifactType")
		w.Header().Set("Link", `</v2/a/referrers/x?token=abc>; rel="next"`)
		_, _ = w.Write([]byte(`{}`))
	})
	if p, err := c.Referrers(t.Context(), upstream.Repo{Name: "a"}, subject, nil); err != nil || p.FiltersApplied != "artifactType" || p.Next.Get("token") != "abc" {
		t.Errorf("got %+v, %v", p, err)
	}
	if got := upstream.FallbackTag(subject); got != "sha256-"+subject.Encoded() {
		t.Errorf("fallback tag %q", got)
	}
	if got := upstream.FallbackTag(digest.SHA512.FromString("x")); len(got) != len("sha512-")+64 {
		t.Errorf("fallback tag of sha512 %q", got)
	}
}
