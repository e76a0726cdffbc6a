package upstream

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestNextPage(t *testing.T) {
	ab := url.Values{"last": {"b"}, "n": {"2"}}
	for link, want := range map[string]url.Values{
		"": nil,
		`</v2/a/tags/list?last=b&n=2>; rel="next"`:                                                       ab,
		`<https://123456789012.dkr.ecr.eu-west-1.amazonaws.com/v2/a/tags/list?last=b%3D%3D>; rel="next"`: {"last": {"b=="}},
		`<?n=2&last=b>;rel=next`:                                                        ab,
		`<?x=1>; rel="prev", <?last=b&n=2>; rel="next"`:                                 ab,
		`<?x=1>; title="a, <b>; rel=next"; rel="first", <?n=2&last=b>; rel="NEXT last"`: ab,
		`<?last=b&n=2>; rel="prev"; rel="next"`:                                         nil,
		`<?last=b&n=2>`:                                                                 nil,
		`<?last=b&n=2; rel="next"`:                                                      nil,
		`?last=b&n=2; rel="next"`:                                                       nil,
		`</v2/a/tags/list>; rel="next"`:                                                 nil,
		`<?last=%zz>; rel="next"`:                                                       nil,
		"<\x7f?n=1>; rel=next":                                                          nil,
	} {
		h := http.Header{}
		if link != "" {
			h.Set("Link", link)
		}
		if diff := cmp.Diff(want, nextPage(h)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", link, diff)
		}
	}
}

// FuzzNextPage checks that no Link header breaks the reader, and that what it gives can be sent.
func FuzzNextPage(f *testing.F) {
	f.Add(`</v2/a/tags/list?last=b&n=2>; rel="next"`)
	f.Add(`<?x=1>; title="a\", <b>; rel=next"; rel="first", <?n=2>; rel=next`)
	f.Fuzz(func(t *testing.T, link string) {
		q := nextPage(http.Header{"Link": {link}})
		if q == nil {
			return
		}
		again, err := url.ParseQuery(q.Encode())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(q, again); diff != "" {
			t.Errorf("%q (-want +got):\n%s", link, diff)
		}
	})
}
