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
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dray/cache/disk"
	"dray/cache/meta"
	"dray/mirror"
	"dray/mirror/mirrortest"

	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is a mirror, with what several tests need.
type fixture struct {
	*mirrortest.Fixture
	front *meta.Fronted // the memory before the store of facts, where there is one
}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	return &fixture{Fixture: mirrortest.New(t, mirrortest.Options{})}
}

// A store of facts that fails costs questions, never a pull and never a push.
func TestFactsFail(t *testing.T) {
	layer := bytes.Repeat([]byte("layer"), 50_000)
	t.Run("from the start", func(t *testing.T) {
		h := newFixture(t)
		h.Facts.Fail(mirrortest.ErrBroken, 0)
		h.Pull("team/app", "v1", h.Hold("team/app", "v1", layer), layer)
		h.Pull("team/new", "v1", h.Push("team/new", "v1", layer), layer)
		if h.Want(404, "GET", "/v2/team/app/manifests/v9", nil); h.Facts.Calls("get") == 0 {
			t.Error("the store was not asked")
		}
	})
	t.Run("later", func(t *testing.T) {
		h := newFixture(t)
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
	h := newFixture(t)
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

// Who gets a manifest uses the layers that it names, even without getting them from here: they are evicted together.
func TestLayersAreUsedWithTheirManifest(t *testing.T) {
	h := &fixture{Fixture: mirrortest.New(t, mirrortest.Options{MemoryBytes: 1 << 20})}
	layer := bytes.Repeat([]byte("layer"), 50_000)
	m := h.Push("team/app", "v1", layer)
	wantHits := func(after string, n int) {
		t.Helper()
		for _, d := range []digest.Digest{m.Digest, digest.FromBytes(layer)} {
			if i, ok := h.Disk.Lookup(d); !ok || i.Hits != n {
				t.Errorf("after %s %s has %d hits, held %v; want %d", after, d, i.Hits, ok, n)
			}
		}
	}
	wantHits("the push", 0)
	h.Want(200, "HEAD", "/v2/team/app/manifests/v1", nil)
	wantHits("HEAD", 0)
	for range 3 { // in less than a minute
		h.Want(200, "GET", "/v2/team/app/manifests/v1", nil)
		wantHits("GET", 1)
	}
}

// A disk that fails makes pulls pass through, and pushes fail with a reason; once it works again, so does the cache.
func TestDiskFails(t *testing.T) {
	layer := bytes.Repeat([]byte("layer"), 300_000)
	for _, op := range []disk.Op{disk.OpCreate, disk.OpWrite, disk.OpPublish, disk.OpOpen, disk.OpRead} {
		t.Run(string(op), func(t *testing.T) {
			h := newFixture(t)
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

// An upload that its client left alone ends, and gives back its bytes and its place; one in use does not.
func TestUploadExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &fixture{Fixture: mirrortest.New(t, mirrortest.Options{Change: func(_ *mirrortest.Fixture, o *mirror.Options) { o.MaxUploadsPerClient = 2 }})}
		start := func() string {
			return h.Want(202, "POST", "/v2/team/app/blobs/uploads/", nil).Header().Get("Location")
		}
		idle, busy := start(), start()
		h.Want(429, "POST", "/v2/team/app/blobs/uploads/", nil)
		h.Want(202, "PATCH", idle, []byte("some bytes"))
		body, feed := io.Pipe()
		var wg sync.WaitGroup
		wg.Go(func() {
			w := httptest.NewRecorder()
			if h.Listener.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "PATCH", busy, body)); w.Code != 202 {
				t.Errorf("PATCH: %d %s", w.Code, w.Body)
			}
		})
		if _, err := feed.Write([]byte("a request is on it")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(59 * time.Minute)
		h.Want(204, "GET", idle, nil)
		time.Sleep(70 * time.Minute)
		feed.Close()
		wg.Wait()
		h.Want(404, "GET", idle, nil)
		h.Want(404, "PATCH", idle, []byte("x"))
		h.Want(204, "GET", busy, nil)
		start()
		h.Want(429, "POST", "/v2/team/app/blobs/uploads/", nil)
	})
}

// Blobs of a push that never got its manifest are let go.
func TestStagedExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFixture(t)
		blob := []byte("a blob without manifest")
		h.Want(201, "POST", "/v2/team/app/blobs/uploads/?digest="+digest.FromBytes(blob).String(), blob)
		time.Sleep(59 * time.Minute)
		if n := h.Counted("dray_push_blobs_pinned"); n != 1 {
			t.Errorf("%v staged, want 1", n)
		}
		time.Sleep(10 * time.Minute)
		if n := h.Counted("dray_push_blobs_pinned"); n != 0 {
			t.Errorf("%v staged are left", n)
		}
	})
}

// A client that leaves while it waits gets nothing, and the work for it goes on for the next.
func TestClientLeaves(t *testing.T) {
	h := newFixture(t)
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

// FuzzListener: whatever a stranger sends, the answer has a status and says which API it is of, an error is one of the
// protocol, and nothing is published.
func FuzzListener(f *testing.F) {
	f.Add("GET", "/v2/team/app/manifests/v1", "", "bytes=0-1", "*/*", "")
	f.Add("PUT", "/v2/team/app/manifests/v1", "digest=x", "", "application/vnd.oci.image.index.v1+json", `{"schemaVersion":2,"manifests":[]}`)
	f.Add("PATCH", "/a/b/v2/c/blobs/uploads/ID", "_state=1", "0-5", "", "hello")
	f.Add("POST", "/v2/a/blobs/uploads/", "mount=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855&from=b", "", "", "")
	f.Add("HEAD", "/v2/../../etc/passwd", "ns=%2e%2e", "", "", "")
	f.Add("GET", "/v2/a/blobs/sha512:00", "", `W/"x", *`, "", "")
	h := newFixture(f)
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
