package oci_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/distribution/reference"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"dray/upstream/oci"
)

const hex64 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
const dgst = digest.Digest("sha256:" + hex64)

func request(t testing.TB, method, target string) *http.Request {
	t.Helper()
	u, err := url.ParseRequestURI(target)
	if err != nil {
		t.Skip("not a request URI")
	}
	return &http.Request{Method: method, URL: u, Host: "dray.test", Header: http.Header{}}
}

func TestParse(t *testing.T) {
	for _, tc := range []struct {
		method, target string
		want           oci.Request
	}{
		{"GET", "/v2/", oci.Request{Kind: oci.KindBase}},
		{"GET", "/v2", oci.Request{Kind: oci.KindBase}},
		{"GET", "/hub/v2/", oci.Request{Kind: oci.KindBase, Prefix: "hub"}},
		{"GET", "/v2/_catalog?n=5", oci.Request{Kind: oci.KindCatalog, N: 5}},
		{"HEAD", "/v2/alpine/manifests/3", oci.Request{Kind: oci.KindManifest, Repo: "alpine", Ref: oci.Reference{Tag: "3"}}},
		{"GET", "/some/path/v2/library/alpine/manifests/" + dgst.String() + "?ns=docker.io",
			oci.Request{Kind: oci.KindManifest, Prefix: "some/path", Repo: "library/alpine", Ref: oci.Reference{Digest: dgst}, Namespace: "docker.io"}},
		{"GET", "/v2/a/b/blobs/" + dgst.String() + "?ns=reg.example.com%3A5443",
			oci.Request{Kind: oci.KindBlob, Repo: "a/b", Ref: oci.Reference{Digest: dgst}, Namespace: "reg.example.com:5443"}},
		{"PUT", "/v2/a/manifests/" + dgst.String() + "?tag=b&tag=a&tag=b",
			oci.Request{Kind: oci.KindManifest, Repo: "a", Ref: oci.Reference{Digest: dgst}, Tags: []string{"b", "a"}}},
		{"PUT", "/v2/a/manifests/1?tag=b", oci.Request{Kind: oci.KindManifest, Repo: "a", Ref: oci.Reference{Tag: "1"}}},
		{"GET", "/v2/a/manifests/" + dgst.String() + "?tag=b", oci.Request{Kind: oci.KindManifest, Repo: "a", Ref: oci.Reference{Digest: dgst}}},
		{"GET", "/v2/a/blobs/sha256%3A" + hex64, oci.Request{Kind: oci.KindBlob, Repo: "a", Ref: oci.Reference{Digest: dgst}}},
		// A repository may be called like a resource; the end of the path decides.
		{"GET", "/v2/blobs/uploads/manifests/1", oci.Request{Kind: oci.KindManifest, Repo: "blobs/uploads", Ref: oci.Reference{Tag: "1"}}},
		{"POST", "/v2/a/blobs/uploads/", oci.Request{Kind: oci.KindUploads, Repo: "a"}},
		{"POST", "/v2/a/blobs/uploads", oci.Request{Kind: oci.KindUploads, Repo: "a"}},
		{"POST", "/v2/a/blobs/uploads/?mount=" + dgst.String() + "&from=b/c",
			oci.Request{Kind: oci.KindUploads, Repo: "a", Mount: dgst, From: "b/c"}},
		{"POST", "/v2/a/blobs/uploads/?mount=" + dgst.String(), oci.Request{Kind: oci.KindUploads, Repo: "a", Mount: dgst}},
		{"POST", "/v2/a/blobs/uploads/?mount=" + dgst.String() + "&from=../x", oci.Request{Kind: oci.KindUploads, Repo: "a", Mount: dgst}},
		{"POST", "/v2/a/blobs/uploads/?mount=" + dgst.String() + "&from=reg.example.com%3A5000/B", oci.Request{Kind: oci.KindUploads, Repo: "a", Mount: dgst}},
		{"PUT", "/v2/a/blobs/uploads/0d5a-11?digest=" + dgst.String(),
			oci.Request{Kind: oci.KindUpload, Repo: "a", Upload: "0d5a-11", Ref: oci.Reference{Digest: dgst}}},
		{"PATCH", "/v2/a/blobs/uploads/x", oci.Request{Kind: oci.KindUpload, Repo: "a", Upload: "x"}},
		{"GET", "/v2/a/tags/list?n=99999&last=zz%2F", oci.Request{Kind: oci.KindTags, Repo: "a", N: oci.MaxPage, Last: "zz/"}},
		{"GET", "/v2/a/tags/list?page=2&ns=x&after=b%26&after=c", oci.Request{Kind: oci.KindTags, Repo: "a", N: -1, Namespace: "x", Page: "after=b%26&after=c&page=2"}},
		{"GET", "/v2/a/referrers/" + dgst.String() + "?artifactType=x/y&next=q",
			oci.Request{Kind: oci.KindReferrers, Repo: "a", Ref: oci.Reference{Digest: dgst}, ArtifactTypes: []string{"x/y"}, Page: "next=q"}},
	} {
		t.Run(tc.method+" "+tc.target, func(t *testing.T) {
			tc.want.Method = tc.method
			if tc.want.N == 0 {
				tc.want.N = -1
			}
			got, err := oci.Parse(request(t, tc.method, tc.target))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Error(d)
			}
			again, err := oci.Parse(request(t, tc.method, got.URL()))
			if err != nil || !cmp.Equal(again, got) {
				t.Errorf("Parse(URL()) = %+v, %v; want %+v", again, err, got)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	long := strings.Repeat("a", oci.MaxRepoBytes+1)
	for _, tc := range []struct {
		method, target string
		want           *oci.Error
		status         int
	}{
		{"GET", "/", oci.ErrNameUnknown, 404},
		{"GET", "/v1/_ping", oci.ErrNameUnknown, 404},
		{"GET", "/v2/alpine", oci.ErrNameUnknown, 404},
		{"GET", "/v2/a/manifests/", oci.ErrTagInvalid, 400},
		{"GET", "/v2/a/tags/all", oci.ErrNameUnknown, 404},
		{"GET", "/v2/../v2/a/manifests/1", oci.ErrNameInvalid, 400},
		{"GET", "/v2/a/../b/manifests/1", oci.ErrNameInvalid, 400},
		{"GET", "/v2/a/%2e%2e/b/manifests/1", oci.ErrNameInvalid, 400},
		{"GET", "/v2/a%2Fb/manifests/1", oci.ErrNameInvalid, 400},
		{"GET", "/v2/a%5Cb/manifests/1", oci.ErrNameInvalid, 400},
		{"GET", "/v2/a/b/./manifests/1", oci.ErrNameInvalid, 400},
		{"GET", "/x//y/v2/a/manifests/1", oci.ErrNameInvalid, 400},
		{"GET", "/v2//manifests/1", oci.ErrNameInvalid, 400},
		{"GET", "/v2/A/manifests/1", oci.ErrNameInvalid, 400},
		{"GET", "/v2/host:5000/a/manifests/1", oci.ErrNameInvalid, 400},
		{"GET", "/v2/a_-b/manifests/1", oci.ErrNameInvalid, 400},
		{"GET", "/v2/-a/manifests/1", oci.ErrNameInvalid, 400},
		{"GET", "/v2/" + long + "/manifests/1", oci.ErrNameInvalid, 400},
		{"GET", "/v2/a/manifests/.x", oci.ErrTagInvalid, 400},
		{"GET", "/v2/a/manifests/" + strings.Repeat("t", 129), oci.ErrTagInvalid, 400},
		{"GET", "/v2/a/manifests/sha256:" + hex64[1:], oci.ErrDigestInvalid, 400},
		{"GET", "/v2/a/manifests/sha256:" + strings.ToUpper(hex64), oci.ErrDigestInvalid, 400},
		{"GET", "/v2/a/blobs/sha256:baddigeststring", oci.ErrDigestInvalid, 400},
		{"GET", "/v2/a/blobs/md5:d41d8cd98f00b204e9800998ecf8427e", oci.ErrDigestInvalid, 400},
		{"PUT", "/v2/a/manifests/" + dgst.String() + "?tag=.x", oci.ErrTagInvalid, 400},
		{"PUT", "/v2/a/manifests/" + dgst.String() + "?" + strings.Repeat("tag=a&", 33), oci.ErrTagInvalid, 414},
		{"GET", "/v2/a/blobs/latest", oci.ErrDigestInvalid, 400},
		{"GET", "/v2/a/referrers/latest", oci.ErrDigestInvalid, 400},
		{"PUT", "/v2/a/blobs/uploads/u?digest=sha256:1", oci.ErrDigestInvalid, 400},
		{"POST", "/v2/a/blobs/uploads/?mount=zzz", oci.ErrDigestInvalid, 400},
		{"POST", "/v2/a/blobs/uploads/?digest-algorithm=sha384", oci.ErrDigestInvalid, 400},
		{"PATCH", "/v2/a/blobs/uploads/b:c", oci.ErrBlobUploadUnknown, 404},
		{"GET", "/v2/a/tags/list?n=-1", oci.ErrPaginationInvalid, 400},
		{"GET", "/v2/a/tags/list?n=x", oci.ErrPaginationInvalid, 400},
		{"GET", "/v2/a/tags/list?n=%zz", oci.ErrUnsupported, 400},
		{"POST", "/v2/a/manifests/1", oci.ErrUnsupported, 405},
		{"PATCH", "/v2/a/blobs/" + dgst.String(), oci.ErrUnsupported, 405},
		{"PUT", "/v2/", oci.ErrUnsupported, 405},
	} {
		t.Run(tc.method+" "+tc.target[:min(len(tc.target), 60)], func(t *testing.T) {
			u, err := url.Parse(tc.target)
			if err != nil {
				t.Fatal(err)
			}
			_, err = oci.Parse(&http.Request{Method: tc.method, URL: u})
			if !errors.Is(err, tc.want) {
				t.Fatalf("got %v, want %v", err, tc.want)
			}
			w := httptest.NewRecorder()
			if oci.WriteError(w, err); w.Code != tc.status {
				t.Errorf("status %d, want %d", w.Code, tc.status)
			}
		})
	}
}

// FuzzParse holds the parser to its contract: no panic, protocol errors only, and
// URL() is the inverse of Parse.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"/v2/", "/p/v2/a/b/manifests/latest?ns=x", "/v2/a/blobs/" + dgst.String(), "/v2/a/blobs/uploads/?mount=" + dgst.String() + "&from=b",
		"/v2/a/blobs/uploads/u?digest=" + dgst.String() + "&_state=s", "/v2/a/tags/list?n=1&last=%20", "/v2/a/tags/list?cursor=%20&n=", "/v2/a/manifests/" + dgst.String() + "?tag=a&tag=b", "/v2/a/referrers/" + dgst.String() + "?artifactType=a&p=1&p=2", "/v2/..%2f/manifests/x"} {
		f.Add("GET", s)
		f.Add("POST", s)
		f.Add("PUT", s)
	}
	f.Fuzz(func(t *testing.T, method, target string) {
		r := request(t, method, target)
		q, err := oci.Parse(r)
		if err != nil {
			if _, ok := errors.AsType[*oci.Error](err); !ok {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		if strings.Contains(q.Repo, "..") || strings.Contains(q.Prefix, "..//") {
			t.Fatalf("dot segments passed: %+v", q)
		}
		again, err := oci.Parse(request(t, method, q.URL()))
		if err != nil || !cmp.Equal(again, q) {
			t.Fatalf("Parse(%q) = %+v; its URL %q gives %+v, %v", target, q, q.URL(), again, err)
		}
	})
}

// FuzzNames compares the checks of names and digests with the grammars of the packages that define
// them.
func FuzzNames(f *testing.F) {
	grammar := regexp.MustCompile(`^(?:` + reference.NameRegexp.String() + `)$`)
	for _, s := range []string{"", "a", "a/b", "a//b", "a/", "/a", "a.b_c__d-e--f", "a___b", "a..b", "-a", "a-", "a_-b", "A/b", "a:80/b", "[::1]/a", "a\n", "é",
		dgst.String(), dgst.String() + "0", "sha256:", "sha256:" + strings.Repeat("A", 64), "sha512:" + strings.Repeat("0", 128), "sha384:" + strings.Repeat("0", 96)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got, want := oci.CheckRepo(s) == nil, len(s) <= oci.MaxRepoBytes && grammar.MatchString(s) && !strings.ContainsAny(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ:[]"); got != want {
			t.Errorf("name %q accepted: %t, want %t", s, got, want)
		}
		d, err := digest.Parse(s)
		want := err == nil && (d.Algorithm() == digest.SHA256 || d.Algorithm() == digest.SHA512)
		if got, err := oci.ParseDigest(s); (err == nil) != want || want && got != d {
			t.Errorf("digest %q: %q, %v; want %t", s, got, err, want)
		}
	})
}

func FuzzParseReference(f *testing.F) {
	f.Add("latest")
	f.Add(dgst.String())
	f.Fuzz(func(t *testing.T, s string) {
		r, err := oci.ParseReference(s)
		if err == nil && (r.String() != s || (r.Tag == "") == (r.Digest == "")) {
			t.Fatalf("ParseReference(%q) = %+v", s, r)
		}
	})
}

func TestJoinRepo(t *testing.T) {
	for _, tc := range [][3]string{{"", "app", "app"}, {"team", "app", "team/app"}, {"team/", "a/b", "team/a/b"}, {"a/b/", "c", "a/b/c"}} {
		if got := oci.JoinRepo(tc[0], tc[1]); got != tc[2] {
			t.Errorf("%q below %q is %q, want %q", tc[1], tc[0], got, tc[2])
		}
	}
}
