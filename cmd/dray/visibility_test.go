package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/upstream/ecrtest"
	"dray/upstream/oci"
)

// strangeHub is a Docker Hub of which the test answers every request.
func strangeHub(t *testing.T, h http.HandlerFunc) (edit []string) {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return []string{"http://HUB_ADDR", s.URL}
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"errors":[{"code":%q,"message":"says the registry"}]}`, code)
}

// naming is an image manifest that names a digest in the given members.
func naming(members string) []byte {
	return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},%s}`,
		oci.MediaTypeOCIManifest, digest.FromBytes(imageConfig), len(imageConfig), members)
}

// TestVisibilityNamingIsNotHaving: a client that can push a manifest can name any digest in it.
// Content from another upstream or repository stays hidden.
func TestVisibilityNamingIsNotHaving(t *testing.T) {
	secret := []byte("layer of a private repository")
	d := digest.FromBytes(secret)
	descriptor := func(mediaType string) string {
		return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, mediaType, d, len(secret))
	}
	for name, members := range map[string]string{
		"layer":         `"layers":[` + descriptor("application/vnd.oci.image.layer.v1.tar") + `]`,
		"foreign layer": `"layers":[` + descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip") + `]`,
		"blobs":         `"layers":[],"blobs":[` + descriptor("application/octet-stream") + `]`,
		"other case":    `"Layers":[` + descriptor("application/octet-stream") + `]`,
	} {
		t.Run(name, func(t *testing.T) {
			s := startStack(t, t.TempDir(), strangeHub(t, func(w http.ResponseWriter, r *http.Request) {
				if strings.Contains(r.URL.Path, "/manifests/") {
					w.Header().Set("Content-Type", oci.MediaTypeOCIManifest)
					_, _ = w.Write(naming(members))
					return
				}
				refuse(w, 404, "BLOB_UNKNOWN")
			})...)
			private := s.push("private/app", "1", secret)
			s.want(200, "GET", "/v2/private/app/blobs/"+d.String(), nil)

			s.want(200, "GET", "/v2/hub/evil/x/manifests/latest", nil)
			s.want(404, "GET", "/v2/hub/evil/x/blobs/"+d.String(), nil)
			s.want(404, "HEAD", "/v2/hub/evil/x/blobs/"+d.String(), nil)

			// The same by pushing: the registry refuses it, or nobody looks there.
			s.upload("mine/app", imageConfig)
			s.do("PUT", "/v2/mine/app/manifests/1", naming(members), "Content-Type", oci.MediaTypeOCIManifest)
			s.want(404, "GET", "/v2/mine/app/blobs/"+d.String(), nil)
			s.want(404, "GET", "/v2/mine/app/manifests/"+private.Digest.String(), nil)
		})
	}
}

// TestVisibilityOfManifests: an index that names a private manifest does not show it.
func TestVisibilityOfManifests(t *testing.T) {
	var index []byte
	s := startStack(t, t.TempDir(), strangeHub(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/manifests/latest") {
			w.Header().Set("Content-Type", oci.MediaTypeOCIIndex)
			_, _ = w.Write(index)
			return
		}
		refuse(w, 404, "MANIFEST_UNKNOWN")
	})...)
	m := s.push("private/app", "1", []byte("layer"))
	index = fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`, oci.MediaTypeOCIIndex, m.MediaType, m.Digest, len(m.Raw))
	s.want(200, "GET", "/v2/hub/evil/x/manifests/latest", nil)
	s.want(404, "GET", "/v2/hub/evil/x/manifests/"+m.Digest.String(), nil)
	s.want(200, "GET", "/v2/private/app/manifests/"+m.Digest.String(), nil)
}

// TestRefusalOfAnotherRepository: a client that joins the fetch of another repository
// gets its own upstream's answer, and nothing wrong is remembered.
func TestRefusalOfAnotherRepository(t *testing.T) {
	release, arrived := make(chan struct{}), make(chan struct{}, 8)
	s := startStack(t, t.TempDir(), strangeHub(t, func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-release
		refuse(w, 404, "BLOB_UNKNOWN")
	})...)
	layer := bytes.Repeat([]byte("x"), 1<<20)
	path := "/v2/good/app/blobs/" + digest.FromBytes(layer).String()
	pushDirectly(t, s.ecr, "good/app", "1", layer)
	s.want(200, "GET", "/v2/good/app/manifests/1", nil)
	answers := make(chan int, 2)
	ask := func(path string) { r, _ := s.try("GET", path, nil); answers <- r.StatusCode }
	go ask("/v2/hub/evil/x/blobs/" + digest.FromBytes(layer).String())
	<-arrived
	go ask(path)
	time.Sleep(50 * time.Millisecond) // long enough to join; too short would only test less
	close(release)
	if a, b := <-answers, <-answers; a+b != 404+200 {
		t.Errorf("answers %d and %d, want one 404 and one 200", a, b)
	}
	s.want(200, "HEAD", path, nil)
	s.want(404, "GET", "/v2/hub/evil/x/blobs/"+digest.FromBytes(layer).String(), nil)
}

// TestNotFoundIsWhatTheRegistrySays: neither a failure with a code that sounds like
// it, nor the answer to a client that takes no manifest, becomes "not found" for others.
func TestNotFoundIsWhatTheRegistrySays(t *testing.T) {
	raw := naming(`"layers":[]`)
	s := startStack(t, t.TempDir(), strangeHub(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.Contains(r.URL.Path, "/failing/"):
			refuse(w, 501, "MANIFEST_UNKNOWN")
		case !oci.Accepts(r.Header.Values("Accept"), oci.MediaTypeOCIManifest):
			refuse(w, 404, "MANIFEST_UNKNOWN")
		default:
			w.Header().Set("Content-Type", oci.MediaTypeOCIManifest)
			_, _ = w.Write(raw)
		}
	})...)
	for range 2 {
		s.want(501, "GET", "/v2/hub/failing/x/manifests/1", nil)
	}
	for _, ref := range []string{digest.FromBytes(raw).String(), "1"} {
		s.want(404, "GET", "/v2/hub/a/b/manifests/"+ref, nil, "Accept", "application/json")
		s.want(200, "GET", "/v2/hub/a/b/manifests/"+ref, nil, "Accept", oci.MediaTypeOCIManifest)
		s.want(200, "GET", "/v2/hub/a/b/manifests/"+ref, nil)
	}
}

// TestMountedBlobHasASize: Docker asks for it right after the mount.
func TestMountedBlobHasASize(t *testing.T) {
	ecr := ecrtest.Start(t, ecrtest.Options{BlobMounting: true})
	ecr.CreateRepository("b/app")
	s := startBefore(t, ecr, ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()}), t.TempDir())
	layer := []byte("a layer to mount")
	s.push("a/app", "1", layer)
	path := "/v2/b/app/blobs/" + digest.FromBytes(layer).String()
	s.want(404, "HEAD", path, nil) // remembered, but not past the mount
	s.want(201, "POST", "/v2/b/app/blobs/uploads/?mount="+digest.FromBytes(layer).String()+"&from=a/app", nil)
	if r := s.want(200, "HEAD", path, nil); r.ContentLength != int64(len(layer)) {
		t.Errorf("Content-Length %d", r.ContentLength)
	}
}

// TestPushHealsALostChild: a client leaves out a manifest that dray said is there. If ECR has
// dropped it meanwhile, dray sends it again with the index.
func TestPushHealsALostChild(t *testing.T) {
	s := startStack(t, t.TempDir())
	layer := []byte("layer")
	s.upload("mine/app", layer)
	s.upload("mine/app", imageConfig)
	m := imageOf(t, layer)
	s.want(201, "PUT", "/v2/mine/app/manifests/"+m.Digest.String(), m.Raw, "Content-Type", m.MediaType)
	req, err := http.NewRequestWithContext(t.Context(), "DELETE", s.ecr.RegistryURL+"/v2/mine/app/manifests/"+m.Digest.String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("AWS", s.ecr.Token(""))
	req.Host = s.ecr.HostName()
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil || resp.StatusCode != 202 {
		t.Fatal(resp, err)
	}
	resp.Body.Close()
	s.want(200, "HEAD", "/v2/mine/app/manifests/"+m.Digest.String(), nil)
	index := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`, oci.MediaTypeOCIIndex, m.MediaType, m.Digest, len(m.Raw))
	s.want(201, "PUT", "/v2/mine/app/manifests/1", index, "Content-Type", oci.MediaTypeOCIIndex)
	for _, ref := range []string{"1", m.Digest.String()} {
		if _, ok := s.ecr.Image("mine/app", ref); !ok {
			t.Errorf("ECR does not have %s", ref)
		}
	}
}

// TestStrangeManifestIsNoOutage: a bad manifest is the client's error, not the upstream's.
func TestStrangeManifestIsNoOutage(t *testing.T) {
	s := startStack(t, t.TempDir())
	s.upload("mine/app", imageConfig)
	raw := bytes.Replace(naming(`"layers":[]`), []byte(oci.MediaTypeOCIManifest), []byte(`a/b\nX: y`), 1)
	s.want(400, "PUT", "/v2/mine/app/manifests/1", raw)
	if st := s.registries[0].Breaker.State(); st.Failures != 0 {
		t.Errorf("counted as a failure of the upstream: %+v", st)
	}
}

// TestEmptyBlobWithARange: containerd asks for a range of everything.
func TestEmptyBlobWithARange(t *testing.T) {
	s := startStack(t, t.TempDir(), strangeHub(t, func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Content-Length", "0") })...)
	s.want(200, "GET", "/v2/hub/a/b/blobs/"+digest.FromBytes(nil).String(), nil, "Range", "bytes=0-")
}

// TestNotModifiedIsNoPull: a pull is a manifest that a client got.
func TestNotModifiedIsNoPull(t *testing.T) {
	s := startStack(t, t.TempDir())
	m := s.push("p/q", "1", []byte("l"))
	s.want(304, "GET", "/v2/p/q/manifests/1", nil, "If-None-Match", `"`+m.Digest.String()+`"`)
	s.want(200, "HEAD", "/v2/p/q/manifests/1", nil)
	s.want(200, "GET", "/v2/p/q/manifests/1", nil)
	if n := s.metric("dray_image_pulls_total"); n != 1 {
		t.Errorf("%v pulls counted, want 1", n)
	}
}

// metric is the sum over a metric's series.
func (s *stack) metric(name string) (sum float64) {
	s.Helper()
	families, err := s.metrics.Gather()
	if err != nil {
		s.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// TestSilentClientIsGivenUp: dray disconnects a client that stops in the middle of its body, or
// stops reading. The bytes that it sent stay, so that it can continue.
func TestSilentClientIsGivenUp(t *testing.T) {
	s := startStack(t, t.TempDir(), "cache: {dir", "limits: {stall_timeout: 200ms}\ncache: {dir")
	at := s.want(202, "POST", "/v2/a/b/blobs/uploads/", nil).Header.Get("Location")
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "PATCH %s HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nab", at)
	answer := make([]byte, 4096)
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	if n, err := conn.Read(answer); err != nil || !bytes.Contains(answer[:n], []byte("400 Bad Request")) {
		t.Errorf("%s %v", answer[:n], err)
	}
	if r := s.want(204, "GET", at, nil); r.Header.Get("Range") != "0-1" {
		t.Errorf("kept %q", r.Header.Get("Range"))
	}

	layer := bytes.Repeat([]byte("slow"), 16<<20)
	s.push("a/b", "1", layer)
	reader, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	fmt.Fprintf(reader, "GET /v2/a/b/blobs/%s HTTP/1.1\r\nHost: x\r\n\r\n", digest.FromBytes(layer))
	for deadline := time.Now().Add(20 * time.Second); s.metric("dray_response_bytes_total") < 1; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a client that does not read is never given up")
		}
	}
}

// TestAnswersNobodyTakes: a client that asks on and on and reads no answer is disconnected, though
// each of its answers is short.
func TestAnswersNobodyTakes(t *testing.T) {
	s := startStack(t, t.TempDir(), "cache: {dir", "limits: {stall_timeout: 200ms}\ncache: {dir")
	s.push("a/b", "1", []byte("layer"))
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	questions := bytes.Repeat([]byte("GET /v2/a/b/manifests/1 HTTP/1.1\r\nHost: x\r\n\r\n"), 1000)
	for err == nil {
		_ = conn.SetWriteDeadline(time.Now().Add(20 * time.Second))
		_, err = conn.Write(questions)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("it is still connected")
	}
}

// TestAbandonedQuestionsEnd: a client cannot leave more questions behind than it has
// connections.
func TestAbandonedQuestionsEnd(t *testing.T) {
	var open atomic.Int64
	s := startStack(t, t.TempDir(), strangeHub(t, func(w http.ResponseWriter, r *http.Request) {
		open.Add(1)
		defer open.Add(-1)
		<-r.Context().Done()
	})...)
	const clients = 20
	ctx, leave := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			req, _ := http.NewRequestWithContext(ctx, "GET", fmt.Sprintf("%s/v2/hub/a/b/manifests/%d", s.url, i), nil)
			if resp, err := http.DefaultClient.Do(req); err == nil {
				resp.Body.Close()
				t.Errorf("an answer: %s", resp.Status)
			}
		})
	}
	reach := func(n int64) {
		for deadline := time.Now().Add(20 * time.Second); open.Load() != n; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d questions are open, want %d", open.Load(), n)
			}
		}
	}
	reach(clients)
	leave()
	wg.Wait()
	reach(0)
}
