package push_test

import (
	"io"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"

	"dray/mirror"
	"dray/mirror/mirrortest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// An upload that its client left alone ends, and gives back its bytes and its place; one in use
// does not.
func TestUploadExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := mirrortest.New(t, mirrortest.Options{Change: func(_ *mirrortest.Fixture, o *mirror.Options) { o.MaxUploadsPerClient = 2 }})
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
		time.Sleep(30 * time.Minute) // its time begins with the end of its last request
		h.Want(204, "GET", busy, nil)
		start()
		h.Want(429, "POST", "/v2/team/app/blobs/uploads/", nil)
	})
}

// Uploads that their client left give way to the client's next one, those first that it left
// longest ago. Uploads that a request is on do not, and neither do those of a client between two
// requests.
func TestLeftUploadsGiveWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := mirrortest.New(t, mirrortest.Options{Change: func(_ *mirrortest.Fixture, o *mirror.Options) {
			o.MaxUploadsPerClient, o.MaxUploadBytesPerClient = 3, 100
		}})
		start := func() string {
			return h.Want(202, "POST", "/v2/team/app/blobs/uploads/", nil).Header().Get("Location")
		}
		busy := start()
		body, feed := io.Pipe()
		var wg sync.WaitGroup
		wg.Go(func() {
			h.Listener.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), "PATCH", busy, body))
		})
		if _, err := feed.Write([]byte("a request is on it")); err != nil {
			t.Fatal(err)
		}
		broken := start()
		cut, lost := io.Pipe()
		wg.Go(func() {
			h.Listener.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), "PATCH", broken, cut))
		})
		if _, err := lost.Write([]byte("the connection breaks")); err != nil {
			t.Fatal(err)
		}
		lost.CloseWithError(io.ErrUnexpectedEOF)
		synctest.Wait()
		kept := start()
		next := start() // in the place of the broken one
		h.Want(404, "GET", broken, nil)
		h.Want(429, "POST", "/v2/team/app/blobs/uploads/", nil)
		time.Sleep(59 * time.Second) // a client may take its time between two requests
		h.Want(429, "POST", "/v2/team/app/blobs/uploads/", nil)
		h.Want(202, "PATCH", kept, make([]byte, 50))
		time.Sleep(time.Second)
		h.Want(202, "PATCH", start(), make([]byte, 10)) // in the place of next
		h.Want(404, "GET", next, nil)
		h.Want(204, "GET", kept, nil)

		// Their bytes give way, too.
		time.Sleep(time.Minute)
		if _, err := feed.Write(make([]byte, 60)); err != nil {
			t.Fatal(err)
		}
		feed.Close()
		wg.Wait()
		h.Want(204, "GET", busy, nil)
		h.Want(413, "PATCH", busy, make([]byte, 23))
	})
}

// Blobs of a push that never got its manifest are let go.
func TestStagedExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := mirrortest.New(t, mirrortest.Options{})
		blob := []byte("a blob without manifest")
		h.Want(201, "POST", "/v2/team/app/blobs/uploads/?digest="+digest.FromBytes(blob).String(), blob)
		time.Sleep(59 * time.Minute)
		if n := h.Counted("dray_push_blobs_staged"); n != 1 {
			t.Errorf("%v staged, want 1", n)
		}
		time.Sleep(10 * time.Minute)
		if n := h.Counted("dray_push_blobs_staged"); n != 0 {
			t.Errorf("%v staged are left", n)
		}
	})
}

// Layers that a client has pushed do not expire while its push to the repository still sends
// another one. Those of other repositories do.
func TestStagedWhileThePushGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := mirrortest.New(t, mirrortest.Options{})
		for _, repo := range []string{"team/app", "team/other"} {
			blob := []byte("a small layer of " + repo)
			h.Want(201, "POST", "/v2/"+repo+"/blobs/uploads/?digest="+digest.FromBytes(blob).String(), blob)
		}
		staged := func(want float64) {
			t.Helper()
			if n := h.Counted("dray_push_blobs_staged"); n != want {
				t.Errorf("%v staged, want %v", n, want)
			}
		}
		for i, chunk := range []string{"a large layer", "another large layer"} {
			at := h.Want(202, "POST", "/v2/team/app/blobs/uploads/", nil).Header().Get("Location")
			body, feed := io.Pipe()
			var wg sync.WaitGroup
			wg.Go(func() {
				h.Listener.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), "PATCH", at, body))
			})
			if _, err := feed.Write([]byte(chunk)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Minute)
			feed.Close()
			wg.Wait()
			staged(float64(1 + i))
			time.Sleep(30 * time.Minute) // the client compresses the next layer
			h.Want(201, "PUT", at+"?digest="+digest.FromString(chunk).String(), nil)
		}
		staged(3)
		time.Sleep(70 * time.Minute)
		staged(0)
	})
}

// A request waits for another one on the same upload, for a while: a client that reconnects meets
// its own dying request.
func TestUploadIsUsedByOneRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := mirrortest.New(t, mirrortest.Options{})
		at := h.Want(202, "POST", "/v2/team/app/blobs/uploads/", nil).Header().Get("Location")
		body, feed := io.Pipe()
		var wg sync.WaitGroup
		wg.Go(func() {
			h.Listener.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), "PATCH", at, body))
		})
		if _, err := feed.Write([]byte("half of it")); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		w := h.Do("GET", at, nil)
		if took := time.Since(began); w.Code != 400 || took != 10*time.Second {
			t.Errorf("beside another request: %d after %v\n%s", w.Code, took, w.Body)
		}
		wg.Go(func() { time.Sleep(5 * time.Second); feed.Close() })
		if w := h.Want(204, "GET", at, nil); w.Header().Get("Range") != "0-9" {
			t.Errorf("of the upload is here: %s", w.Header().Get("Range"))
		}
		wg.Wait()
		h.Want(404, "GET", strings.Replace(at, "team/app", "team/other", 1), nil)
	})
}
