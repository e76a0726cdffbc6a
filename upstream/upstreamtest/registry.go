package upstreamtest

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"

	"dray/upstream"
	"dray/upstream/oci"
)

// Registry is a well-behaved registry in memory, without credentials.
type Registry struct {
	// URL is the base URL.
	URL *url.URL
	// Recorder records all requests to the registry.
	Recorder *Recorder
}

// NewRegistry runs a Registry until the test ends.
func NewRegistry(tb testing.TB) *Registry {
	tb.Helper()
	quiet := registry.Logger(log.New(io.Discard, "", 0))
	return Serve(tb, serveRanges(registry.New(quiet, registry.WithReferrersSupport(true))))
}

// serveRanges makes the given handler serve all forms of Range on blobs. On its own, the handler
// serves only ranges with an end.
func serveRanges(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.Header.Get("Range") == "" || !strings.Contains(r.URL.Path, "/blobs/sha256:") {
			handler.ServeHTTP(w, r)
			return
		}
		whole := r.Clone(r.Context())
		whole.Header.Del("Range")
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, whole)
		maps.Copy(w.Header(), answer.Header())
		w.Header().Del("Content-Length")
		if answer.Code != http.StatusOK {
			w.WriteHeader(answer.Code)
			_, _ = w.Write(answer.Body.Bytes())
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(answer.Body.Bytes()))
	})
}

// Serve runs any handler as a Registry until the test ends.
func Serve(tb testing.TB, h http.Handler) *Registry {
	tb.Helper()
	r := &Registry{Recorder: &Recorder{}}
	server := httptest.NewServer(r.Recorder.Handler(h))
	tb.Cleanup(server.Close)
	u, err := url.Parse(server.URL)
	if err != nil {
		tb.Fatal(err)
	}
	r.URL = u
	return r
}

// Client returns a client of the registry, whose transport is closed when the test ends.
func (r *Registry) Client(tb testing.TB, q upstream.Quirks) *upstream.Client {
	tb.Helper()
	return NewClient(tb, upstream.Options{Name: "test", Base: r.URL, Quirks: q})
}

// NewClient returns a client. If o has no transport, NewClient makes one, which is closed when the
// test ends.
func NewClient(tb testing.TB, o upstream.Options) *upstream.Client {
	tb.Helper()
	if o.Transport == nil {
		t := upstream.NewTransport(upstream.TransportOptions{})
		tb.Cleanup(t.CloseIdleConnections)
		o.Transport = t
	}
	c, err := upstream.New(o)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// Image is an image of one layer, with all that a push needs.
type Image struct {
	Config, Layer []byte
	Manifest      *oci.Manifest
}

// NewImage makes an OCI image with a layer of the given size. The seed determines the bytes.
func NewImage(tb testing.TB, seed string, size int) Image {
	tb.Helper()
	layer := make([]byte, size)
	_, _ = rand.NewChaCha8(sha256.Sum256([]byte(seed))).Read(layer) // never fails
	config := fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","author":%q,"config":{},"rootfs":{"type":"layers","diff_ids":[%q]}}`,
		seed, digest.FromBytes(layer))
	raw, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": oci.MediaTypeOCIManifest,
		"config": describe("application/vnd.oci.image.config.v1+json", config),
		"layers": []any{describe("application/vnd.oci.image.layer.v1.tar", layer)},
	})
	if err != nil {
		tb.Fatal(err)
	}
	m, err := oci.ParseManifest(oci.MediaTypeOCIManifest, raw)
	if err != nil {
		tb.Fatal(err)
	}
	return Image{Config: config, Layer: layer, Manifest: m}
}

func describe(mediaType string, p []byte) oci.Descriptor {
	return oci.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(p), Size: int64(len(p))}
}

// Upload returns the upload of p, with its length and digest known from the start.
func Upload(p []byte) upstream.Upload {
	return upstream.Upload{
		Open:      func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(p)), nil },
		Size:      int64(len(p)),
		Digest:    func() (digest.Digest, error) { return digest.FromBytes(p), nil },
		Announced: digest.FromBytes(p),
	}
}

// Stream returns an upload of p whose length and digest are not known before its end. Docker
// uploads layers in this way.
func Stream(p []byte) upstream.Upload {
	u := Upload(p)
	u.Size, u.Announced = -1, ""
	return u
}

// Push pushes the whole image under a tag.
func (i Image) Push(tb testing.TB, sink upstream.Sink, repo, tag string) {
	tb.Helper()
	for _, p := range [][]byte{i.Config, i.Layer} {
		if err := sink.PutBlob(tb.Context(), upstream.Repo{Name: repo}, Upload(p)); err != nil {
			tb.Fatalf("push blob to %s: %v", repo, err)
		}
	}
	if _, err := sink.PutManifest(tb.Context(), upstream.Repo{Name: repo}, oci.Reference{Tag: tag}, i.Manifest); err != nil {
		tb.Fatalf("push manifest to %s: %v", repo, err)
	}
}
