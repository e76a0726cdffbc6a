package mirror_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"dray/mirror"
	"dray/mirror/identity"
	"dray/mirror/mirrortest"
	"dray/mirror/repository"
	"dray/upstream"
	"dray/upstream/oci"
)

// lines are what was logged, one JSON object a line.
type lines struct{ bytes.Buffer }

func (l *lines) handler() slog.Handler { return slog.NewJSONHandler(l, nil) }

// take returns the lines with a message, without what differs from run to run, and begins anew.
func (l *lines) take(t *testing.T, message string) (all []map[string]any) {
	t.Helper()
	for line := range strings.Lines(l.String()) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatal(err)
		}
		if m["msg"] == message {
			all = append(all, m)
		}
	}
	l.Reset()
	return all
}

// Each request of the protocol finds its handler, and none goes to where the listener, the upstream
// or the protocol has nothing for it.
func TestRouting(t *testing.T) {
	pulls := mirrortest.NewRegistry()
	h := mirrortest.New(t, mirrortest.Options{Change: func(_ *mirrortest.Fixture, o *mirror.Options) {
		o.Upstreams = append(o.Upstreams, &repository.Upstream{Name: "pulls", Registry: "pulls.example", Source: pulls, Lister: pulls})
	}})
	h.Listener.Routes.Order[0].Prefixes = []string{"up"}
	h.Listener.Routes.Order = append(h.Listener.Routes.Order, h.Listener.Routes.Order[0])
	h.Listener.Routes.Order[1].Upstream, h.Listener.Routes.Order[1].Prefixes = "pulls", []string{"pulls"}
	layer := []byte("a layer")
	m := h.Hold("team/app", "v1", layer)
	blob := digest.FromBytes(layer).String()
	for _, test := range []struct {
		request string
		status  int
		code    string
	}{
		{"GET /v2/", 200, ""},
		{"HEAD /v2/", 200, ""},
		{"POST /v2/", 405, "UNSUPPORTED"},
		{"GET /v2/team/app/manifests/v1", 200, ""},
		{"HEAD /v2/team/app/manifests/" + m.Digest.String(), 200, ""},
		{"PATCH /v2/team/app/manifests/v1", 405, "UNSUPPORTED"},
		{"GET /v2/team/app/blobs/" + blob, 200, ""},
		{"PUT /v2/team/app/blobs/" + blob, 405, "UNSUPPORTED"},
		{"GET /v2/team/app/tags/list", 200, ""},
		{"GET /v2/team/app/referrers/" + m.Digest.String(), 200, ""},
		{"POST /v2/team/app/blobs/uploads/", 202, ""},
		{"GET /v2/team/app/blobs/uploads/nobodys", 404, "BLOB_UPLOAD_UNKNOWN"},
		{"DELETE /v2/team/app/manifests/v1", 405, "UNSUPPORTED"}, // nobody switched it on
		{"POST /v2/pulls/team/app/blobs/uploads/", 403, "DENIED"},
		{"GET /dray/reports/nobodys", 404, "UNKNOWN"},
		{"GET /somewhere/else", 404, ""},
	} {
		method, path, _ := strings.Cut(test.request, " ")
		w := h.Do(method, path, nil)
		if w.Code != test.status || !strings.Contains(w.Body.String(), test.code) {
			t.Errorf("%s: %d %s, want %d %s", test.request, w.Code, w.Body, test.status, test.code)
		}
		if w.Header().Get("Docker-Distribution-Api-Version") != "registry/2.0" || w.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %v", test.request, w.Header())
		}
	}
	h.Listener.Policy = identity.Policy{Role: identity.RoleMirror}
	h.Want(403, "POST", "/v2/team/app/blobs/uploads/", nil)
	h.Want(200, "GET", "/v2/team/app/manifests/v1", nil)
}

// panicking is a registry whose deletions are mistakes in the program.
type panicking struct{ *mirrortest.Registry }

func (panicking) DeleteManifest(context.Context, upstream.Repo, oci.Reference) error {
	panic("a mistake")
}
func (panicking) DeleteBlob(context.Context, upstream.Repo, digest.Digest) error { return nil }

// A panic is one answer and one line, with its stack; where an answer has begun, the connection is
// cut. The next request is served.
func TestPanics(t *testing.T) {
	var log lines
	pulled := func() {}
	h := mirrortest.New(t, mirrortest.Options{Change: func(f *mirrortest.Fixture, o *mirror.Options) {
		f.Upstream.Deleter = panicking{f.Registry}
		o.Logger = slog.New(log.handler())
		o.OnPull = func(repository.Repo, string) { pulled() }
	}})
	m := h.Hold("team/app", "v1", []byte("a layer"))
	told := func() {
		t.Helper()
		all := log.take(t, "panic")
		if len(all) != 1 || all[0]["value"] != "a mistake" || !strings.Contains(all[0]["stack"].(string), "listener_test.go") {
			t.Errorf("logged was %v", all)
		}
	}
	if w := h.Want(500, "DELETE", "/v2/team/app/manifests/"+m.Digest.String(), nil); strings.Contains(w.Body.String(), "mistake") {
		t.Errorf("the client was told %s", w.Body)
	}
	told()
	pulled = func() { panic("a mistake") }
	func() {
		defer func() {
			if v := recover(); v != http.ErrAbortHandler {
				t.Errorf("recovered %v", v)
			}
		}()
		h.Do("GET", "/v2/team/app/manifests/v1", nil)
	}()
	told()
	pulled = func() {}
	h.Want(200, "GET", "/v2/team/app/manifests/v1", nil)
}

// failing is a registry that lists nothing.
type failing struct{ *mirrortest.Registry }

func (failing) Tags(context.Context, upstream.Repo, url.Values) (upstream.Page, error) {
	return upstream.Page{}, oci.ErrUnavailable.With("away")
}

// A request is one line, without what may hold a credential. That of a push, or of what went wrong
// here, is written with everything else.
func TestAccessLog(t *testing.T) {
	var log, access lines
	h := mirrortest.New(t, mirrortest.Options{Change: func(f *mirrortest.Fixture, o *mirror.Options) {
		f.Upstream.Lister = failing{f.Registry}
		o.Logger = slog.New(log.handler())
	}})
	h.Listener.AccessLog = access.handler()
	m := h.Hold("team/app", "v1", []byte("a layer"))
	r := httptest.NewRequestWithContext(t.Context(), "GET", "/v2/team/app/manifests/v1?ns=up.example&_token=secret", http.NoBody)
	r.Header.Set("User-Agent", "a client")
	r.SetBasicAuth("ann", "secret")
	h.Listener.Routes.Own = []string{"up.example"}
	h.Listener.ServeHTTP(httptest.NewRecorder(), r)
	if strings.Contains(access.String(), "secret") {
		t.Errorf("logged was %s", access.String())
	}
	all := access.take(t, "request")
	if len(all) != 1 {
		t.Fatalf("logged was %v", all)
	}
	for key, want := range map[string]any{
		"listener": "l", "method": "GET", "kind": "manifest", "status": 200., "bytes": float64(len(m.Raw)), "upstream": "up", "repository": "team/app",
		"reference": "v1", "digest": m.Digest.String(), "source": "origin", "agent": "a client",
	} {
		if all[0][key] != want {
			t.Errorf("%s is %v, want %v", key, all[0][key], want)
		}
	}
	h.Do("GET", "/v2/team/app/manifests/v9", nil)
	if all := access.take(t, "request"); len(all) != 1 || all[0]["status"] != 404. || all[0]["error"] == "" || len(log.take(t, "request")) != 0 {
		t.Errorf("of a 404 is logged %v", all)
	}
	h.Do("POST", "/v2/team/app/blobs/uploads/", nil)
	h.Do("GET", "/v2/team/app/tags/list", nil)
	levels := []any{}
	for _, line := range log.take(t, "request") {
		levels = append(levels, line["level"], line["status"])
	}
	if !slices.Equal(levels, []any{"INFO", 202., "WARN", 503.}) || access.Len() != 0 {
		t.Errorf("of a push and a failure is logged %v, and %q", levels, access.String())
	}
}
