package request_test

import (
	"bytes"
	"context"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/mirror"
	"dray/mirror/mirrortest"
	"dray/mirror/repository"
	"dray/mirror/request"
	"dray/mirror/route"
	"dray/mirror/wire"
	"dray/upstream/oci"
)

// A location has the form that the client chose for the repository, and leads back to where the
// client has been.
func TestLocation(t *testing.T) {
	hub := mirrortest.NewRegistry()
	h := mirrortest.New(t, mirrortest.Options{Change: func(_ *mirrortest.Fixture, o *mirror.Options) {
		o.Upstreams = append(o.Upstreams, &repository.Upstream{Name: "hub", Source: hub, Sink: hub, Lister: hub})
	}})
	h.Listener.Routes = &route.Table{Order: []route.Route{{Upstream: "up"}, {Upstream: "hub", Hosts: []string{"docker.io"}, Prefixes: []string{"hub"}}}}
	blob := []byte("a blob")
	for _, test := range []struct {
		start, begin, end string
		at                *mirrortest.Registry
	}{
		{"/v2/team/app/blobs/uploads/", "/v2/team/app/blobs/uploads/", "", h.Registry},
		{"/hub/v2/team/app/blobs/uploads/", "/hub/v2/team/app/blobs/uploads/", "", hub},
		{"/v2/hub/team/two/blobs/uploads/", "/v2/hub/team/two/blobs/uploads/", "", hub},
		{"/v2/team/three/blobs/uploads/?ns=docker.io", "/v2/team/three/blobs/uploads/", "?ns=docker.io", hub},
	} {
		at := h.Want(202, "POST", test.start, nil).Header().Get("Location")
		if !strings.HasPrefix(at, test.begin) || !strings.HasSuffix(at, test.end) || strings.Contains(strings.TrimSuffix(at, test.end), "?") {
			t.Errorf("%s: the upload is at %s", test.start, at)
		}
		h.Want(204, "GET", at, nil)
		then := "?"
		if test.end != "" {
			then = "&"
		}
		at = h.Want(201, "PUT", at+then+"digest="+digest.FromBytes(blob).String(), blob).Header().Get("Location")
		h.Want(200, "HEAD", at, nil)
		repo := strings.TrimPrefix(strings.TrimPrefix(strings.TrimSuffix(test.begin, "/blobs/uploads/"), "/hub"), "/v2/")
		h.Until(func() bool {
			_, err := test.at.HeldBlob(strings.TrimPrefix(repo, "hub/"), digest.FromBytes(blob))
			return err == nil
		})
	}
}

// A location is a URL where the operator has said how clients reach the listener, unless the URL
// would lead to another upstream.
func TestLocationWithExternalURL(t *testing.T) {
	hub := mirrortest.NewRegistry()
	h := mirrortest.New(t, mirrortest.Options{Change: func(_ *mirrortest.Fixture, o *mirror.Options) {
		o.Upstreams = append(o.Upstreams, &repository.Upstream{Name: "hub", Source: hub, Sink: hub, Lister: hub})
	}})
	h.Listener.Routes = &route.Table{Order: []route.Route{{Upstream: "up"}, {Upstream: "hub", Hosts: []string{"docker.io"}, Prefixes: []string{"hub"}}}}
	h.Listener.ExternalURL = "https://dray.example.com"
	for _, test := range []struct{ host, path, want string }{
		{"10.0.0.1:5000", "/v2/team/app", "https://dray.example.com/v2/team/app/blobs/"},
		{"dray.example.com", "/v2/hub/team/two", "https://dray.example.com/v2/hub/team/two/blobs/"},
		{"dray.example.com", "/hub/v2/team/three", "https://dray.example.com/hub/v2/team/three/blobs/"},
		{"docker.io", "/v2/team/four", "/v2/team/four/blobs/"},
		{"docker.io", "/v2/hub/team/five", "https://dray.example.com/v2/hub/team/five/blobs/"},
	} {
		blob := []byte(test.path)
		do := func(status int, method, at string, body []byte) string {
			t.Helper()
			r := httptest.NewRequestWithContext(t.Context(), method, at, bytes.NewReader(body))
			r.Host = test.host
			w := httptest.NewRecorder()
			if h.Listener.ServeHTTP(w, r); w.Code != status {
				t.Fatalf("%s %s: %d %s", method, at, w.Code, w.Body)
			}
			return w.Header().Get("Location")
		}
		at := do(202, "POST", test.path+"/blobs/uploads/", nil)
		if !strings.HasPrefix(at, test.want+"uploads/") {
			t.Errorf("%s at %s: the upload is at %s", test.path, test.host, at)
		}
		at = strings.TrimPrefix(at, h.Listener.ExternalURL)
		if at = do(202, "PATCH", at, blob); !strings.HasPrefix(at, test.want+"uploads/") {
			t.Errorf("%s at %s: the upload goes on at %s", test.path, test.host, at)
		}
		at = do(201, "PUT", strings.TrimPrefix(at, h.Listener.ExternalURL)+"?digest="+digest.FromBytes(blob).String(), nil)
		if at != test.want+digest.FromBytes(blob).String() {
			t.Errorf("%s at %s: the blob is at %s", test.path, test.host, at)
		}
	}
}

// A build cache is found under the name that it was pushed to, and all other content at the
// upstream.
func TestDivert(t *testing.T) {
	stored := remover{mirrortest.NewRegistry()}
	h := mirrortest.New(t, mirrortest.Options{Change: func(f *mirrortest.Fixture, o *mirror.Options) {
		to := &repository.Upstream{Name: "caches", Source: stored, Sink: stored, Lister: stored, Deleter: stored}
		o.Upstreams = append(o.Upstreams, to)
		f.Upstream.BuildCaches = &repository.BuildCaches{To: to}
	}})
	h.Hold("team/app", "both", []byte("at the upstream"))
	upstream := h.Hold("team/app", "v1", []byte("an image"))
	blob := []byte("a layer of a build cache")
	cache := mirrortest.Image(t, blob)
	stored.HoldManifest("up/team/app", "both", cache)
	stored.HoldBlob("up/team/app", blob)
	for tag, want := range map[string]*oci.Manifest{"both": cache, "v1": upstream} {
		if w := h.Want(200, "GET", "/v2/team/app/manifests/"+tag, nil); w.Body.String() != string(want.Raw) {
			t.Errorf("%s is %s", tag, w.Body)
		}
	}
	if w := h.Want(200, "GET", "/v2/team/app/blobs/"+digest.FromBytes(blob).String(), nil); w.Body.String() != string(blob) {
		t.Errorf("the layer is %q", w.Body)
	}
	h.Want(404, "GET", "/v2/team/other/manifests/both", nil)
}

// asks is a request for a manifest, and its answer.
func asks(ctx context.Context) (*request.Request, *httptest.ResponseRecorder) {
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(ctx, "GET", "/v2/team/app/manifests/v1", nil)
	return request.New(&request.Listener{}, nil, w, r, wire.Options{}), w
}

// The work before an answer ends in time, unless the answer begins, and always with the request.
func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const bound = 25 * time.Second
		from := &requestContext{Context: t.Context(), done: make(chan struct{})}
		for name, test := range map[string]struct {
			during func(*request.Request)
			want   string
		}{
			"nothing":  {func(*request.Request) { time.Sleep(bound - time.Second) }, ""},
			"too slow": {func(*request.Request) { time.Sleep(bound + time.Second) }, "did not answer in time"},
			"stopped":  {func(x *request.Request) { x.StopTimeout(); time.Sleep(time.Hour) }, ""},
		} {
			x, _ := asks(from)
			ctx := x.WithTimeout(bound)
			test.during(x)
			switch cause := context.Cause(ctx); {
			case test.want == "" && cause != nil:
				t.Errorf("%s: %v", name, cause)
			case test.want != "" && (cause == nil || !strings.Contains(cause.Error(), test.want) || oci.AsError(cause).Status != 504):
				t.Errorf("%s: %v, want %q", name, cause, test.want)
			}
			x.Close()
			if ctx.Err() == nil || from.held.Load() != 0 {
				t.Errorf("%s: after Close the context has ended with %v, and %d are derived from that of the request", name, ctx.Err(), from.held.Load())
			}
		}
		x, _ := asks(from)
		x.Close() // nothing was bounded
	})
}

// Headers that describe content are not on an error. A client that has left gets nothing, unless it
// may have stopped sending only.
func TestFail(t *testing.T) {
	gone, leave := context.WithCancel(t.Context())
	leave()
	unknown, other := oci.ErrBlobUnknown.With("no"), errors.New("something")
	for name, test := range map[string]struct {
		ctx    context.Context
		err    error
		status int // 0: nothing is sent
	}{
		"an error of the protocol": {t.Context(), unknown, 404},
		"another error":            {t.Context(), other, 500},
		"left, and a verdict":      {gone, unknown, 404},
		"left":                     {gone, other, 0},
	} {
		x, w := asks(test.ctx)
		h := w.Header()
		described := []string{"Accept-Ranges", "Cache-Control", "Docker-Content-Digest", "ETag", "Warning", "X-Cache"}
		for _, name := range described {
			h.Set(name, "of the content")
		}
		h.Set("Docker-Distribution-Api-Version", "registry/2.0")
		if err := x.Fail(test.err); !errors.Is(err, test.err) {
			t.Errorf("%s: %v is to be logged", name, err)
		}
		if x.W.Status() != test.status || x.W.Broken() != (test.status == 0) || (w.Body.Len() == 0) != (test.status == 0) {
			t.Errorf("%s: status %d, broken %t, %q", name, x.W.Status(), x.W.Broken(), w.Body)
		}
		if test.status == 0 {
			continue
		}
		for _, header := range described {
			if h.Get(header) != "" {
				t.Errorf("%s: %s is %q", name, header, h.Get(header))
			}
		}
		if h.Get("Docker-Distribution-Api-Version") == "" {
			t.Errorf("%s: it does not say which API it is of", name)
		}
	}
}
