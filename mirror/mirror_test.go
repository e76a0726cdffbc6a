package mirror_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"

	"dray/cache/disk"
	"dray/mirror/mirrortest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A store of facts that fails costs questions, never a pull and never a push.
func TestFactsFail(t *testing.T) {
	layer := bytes.Repeat([]byte("layer"), 50_000)
	t.Run("from the start", func(t *testing.T) {
		h := mirrortest.New(t, mirrortest.Options{})
		h.Facts.Fail(mirrortest.ErrBroken, 0)
		h.Pull("team/app", "v1", h.Hold("team/app", "v1", layer), layer)
		h.Pull("team/new", "v1", h.Push("team/new", "v1", layer), layer)
		if h.Want(404, "GET", "/v2/team/app/manifests/v9", nil); h.Facts.Calls("get") == 0 {
			t.Error("the store was not asked")
		}
	})
	t.Run("later", func(t *testing.T) {
		h := mirrortest.New(t, mirrortest.Options{})
		m := h.Hold("team/app", "v1", layer)
		h.Pull("team/app", "v1", m, layer)
		h.Facts.Fail(mirrortest.ErrBroken, 0)
		h.Pull("team/app", "v1", m, layer)
		h.Facts.Fail(nil, 0)
		h.Pull("team/app", "v1", m, layer)
	})
}

// A store that was emptied, as by FLUSHALL, costs questions; the bytes are not fetched again.
func TestFactsFlushed(t *testing.T) {
	h := mirrortest.New(t, mirrortest.Options{})
	layer := bytes.Repeat([]byte("layer"), 50_000)
	m := h.Hold("team/app", "v1", layer)
	h.Pull("team/app", "v1", m, layer)
	pushed := h.Push("team/pushed", "v1", layer)
	for range 2 {
		for e, err := range h.Memory.Scan(t.Context(), "") {
			if err != nil {
				t.Fatal(err)
			}
			if err := h.Memory.Delete(t.Context(), e.Key); err != nil {
				t.Fatal(err)
			}
		}
		h.Pull("team/pushed", "v1", pushed, layer)
		h.Pull("team/app", "v1", m, layer)
		h.Want(200, "HEAD", "/v2/team/app/blobs/"+digest.FromBytes(layer).String(), nil)
	}
	if n := h.Registry.Count("blob"); n != 1 {
		t.Errorf("the blob was fetched %d times", n)
	}
	// Bytes that lie here are not for a repository that does not have them.
	h.Want(404, "GET", "/v2/team/other/blobs/"+digest.FromBytes(layer).String(), nil)
}

// A disk that fails makes pulls pass through, and pushes fail with a reason; once it works again,
// so does the cache.
func TestDiskFails(t *testing.T) {
	layer := bytes.Repeat([]byte("layer"), 300_000)
	for _, op := range []disk.Op{disk.OpCreate, disk.OpWrite, disk.OpPublish, disk.OpOpen, disk.OpRead} {
		t.Run(string(op), func(t *testing.T) {
			h := mirrortest.New(t, mirrortest.Options{})
			m := h.Hold("team/app", "v1", layer)
			h.Break(op)
			h.Pull("team/app", "v1", m, layer)
			if op == disk.OpCreate || op == disk.OpWrite || op == disk.OpPublish {
				w := h.Do("POST", "/v2/team/app/blobs/uploads/?digest="+digest.FromBytes(layer).String(), layer)
				if w.Code != 503 || !strings.Contains(w.Body.String(), "UNAVAILABLE") || strings.Contains(w.Body.String(), mirrortest.ErrBroken.Error()) {
					t.Errorf("push: %d %s", w.Code, w.Body)
				}
				if n := h.Counted("dray_uploads_open"); n != 0 {
					t.Errorf("%v uploads are left", n)
				}
			}
			h.Break("")
			h.Pull("team/app", "v1", m, layer)
			h.Push("team/app", "v2", layer)
			if _, held := h.Cache.Stat(digest.FromBytes(layer)); !held {
				t.Error("the blob is not kept although the disk works again")
			}
		})
	}
}

// A client that leaves while it waits gets nothing, and the work for it goes on for the next.
func TestClientLeaves(t *testing.T) {
	h := mirrortest.New(t, mirrortest.Options{})
	h.Hold("team/app", "v1", []byte("layer"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := httptest.NewRecorder()
	func() {
		defer func() {
			if p := recover(); p != http.ErrAbortHandler {
				t.Errorf("recovered %v", p)
			}
		}()
		h.Listener.ServeHTTP(w, httptest.NewRequestWithContext(ctx, "GET", "/v2/team/app/manifests/v1", nil))
	}()
	if w.Body.Len() > 0 {
		t.Errorf("it was sent %s", w.Body)
	}
	h.Want(200, "GET", "/v2/team/app/manifests/v1", nil)
}

// FuzzListener: whatever a stranger sends, the answer has a status and says which API it is of, an
// error is one of the protocol, and nothing is published.
func FuzzListener(f *testing.F) {
	f.Add("GET", "/v2/team/app/manifests/v1", "", "bytes=0-1", "*/*", "")
	f.Add("PUT", "/v2/team/app/manifests/v1", "digest=x", "", "application/vnd.oci.image.index.v1+json", `{"schemaVersion":2,"manifests":[]}`)
	f.Add("PATCH", "/a/b/v2/c/blobs/uploads/ID", "_state=1", "0-5", "", "hello")
	f.Add("POST", "/v2/a/blobs/uploads/", "mount=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855&from=b", "", "", "")
	f.Add("HEAD", "/v2/../../etc/passwd", "ns=%2e%2e", "", "", "")
	f.Add("GET", "/v2/a/blobs/sha512:00", "", `W/"x", *`, "", "")
	h := mirrortest.New(f, mirrortest.Options{})
	f.Fuzz(func(t *testing.T, method, path, query, header, contentType, body string) {
		r := &http.Request{
			Method: cmp.Or(method, "GET"), URL: &url.URL{Path: path, RawQuery: query}, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Host: header, RemoteAddr: header,
			Header: http.Header{"Range": {header}, "Content-Range": {header}, "If-None-Match": {header}, "If-Range": {body}, "Accept": {contentType, header}, "Content-Type": {contentType}},
			Body:   io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
		}
		w := httptest.NewRecorder()
		h.Listener.ServeHTTP(w, r.WithContext(t.Context()))
		if w.Header().Get("Docker-Distribution-Api-Version") != "registry/2.0" || w.Code < 200 || w.Code >= 600 {
			t.Fatalf("%s %q: %d %v", method, path, w.Code, w.Header())
		}
		if w.Code < 400 {
			return
		}
		var p struct{ Errors []struct{ Code string } }
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || len(p.Errors) != 1 || p.Errors[0].Code == "" {
			t.Fatalf("%s %q: %d %s", method, path, w.Code, w.Body)
		}
		if w.Code >= 500 {
			t.Fatalf("%s %q?%q is dray's fault: %d %s", method, path, query, w.Code, w.Body)
		}
	})
}
