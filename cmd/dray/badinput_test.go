package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/upstream/ecrtest"
	"dray/upstream/oci"
)

// problem is the JSON form of an error answer.
type problem struct {
	Errors []struct{ Code, Message string }
}

// refused sends a request that must fail with the given status and code, in the form that every
// error has, and returns the answer with its message.
func (s *stack) refused(status int, code, method, path string, body []byte, headers ...string) (got, string) {
	s.Helper()
	r := s.do(method, path, body, headers...)
	return r, s.checkError(r, method+" "+path, status, code)
}

func (s *stack) checkError(r got, what string, status int, code string) string {
	s.Helper()
	if r.StatusCode != status {
		s.Errorf("%.200s: %s, want %d\n%.500s", what, r.Status, status, r.body)
		return ""
	}
	if v := r.Header.Get("Docker-Distribution-Api-Version"); v != "registry/2.0" {
		s.Errorf("%.200s: Docker-Distribution-Api-Version is %q", what, v)
	}
	if strings.HasPrefix(what, "HEAD ") {
		if len(r.body) > 0 {
			s.Errorf("%.200s: a body of %d bytes", what, len(r.body))
		}
		return ""
	}
	var p problem
	if err := json.Unmarshal(r.body, &p); err != nil || len(p.Errors) != 1 || p.Errors[0].Code != code || p.Errors[0].Message == "" {
		s.Errorf("%.200s: %.500s, want code %s", what, r.body, code)
		return ""
	}
	if ct := r.Header.Get("Content-Type"); !strings.HasPrefix(ct, "application/json") {
		s.Errorf("%.200s: Content-Type %q", what, ct)
	}
	for _, h := range []string{"Etag", "Docker-Content-Digest", "Cache-Control"} {
		if v := r.Header.Get(h); v != "" {
			s.Errorf("%.200s: the error carries %s: %s", what, h, v)
		}
	}
	return p.Errors[0].Message
}

// nothingPublished holds that no blob or manifest came to be, here or at the fake ECR.
func (s *stack) nothingPublished(repo string, ds ...digest.Digest) {
	s.Helper()
	for _, d := range ds {
		if s.cache != nil {
			if _, held := s.cache.Stat(d); held {
				s.Errorf("%s is in the cache", d)
			}
		}
		if s.ecr.HasBlob(repo, d) {
			s.Errorf("%s is at the upstream", d)
		}
		if _, ok := s.ecr.Image(repo, d.String()); ok {
			s.Errorf("the upstream has the image %s", d)
		}
		for _, kind := range []string{"blobs", "manifests"} {
			for _, method := range []string{"GET", "HEAD"} {
				if r := s.do(method, "/v2/"+repo+"/"+kind+"/"+d.String(), nil); r.StatusCode != 404 {
					s.Errorf("%s %s %s: %s", method, kind, d, r.Status)
				}
			}
		}
	}
}

// start opens an upload and returns its path.
func (s *stack) start(repo string) string {
	s.Helper()
	return s.want(202, "POST", "/v2/"+repo+"/blobs/uploads/", nil).Header.Get("Location")
}

func TestBadInputIsRefused(t *testing.T) {
	s := startStack(t, t.TempDir(), "not_found: 1h", "not_found: 0s")
	img := seed(t, s.ecr, "team/app", "v1", 4<<10)
	layer := "/v2/team/app/blobs/" + img.layer.String()
	s.want(200, "GET", "/v2/team/app/manifests/v1", nil)
	s.want(200, "GET", layer, nil)
	absent, before := digest.FromString("absent"), len(s.ecr.Images())
	raw := img.manifest.Raw
	ct := []string{"Content-Type", img.manifest.MediaType}
	missing := imageOf(t, []byte("never pushed"))
	large := append([]byte(`{"schemaVersion":2,"x":"`), strings.Repeat("x", oci.MaxManifestBytes)+`"}`...)
	const up = "/v2/team/app/blobs/uploads/"
	for _, tc := range []struct {
		name         string
		status       int
		code         string
		method, path string
		body         []byte
		headers      []string
	}{
		{"upper case in a name", 400, "NAME_INVALID", "GET", "/v2/Team/App/manifests/v1", nil, nil},
		{"empty segment", 400, "NAME_INVALID", "GET", "/v2/team//app/manifests/v1", nil, nil},
		{"dots upwards", 400, "NAME_INVALID", "GET", "/v2/team/../app/manifests/v1", nil, nil},
		{"dots before v2", 400, "NAME_INVALID", "GET", "/../v2/team/app/manifests/v1", nil, nil},
		{"encoded dots", 400, "NAME_INVALID", "GET", "/v2/team/%2e%2e/app/manifests/v1", nil, nil},
		{"encoded slash", 400, "NAME_INVALID", "GET", "/v2/team%2Fapp/manifests/v1", nil, nil},
		{"encoded slashes upwards", 400, "NAME_INVALID", "GET", "/v2/..%2f..%2fetc%2fpasswd/blobs/" + absent.String(), nil, nil},
		{"encoded NUL", 400, "NAME_INVALID", "GET", "/v2/team%00/manifests/v1", nil, nil},
		{"backslash", 400, "NAME_INVALID", "GET", `/v2/team%5capp/manifests/v1`, nil, nil},
		{"name too long", 400, "NAME_INVALID", "GET", "/v2/" + strings.Repeat("a", 300) + "/manifests/v1", nil, nil},
		{"dash at the end of a name", 400, "NAME_INVALID", "GET", "/v2/team/app-/manifests/v1", nil, nil},
		{"HEAD has no body", 400, "", "HEAD", "/v2/Team/App/manifests/v1", nil, nil},
		{"bad tag", 400, "TAG_INVALID", "GET", "/v2/team/app/manifests/-v1", nil, nil},
		{"tag too long", 400, "TAG_INVALID", "GET", "/v2/team/app/manifests/" + strings.Repeat("a", 129), nil, nil},
		{"short digest", 400, "DIGEST_INVALID", "GET", "/v2/team/app/manifests/sha256:abc", nil, nil},
		{"algorithm unknown", 400, "DIGEST_INVALID", "GET", "/v2/team/app/blobs/md5:d41d8cd98f00b204e9800998ecf8427e", nil, nil},
		{"digest in upper case", 400, "DIGEST_INVALID", "GET", "/v2/team/app/blobs/sha256:" + strings.ToUpper(absent.Encoded()), nil, nil},
		{"a tag for a blob", 400, "DIGEST_INVALID", "GET", "/v2/team/app/blobs/latest", nil, nil},
		{"referrers of a tag", 400, "DIGEST_INVALID", "GET", "/v2/team/app/referrers/v1", nil, nil},
		{"unknown path", 404, "NAME_UNKNOWN", "GET", "/v2/team/app/nothing", nil, nil},
		{"outside of the API", 404, "NAME_UNKNOWN", "GET", "/index.html", nil, nil},
		{"unknown prefix", 404, "NAME_UNKNOWN", "GET", "/nope/v2/team/app/manifests/v1", nil, nil},
		{"unknown namespace", 404, "NAME_UNKNOWN", "GET", "/v2/team/app/manifests/v1?ns=ghcr.io", nil, nil},
		{"deleting a manifest", 405, "UNSUPPORTED", "DELETE", "/v2/team/app/manifests/v1", nil, nil},
		{"deleting a blob", 405, "UNSUPPORTED", "DELETE", layer, nil, nil},
		{"posting a manifest", 405, "UNSUPPORTED", "POST", "/v2/team/app/manifests/v1", raw, ct},
		{"a method of nobody", 405, "UNSUPPORTED", "BREW", "/v2/team/app/manifests/v1", nil, nil},
		{"catalog", 405, "UNSUPPORTED", "GET", "/v2/_catalog", nil, nil},
		{"negative page size", 400, "PAGINATION_NUMBER_INVALID", "GET", "/v2/team/app/tags/list?n=-1", nil, nil},
		{"page size in words", 400, "PAGINATION_NUMBER_INVALID", "GET", "/v2/team/app/tags/list?n=many", nil, nil},

		{"range behind the end", 416, "RANGE_INVALID", "GET", layer, nil, []string{"Range", "bytes=99999999-"}},
		{"range backwards", 416, "RANGE_INVALID", "GET", layer, nil, []string{"Range", "bytes=5-2"}},
		{"range of nothing", 416, "RANGE_INVALID", "GET", layer, nil, []string{"Range", "bytes=-0"}},
		{"range in words", 416, "RANGE_INVALID", "GET", layer, nil, []string{"Range", "bytes=a-b"}},
		{"range with a sign", 416, "RANGE_INVALID", "GET", layer, nil, []string{"Range", "bytes=+1-+2"}},
		{"range over int64", 416, "RANGE_INVALID", "GET", layer, nil, []string{"Range", "bytes=0-99999999999999999999"}},
		{"manifest range behind the end", 416, "RANGE_INVALID", "GET", "/v2/team/app/manifests/v1", nil, []string{"Range", "bytes=99999999-"}},
		{"manifest range backwards", 416, "RANGE_INVALID", "GET", "/v2/team/app/manifests/" + img.manifest.Digest.String(), nil, []string{"Range", "bytes=5-2"}},

		{"manifest that is no JSON", 400, "MANIFEST_INVALID", "PUT", "/v2/team/app/manifests/v2", []byte("hello"), ct},
		{"manifest that is empty", 400, "MANIFEST_INVALID", "PUT", "/v2/team/app/manifests/v2", nil, ct},
		{"manifest of another type", 400, "MANIFEST_INVALID", "PUT", "/v2/team/app/manifests/v2", raw, []string{"Content-Type", oci.MediaTypeDockerList}},
		{"manifest of schema 1", 400, "MANIFEST_INVALID", "PUT", "/v2/team/app/manifests/v2", []byte(`{"schemaVersion":1,"name":"a","fsLayers":[]}`),
			[]string{"Content-Type", oci.MediaTypeDockerSchema1}},
		{"manifest over 4 MiB", 413, "SIZE_INVALID", "PUT", "/v2/team/app/manifests/v2", large, ct},
		{"manifest under another digest", 400, "DIGEST_INVALID", "PUT", "/v2/team/app/manifests/" + absent.String(), raw, ct},
		{"manifest without its blobs", 400, "MANIFEST_BLOB_UNKNOWN", "PUT", "/v2/team/app/manifests/v2", missing.Raw, []string{"Content-Type", missing.MediaType}},

		{"upload under a bad digest", 400, "DIGEST_INVALID", "POST", up + "?digest=sha256:abc", []byte("x"), nil},
		{"upload in one under another digest", 400, "DIGEST_INVALID", "POST", up + "?digest=" + absent.String(), []byte("x"), nil},
		{"mount of a bad digest", 400, "DIGEST_INVALID", "POST", up + "?mount=sha256:abc&from=team/b", nil, nil},
		{"status of an unknown upload", 404, "BLOB_UPLOAD_UNKNOWN", "GET", up + "NOPE", nil, nil},
		{"bytes for an unknown upload", 404, "BLOB_UPLOAD_UNKNOWN", "PATCH", up + "NOPE", []byte("x"), nil},
		{"end of an unknown upload", 404, "BLOB_UPLOAD_UNKNOWN", "PUT", up + "NOPE?digest=" + absent.String(), []byte("x"), nil},
		{"cancelling an unknown upload", 404, "BLOB_UPLOAD_UNKNOWN", "DELETE", up + "NOPE", nil, nil},
		{"an id that was never one", 404, "BLOB_UPLOAD_UNKNOWN", "PATCH", up + "a%3Ab", []byte("x"), nil},
		{"a query that is none", 400, "UNSUPPORTED", "GET", "/v2/team/app/tags/list?a=%zz", nil, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := &stack{TB: t, graph: s.graph, ecr: s.ecr, url: s.url}
			r, _ := s.refused(tc.status, tc.code, tc.method, tc.path, tc.body, tc.headers...)
			if tc.status == 416 && !strings.HasPrefix(r.Header.Get("Content-Range"), "bytes */") {
				t.Errorf("Content-Range is %q", r.Header.Get("Content-Range"))
			}
		})
	}
	s.nothingPublished("team/app", absent, digest.FromString("x"), missing.Digest, digest.FromBytes(large), digest.FromString("hello"))
	if n := len(s.ecr.Images()); n != before {
		t.Errorf("the upstream has %d images, had %d", n, before)
	}
	if up := s.ecr.Uploads(); up.Finished != 0 {
		t.Errorf("uploads at the upstream: %+v", up)
	}
}

// TestBadRequestLines sends requests that net/http's client cannot write: requests that are not
// HTTP, or whose target is not a path.
func TestBadRequestLines(t *testing.T) {
	s := startStack(t, t.TempDir())
	for _, line := range []string{
		"GET /v2/a%zz/manifests/v1 HTTP/1.1", "GET v2/ HTTP/1.1", "GET /v2/\x00 HTTP/1.1", "\x16\x03\x01\x02", "GET /v2/ HTTP/9.9",
		"GET /v2/" + strings.Repeat("a", 80<<10) + " HTTP/1.1",
	} {
		if r := s.raw(line+"\r\nHost: dray\r\n\r\n", false); r == nil || r.StatusCode < 400 || r.StatusCode > 505 {
			t.Errorf("%.40q: %+v", line, r)
		}
	}
	s.want(200, "GET", "/v2/", nil)
}

// raw sends bytes and returns the answer, nil for none. whole closes the connection in both
// directions at once.
func (s *stack) raw(text string, whole bool) *got {
	s.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		s.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, text); err != nil {
		return nil
	}
	if whole {
		return nil
	}
	_ = conn.(*net.TCPConn).CloseWrite()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return nil
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return &got{resp, body}
}

// A body that breaks off is refused and publishes nothing, whichever request it was for and however
// little of it was missing.
func TestBodyCutShort(t *testing.T) {
	s := startStack(t, t.TempDir(), "not_found: 1h", "not_found: 0s")
	s.ecr.CreateRepository("team/app")
	blob := strings.Repeat("layer", 30<<10)
	d, half := digest.FromString(blob), digest.FromString(blob[:len(blob)-1])
	m := imageOf(t, []byte(blob))
	request := func(method, path, body string, announced int) string {
		return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: dray\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", method, path, oci.MediaTypeOCIManifest, announced, body)
	}
	chunked := func(method, path, body string) string {
		return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: dray\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", method, path, len(body), body)
	}
	for _, tc := range []struct {
		name, code string
		text       func() string
	}{
		{"PATCH", "BLOB_UPLOAD_INVALID", func() string { return request("PATCH", s.start("team/app"), blob[:len(blob)-1], len(blob)) }},
		{"PATCH in chunks", "BLOB_UPLOAD_INVALID", func() string { return chunked("PATCH", s.start("team/app"), blob[:len(blob)-1]) }},
		{"PUT", "BLOB_UPLOAD_INVALID", func() string {
			return request("PUT", s.start("team/app")+"?digest="+d.String(), blob[:len(blob)-1], len(blob))
		}},
		{"PUT of what would be right", "BLOB_UPLOAD_INVALID", func() string {
			return request("PUT", s.start("team/app")+"?digest="+half.String(), blob[:len(blob)-1], len(blob))
		}},
		{"POST in one", "BLOB_UPLOAD_INVALID", func() string {
			return request("POST", "/v2/team/app/blobs/uploads/?digest="+half.String(), blob[:len(blob)-1], len(blob))
		}},
		{"manifest", "MANIFEST_INVALID", func() string {
			return request("PUT", "/v2/team/app/manifests/v1", string(m.Raw), len(m.Raw)+1)
		}},
	} {
		for _, whole := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, whole %t", tc.name, whole), func(t *testing.T) {
				s := &stack{TB: t, graph: s.graph, ecr: s.ecr, url: s.url}
				r := s.raw(tc.text(), whole)
				if !whole && r == nil {
					t.Error("no answer")
				}
				if r != nil {
					s.checkError(*r, tc.name, 400, tc.code)
				}
				s.nothingPublished("team/app", d, half, m.Digest)
			})
		}
	}
	if _, ok := s.ecr.Image("team/app", "v1"); ok {
		t.Error("the upstream has the image")
	}
}

// An upload belongs to the repository and the client that it was opened by.
func TestUploadOfSomebodyElse(t *testing.T) {
	s := startStack(t, t.TempDir(), "{name: main,", "{name: main, auth: people,", "cache: {", usersOf(t, "")+"\ncache: {")
	s.ecr.CreateRepository("team/app")
	s.ecr.CreateRepository("team/other")
	alice := []string{"Authorization", basic("alice", "wonderland")}
	bob := []string{"Authorization", basic("bob", "builder")}
	at := s.want(202, "POST", "/v2/team/app/blobs/uploads/", nil, alice...).Header.Get("Location")
	elsewhere := strings.Replace(at, "team/app", "team/other", 1)
	x := digest.FromString("x")
	for _, tc := range []struct {
		name, path string
		as         []string
	}{{"another user", at, bob}, {"another repository", elsewhere, alice}, {"another upstream", "/hub" + at, alice}} {
		for _, method := range []string{"GET", "PATCH", "PUT", "DELETE"} {
			path, status, code := tc.path, 404, "BLOB_UPLOAD_UNKNOWN"
			if method == "PUT" {
				path += "?digest=" + x.String()
			}
			if tc.name == "another upstream" {
				status, code = 403, "DENIED" // it takes no pushes
			}
			s.refused(status, code, method, path, []byte("x"), tc.as...)
		}
	}
	if r := s.want(204, "GET", at, nil, alice...); r.Header.Get("Range") != "0-0" {
		t.Errorf("somebody else's bytes arrived: %v", r.Header)
	}
	if n := s.ecr.Count(ecrtest.KindUploadPut); n != 0 {
		t.Errorf("%d uploads completed", n)
	}
}
