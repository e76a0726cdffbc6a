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

// TestReferrersUnsupported holds what counts as a registry without the call, and whether it is
// asked again.
func TestReferrersUnsupported(t *testing.T) {
	const none = `{"schemaVersion":2,"mediaType":"` + oci.MediaTypeOCIIndex + `","manifests":[]}`
	for name, c := range map[string]struct {
		status    int
		body      string
		want      error // nil: a list
		asksAgain bool
	}{
		"none":                   {200, none, nil, true},
		"no mediaType":           {200, `{"schemaVersion":2,"manifests":[{"digest":"` + digest.FromString("x").String() + `"}]}`, nil, true},
		"a page":                 {200, `<html>`, upstream.ErrReferrersUnsupported, false},
		"empty":                  {200, ``, upstream.ErrReferrersUnsupported, false},
		"another object":         {200, `{"status":"ok"}`, upstream.ErrReferrersUnsupported, false},
		"an image":               {200, `{"mediaType":"` + oci.MediaTypeOCIManifest + `","manifests":[]}`, upstream.ErrReferrersUnsupported, false},
		"a list without digests": {200, `{"manifests":[{"size":1}]}`, upstream.ErrReferrersUnsupported, false},
		"204":                    {204, ``, upstream.ErrReferrersUnsupported, false},
		"404":                    {404, ``, upstream.ErrReferrersUnsupported, true},
		"400":                    {400, ``, upstream.ErrReferrersUnsupported, false},
		"405":                    {405, ``, upstream.ErrReferrersUnsupported, false},
		"406":                    {406, ``, upstream.ErrReferrersUnsupported, false},
		"501":                    {501, ``, upstream.ErrReferrersUnsupported, false},
		"refused":                {401, ``, oci.ErrDenied, true},
		"forbidden":              {403, ``, oci.ErrDenied, true},
		"timed out":              {408, ``, oci.ErrUnknown, true},
		"misdirected":            {421, ``, oci.ErrUnknown, true},
		"throttled":              {429, ``, oci.ErrTooManyRequests, true},
		"failing":                {503, ``, oci.ErrUnavailable, true},
		"failing without a code": {500, ``, oci.ErrUnknown, true},
	} {
		t.Run(name, func(t *testing.T) {
			asked := 0
			_, client := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				asked++
				w.WriteHeader(c.status)
				_, _ = w.Write([]byte(c.body))
			})
			for range 2 {
				_, err := client.Referrers(t.Context(), upstream.Repo{Name: "a"}, digest.FromString("subject"), nil)
				if !errors.Is(err, c.want) || c.want == upstream.ErrReferrersUnsupported && status(err) >= 500 {
					t.Errorf("%v, want %v", err, c.want)
				}
			}
			if again := asked == 2; again != c.asksAgain {
				t.Errorf("asked %d times", asked)
			}
		})
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
		_, _ = w.Write([]byte(`{"schemaVersion":2,"manifests":[]}`))
	})
	if p, err := c.Referrers(t.Context(), upstream.Repo{Name: "a"}, subject, nil); err != nil || p.FiltersApplied != "artifactType" || p.Next.Get("token") != "abc" {
		t.Errorf("got %+v, %v", p, err)
	}
	if got := oci.FallbackTag(subject); got != "sha256-"+subject.Encoded() {
		t.Errorf("fallback tag %q", got)
	}
	if got := oci.FallbackTag(digest.SHA512.FromString("x")); len(got) != len("sha512-")+64 {
		t.Errorf("fallback tag of sha512 %q", got)
	}
}
