package request_test

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"weak"

	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"

	"dray/mirror/mirrortest"
	"dray/upstream"
	"dray/upstream/oci"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// requestContext is the context of a request that counts what was derived from it and has not been
// released. It does not end with its request, so that nothing is released by that.
type requestContext struct {
	context.Context
	done chan struct{}
	held atomic.Int64
}

func (a *requestContext) Done() <-chan struct{} { return a.done }

// AfterFunc is how package context registers what is derived.
func (a *requestContext) AfterFunc(func()) (stop func() bool) {
	a.held.Add(1)
	var stopped atomic.Bool
	return func() bool {
		first := !stopped.Swap(true)
		if first {
			a.held.Add(-1)
		}
		return first
	}
}

// reachable counts what is still in memory.
func reachable[T any](all []weak.Pointer[T]) (n int) {
	runtime.GC()
	for _, p := range all {
		if p.Value() != nil {
			n++
		}
	}
	return n
}

// remover is a registry that deletes nothing and says that it did.
type remover struct{ *mirrortest.Registry }

func (remover) DeleteManifest(context.Context, upstream.Repo, oci.Reference) error { return nil }
func (remover) DeleteBlob(context.Context, upstream.Repo, digest.Digest) error     { return nil }

// An answer leaves no timer and no context behind, whatever was asked for and whatever became of
// it.
func TestNothingLingersAfterAnAnswer(t *testing.T) {
	h := mirrortest.New(t, mirrortest.Options{MemoryBytes: 1 << 20})
	h.Upstream.Deleter = remover{h.Registry}
	layer := bytes.Repeat([]byte("layer"), 50_000)
	m := h.Hold("team/app", "v1", layer)
	h.Pull("team/app", "v1", m, layer)
	blob, unknown := digest.FromBytes(layer).String(), digest.FromString("unknown").String()
	for _, test := range []struct {
		method, path string
		status       int
	}{
		{"HEAD", "blobs/" + blob, 200},
		{"GET", "blobs/" + blob, 200},
		{"HEAD", "blobs/" + unknown, 404},
		{"GET", "blobs/" + unknown, 404},
		{"GET", "manifests/v1", 200},
		{"GET", "manifests/" + unknown, 404},
		{"GET", "tags/list", 200},
		{"GET", "referrers/" + m.Digest.String(), 200},
		{"DELETE", "manifests/v9", 404},
		{"DELETE", "manifests/" + unknown, 202},
		{"DELETE", "blobs/" + unknown, 202},
		{"POST", "blobs/uploads/?mount=" + unknown, 202},
		{"PUT", "manifests/v2", 201},
	} {
		t.Run(test.method+" "+test.path, func(t *testing.T) {
			const requests = 100
			var asked []weak.Pointer[requestContext]
			for range requests {
				ctx := &requestContext{Context: context.Background(), done: make(chan struct{})}
				asked = append(asked, weak.Make(ctx))
				r := httptest.NewRequestWithContext(ctx, test.method, "/v2/team/app/"+test.path, http.NoBody)
				if test.method == "PUT" {
					r = httptest.NewRequestWithContext(ctx, test.method, "/v2/team/app/"+test.path, bytes.NewReader(m.Raw))
					r.Header.Set("Content-Type", m.MediaType)
				}
				r.RemoteAddr = "127.0.0.1:1"
				w := httptest.NewRecorder()
				if h.Listener.ServeHTTP(w, r); w.Code != test.status {
					t.Fatalf("%d %s", w.Code, w.Body)
				}
				if at := w.Header().Get("Location"); strings.Contains(at, "/uploads/") {
					h.Want(204, "DELETE", at, nil)
				}
				if n := ctx.held.Load(); n != 0 {
					t.Fatalf("%d contexts are derived from that of the request", n)
				}
			}
			if n := reachable(asked); n > requests/2 { // what was asked last may be in some register
				t.Errorf("%d of %d requests are still held", n, requests)
			}
		})
	}
}
