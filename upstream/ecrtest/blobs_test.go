package ecrtest_test

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/upstream/ecrtest"
)

// Source: AWS CLI example of get-download-url-for-layer for host, path and parameters of the URL.
func TestBlobRedirect(t *testing.T) {
	r := start(t, ecrtest.Options{ObjectsByName: true})
	d, _ := r.image("team/app", "v1", "layer")
	first, second := r.follow("team/app", d), r.follow("team/app", d)
	if first == second {
		t.Error("two calls gave one URL")
	}
	u, err := url.Parse(first)
	if err != nil {
		t.Fatal(err)
	}
	if want := "prod-eu-west-1-starport-layer-bucket.s3.eu-west-1.amazonaws.com"; u.Hostname() != want {
		t.Errorf("host %s, want %s", u.Hostname(), want)
	}
	if !regexp.MustCompile(`^/[0-9a-f]{4}-123456789012-[0-9a-f-]{36}/[0-9a-f-]{36}$`).MatchString(u.Path) || strings.Contains(first, d.Encoded()) {
		t.Errorf("path %s", u.Path)
	}
	q := u.Query()
	if q.Get("X-Amz-Algorithm") != "AWS4-HMAC-SHA256" || q.Get("X-Amz-SignedHeaders") != "host" || q.Get("X-Amz-Expires") != "3600" || q.Has("X-Amz-Security-Token") {
		t.Errorf("query %v", q)
	}
	for _, link := range []string{first, second, first} {
		a := r.get(link).want(t, http.StatusOK, "", "layer")
		if a.Header.Get("Content-Length") != "5" {
			t.Errorf("Content-Length %s", a.Header.Get("Content-Length"))
		}
	}
	if e := r.Log()[len(r.Log())-1]; e.Proto != "HTTP/1.1" || e.Kind != ecrtest.KindObjectGet {
		t.Errorf("last request %+v", e)
	}
}

// Source: known rules of S3, measured on two signature-checking servers; the 400 is
// open-policy-agent/opa#6580.
func TestSignedURL(t *testing.T) {
	r := start(t, ecrtest.Options{})
	d, _ := r.image("team/app", "v1", "0123456789")
	link := r.follow("team/app", d)
	xml := func(code, message string) string {
		return "<Code>" + code + "</Code><Message>" + message
	}
	for name, tc := range map[string]struct {
		got    answer
		status int
		body   string
	}{
		"head":          {r.head(link), http.StatusForbidden, ""},
		"tampered path": {r.get(strings.Replace(link, "-123456789012-", "-123456789013-", 1)), http.StatusForbidden, xml("SignatureDoesNotMatch", "")},
		"longer life":   {r.get(strings.Replace(link, "Expires=3600", "Expires=9600", 1)), http.StatusForbidden, xml("SignatureDoesNotMatch", "")},
		"more query":    {r.get(link + "&x=1"), http.StatusForbidden, xml("SignatureDoesNotMatch", "")},
		"no signature":  {r.get(strings.SplitN(link, "?", 2)[0]), http.StatusForbidden, xml("AccessDenied", "")},
		"authorization": {r.get(link, "Authorization", "Basic QVdTOng="), http.StatusBadRequest, xml("InvalidArgument",
			"Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string parameter or the Authorization header should be specified")},
		"range":  {r.get(link, "Range", "bytes=4-"), http.StatusPartialContent, "456789"},
		"middle": {r.get(link, "Range", "bytes=2-3"), http.StatusPartialContent, "23"},
		"beyond": {r.get(link, "Range", "bytes=10-"), http.StatusRequestedRangeNotSatisfiable, ""},
		"whole":  {r.get(link), http.StatusOK, "0123456789"},
	} {
		if tc.got.Status != tc.status || !strings.Contains(string(tc.got.Body), tc.body) {
			t.Errorf("%s: %d %s, want %d %s", name, tc.got.Status, tc.got.Body, tc.status, tc.body)
		}
	}
}

// Source: S3's "Request has expired" (measured) after the hour of the CLI example; ExpiredToken:
// soci-snapshotter's resolver.
func TestSignedURLExpiry(t *testing.T) {
	r := start(t, ecrtest.Options{})
	d, _ := r.image("team/app", "v1", "layer")
	link := r.follow("team/app", d)
	r.Advance(59 * time.Minute)
	r.get(link).want(t, http.StatusOK, "", "")
	r.Advance(2 * time.Minute)
	if a := r.get(link); a.Status != http.StatusForbidden || !strings.Contains(string(a.Body), "<Code>AccessDenied</Code><Message>Request has expired") {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	link = r.follow("team/app", d)
	r.ExpireURLs()
	if a := r.get(link); a.Status != http.StatusForbidden || !strings.Contains(string(a.Body), "Request has expired") {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	link = r.follow("team/app", d)
	r.ExpireSigner()
	if a := r.get(link); a.Status != http.StatusBadRequest || !strings.Contains(string(a.Body), "<Code>ExpiredToken</Code>") {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	r.get(r.follow("team/app", d)).want(t, http.StatusOK, "", "layer")
}

// Source: argocd-image-updater#216, solo-io/wasm#129: a docker config's type even for layers.
func TestBlobHead(t *testing.T) {
	r := start(t, ecrtest.Options{})
	d, _ := r.image("team/app", "v1", "layer")
	a := r.head("/v2/team/app/blobs/"+d.String()).want(t, http.StatusOK, "", "")
	if h := a.Header; h.Get("Content-Type") != dockerConfig || h.Get("Content-Length") != "5" || h.Get("Docker-Content-Digest") != d.String() {
		t.Errorf("%v", h)
	}
	r.head("/v2/team/app/blobs/"+digest.FromString("none").String()).want(t, http.StatusNotFound, "", "")
	r.get("/v2/team/app/blobs/"+digest.FromString("none").String()).want(t, http.StatusNotFound, "BLOB_UNKNOWN", "")
	r.get("/v2/team/none/blobs/"+d.String()).want(t, http.StatusNotFound, "NAME_UNKNOWN", "")
	r.get("/v2/team/app/blobs/sha256:baddigeststring").want(t, http.StatusBadRequest, "DIGEST_INVALID", "")
}

// Source: ECR model, GetDownloadUrlForLayer: only layers that an image references can be
// downloaded. HEAD sees them.
func TestUnreferencedBlob(t *testing.T) {
	r := start(t, ecrtest.Options{})
	r.CreateRepository("team/app")
	d := r.push("team/app", []byte("layer"))
	r.head("/v2/team/app/blobs/"+d.String()).want(t, http.StatusOK, "", "")
	r.get("/v2/team/app/blobs/"+d.String()).want(t, http.StatusNotFound, "BLOB_UNKNOWN", "")
	r.image("team/app", "v1", "layer")
	r.get(r.follow("team/app", d)).want(t, http.StatusOK, "", "layer")
	img, _ := r.Image("team/app", "v1")
	r.do(http.MethodDelete, "/v2/team/app/manifests/"+img.Digest.String(), nil).want(t, http.StatusAccepted, "", "")
	r.get("/v2/team/app/blobs/"+d.String()).want(t, http.StatusNotFound, "BLOB_UNKNOWN", "")
}

// Source: containers-roadmap#2671: ECR Public answers 401 to anonymous blob HEADs.
func TestBlobHeadRefused(t *testing.T) {
	q := ecrtest.ECR()
	q.BlobHeadStatus = http.StatusUnauthorized
	r := start(t, ecrtest.Options{Quirks: q})
	d, _ := r.image("team/app", "v1", "layer")
	r.head("/v2/team/app/blobs/"+d.String()).want(t, http.StatusUnauthorized, "", "")
}

// Source: S3 reference of GetObject (one range), and S3's XML for all of its errors.
func TestObjectRanges(t *testing.T) {
	r := start(t, ecrtest.Options{})
	d, _ := r.image("team/app", "v1", "layer")
	link := r.follow("team/app", d)
	for want, body := range map[string]string{"bytes=1-2": "ay", "bytes=-2": "er", "bytes=4-100": "r"} {
		r.get(link, "Range", want).want(t, http.StatusPartialContent, "", body)
	}
	for _, want := range []string{"bytes=0-1,3-4", "bytes=-", "pages=1-2"} {
		r.get(link, "Range", want).want(t, http.StatusOK, "", "layer")
	}
	for _, want := range []string{"bytes=5-", "bytes=-0", "bytes=99999999999999999999-"} {
		a := r.get(link, "Range", want).want(t, http.StatusRequestedRangeNotSatisfiable, "", "")
		if a.Header.Get("Content-Type") != "application/xml" || !strings.Contains(string(a.Body), "<Code>InvalidRange</Code>") {
			t.Errorf("%s: %s %s", want, a.Header.Get("Content-Type"), a.Body)
		}
	}
}
