package push_test

import (
	"context"
	"errors"
	"io"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/mirror/mirrortest"
	"dray/upstream"
	"dray/upstream/oci"
)

// slowSink takes half of a blob, and the blob when its gate opens.
type slowSink struct {
	*mirrortest.Registry
	gate  chan struct{}
	mu    sync.Mutex
	blobs int
}

func (s *slowSink) PutBlob(ctx context.Context, repo upstream.Repo, u upstream.Upload) error {
	s.mu.Lock()
	s.blobs++
	s.mu.Unlock()
	r, err := u.Open()
	if err != nil {
		return err
	}
	_, err = io.CopyN(io.Discard, r, u.Size/2)
	if err := errors.Join(err, r.Close()); err != nil {
		return err
	}
	select {
	case <-s.gate:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return s.Registry.PutBlob(ctx, repo, u)
}

// halfDone matches a percentage that is neither 0 nor 100.
var halfDone = regexp.MustCompile(`\([1-9]\d? %\)`)

// A listener behind a load balancer answers within its limit, whatever the client waits for, and
// the push goes on.
func TestPushAnswersWithin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := mirrortest.New(t, mirrortest.Options{})
		sink := &slowSink{Registry: h.Registry, gate: make(chan struct{})}
		h.Upstream.Sink = sink
		layer := []byte("a layer that ECR takes its time for")
		at := h.Want(202, "POST", "/v2/a/blobs/uploads/", nil).Header().Get("Location")
		h.Want(201, "PUT", at+"?digest="+digest.FromBytes(layer).String(), layer)
		m := mirrortest.Image(h, layer)
		for _, test := range []struct {
			within time.Duration
			agent  string
			want   time.Duration
		}{
			{55 * time.Second, "docker/29.0.1", 55 * time.Second},
			{10 * time.Second, "docker/29.0.1", 10 * time.Second},
			{10 * time.Second, "containerd/2.4.2", 10 * time.Second},
			{55 * time.Second, "containerd/2.4.2", 25 * time.Second},
			{time.Hour, "containerd/2.4.2", 25 * time.Second},
			{15 * time.Minute, "docker/29.0.1", 15 * time.Minute},
		} {
			h.Listener.AnswerWithin = test.within
			start := time.Now()
			w := h.Do("PUT", "/v2/a/manifests/v1", m.Raw, "Content-Type", m.MediaType, "User-Agent", test.agent)
			if took := time.Since(start); w.Code != 403 || took != test.want || !halfDone.MatchString(w.Body.String()) {
				t.Errorf("%s within %v: %d %s after %v", test.agent, test.within, w.Code, w.Body, took)
			}
		}
		close(sink.gate)
		h.Want(201, "PUT", "/v2/a/manifests/v1", m.Raw, "Content-Type", m.MediaType)
	})
}

// A client that gives up after 30 s is answered before. Copying goes on meanwhile, and its
// second push sends nothing twice. A client that waits longer is answered later, and one that
// disconnects stops nothing.
func TestPushAnswersInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := mirrortest.New(t, mirrortest.Options{})
		sink := &slowSink{Registry: h.Registry, gate: make(chan struct{})}
		h.Upstream.Sink = sink
		layer := []byte("a layer that ECR takes its time for")
		at := h.Want(202, "POST", "/v2/a/blobs/uploads/", nil).Header().Get("Location")
		h.Want(201, "PUT", at+"?digest="+digest.FromBytes(layer).String(), layer)
		m := mirrortest.Image(h, layer)
		put := func(agent string) *httptest.ResponseRecorder {
			return h.Do("PUT", "/v2/a/manifests/v1", m.Raw, "Content-Type", m.MediaType, "User-Agent", agent)
		}

		start := time.Now()
		w := put("containerd/2.4.2")
		if took := time.Since(start); w.Code != 403 || took > 26*time.Second || !strings.Contains(w.Body.String(), "push again") || !halfDone.MatchString(w.Body.String()) {
			t.Errorf("after %s: %d %s", took, w.Code, w.Body)
		}
		h.Want(200, "HEAD", "/v2/a/blobs/"+digest.FromBytes(layer).String(), nil)

		var wg sync.WaitGroup
		wg.Go(func() {
			if w := put("docker/20.10"); w.Code != 201 || time.Since(start) < 2*time.Minute {
				t.Errorf("who waits longer: %d %s after %s", w.Code, w.Body, time.Since(start))
			}
		})
		ctx, leave := context.WithCancel(t.Context())
		wg.Go(func() {
			r := httptest.NewRequestWithContext(ctx, "PUT", "/v2/a/manifests/v1", strings.NewReader(string(m.Raw)))
			r.Header.Set("Content-Type", m.MediaType)
			func() {
				defer func() { _ = recover() }() // net/http cuts the connection of a client that has left
				h.Listener.ServeHTTP(httptest.NewRecorder(), r)
			}()
		})
		synctest.Wait()
		leave()
		time.Sleep(2 * time.Minute)
		close(sink.gate)
		wg.Wait()
		if h.Registry.Held("a", oci.Reference{Tag: "v1"}) == nil {
			t.Error("the manifest did not land")
		}
		if w := put("containerd/2.4.2"); w.Code != 201 {
			t.Errorf("the second push: %d %s", w.Code, w.Body)
		}
		if sink.blobs != 1 {
			t.Errorf("the layer was sent %d times", sink.blobs)
		}
	})
}
