package pull_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/mirror"
	"dray/mirror/mirrortest"
	"dray/mirror/pull"
	"dray/upstream"
	"dray/upstream/oci"
)

// gated is a source whose blobs wait, and are counted.
type gated struct {
	upstream.Source
	gate chan struct{}

	mu         sync.Mutex
	open, most int
}

func (g *gated) Blob(ctx context.Context, r upstream.BlobRequest) (upstream.BlobStream, error) {
	g.mu.Lock()
	g.open++
	g.most = max(g.most, g.open)
	g.mu.Unlock()
	select {
	case <-g.gate:
	case <-ctx.Done():
	}
	g.mu.Lock()
	g.open--
	g.mu.Unlock()
	return g.Source.Blob(ctx, r)
}

// fetchedAhead waits until so many blobs have been fetched ahead.
func (h *fixture) fetchedAhead(n float64) {
	h.Helper()
	h.Until(func() bool { return h.Counted("dray_prefetched_blobs_total") >= n })
}

// prefetching is a fixture that fetches ahead through a gate.
func prefetching(t *testing.T, p pull.Prefetch) (*fixture, *gated) {
	h := &fixture{Fixture: mirrortest.New(t, mirrortest.Options{Change: func(_ *mirrortest.Fixture, o *mirror.Options) {
		o.Prefetch = map[string]pull.Prefetch{"up": p}
	}})}
	g := &gated{Source: h.Registry, gate: make(chan struct{})}
	h.Upstream.Source = g
	return h, g
}

// layered puts an image of layers into the upstream, of which it lacks those that are absent.
func (h *fixture) layered(repo, tag string, layers []string, absent ...string) *oci.Manifest {
	h.Helper()
	var descs []string
	for _, l := range layers {
		descs = append(descs, fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}`, digest.FromString(l), len(l)))
	}
	m, err := oci.ParseManifest(oci.MediaTypeOCIManifest, fmt.Appendf(nil, `{"schemaVersion":2,"layers":[%s]}`, strings.Join(descs, ",")))
	if err != nil {
		h.Fatal(err)
	}
	h.Registry.HoldManifest(repo, tag, m)
	for _, l := range layers {
		h.Registry.HoldBlob(repo, []byte(l))
	}
	for _, l := range absent {
		h.Registry.DropBlob(repo, digest.FromString(l))
	}
	return m
}

// Prefetching is bounded; clients join it, and nothing is asked for twice.
func TestPrefetchBounded(t *testing.T) {
	h, g := prefetching(t, pull.Prefetch{MaxLayer: 20, AtOnce: 3})
	large := strings.Repeat("large", 10)
	layers := []string{"a", "b", "c", "d", "e", "f", "g", "a", large}
	h.layered("team/app", "v1", layers)
	h.Want(200, "HEAD", "/v2/team/app/manifests/v1", nil)
	if g.most != 0 {
		t.Error("a HEAD fetches blobs")
	}
	for range 3 {
		h.Want(200, "GET", "/v2/team/app/manifests/v1", nil)
	}
	var wg sync.WaitGroup
	wg.Go(func() { h.Want(200, "GET", "/v2/team/app/blobs/"+digest.FromString("a").String(), nil) })
	close(g.gate)
	wg.Wait()
	h.Until(func() bool { return h.Registry.Count("blob") >= 7 })
	if g.most > 3+1 {
		t.Errorf("%d blobs at once", g.most)
	}
	if n := h.Registry.Count("blob"); n != 7 {
		t.Errorf("%d requests for 7 small layers", n)
	}
	for _, l := range layers {
		h.Want(200, "GET", "/v2/team/app/blobs/"+digest.FromString(l).String(), nil)
	}
	if n := h.Registry.Count("blob"); n != 8 {
		t.Errorf("%d requests for 8 layers", n)
	}
}

// A layer that the upstream lacks costs one question, whoever asked it, and keeps nothing else from
// coming.
func TestPrefetchOfWhatIsNotThere(t *testing.T) {
	h, g := prefetching(t, pull.Prefetch{MaxLayer: 20, AtOnce: 3})
	h.Upstream.Tags.NotFound = time.Hour
	close(g.gate)
	h.layered("team/app", "v1", []string{"there", "not there"}, "not there")
	h.Want(200, "GET", "/v2/team/app/manifests/v1", nil)
	h.fetchedAhead(2)
	g.mu.Lock()
	g.most = 0
	g.mu.Unlock()
	h.Want(404, "GET", "/v2/team/app/blobs/"+digest.FromString("not there").String(), nil)
	h.Want(200, "GET", "/v2/team/app/blobs/"+digest.FromString("there").String(), nil)
	if g.most != 0 {
		t.Error("the upstream was asked again")
	}
}

// The mirror stops while blobs are being fetched ahead.
func TestPrefetchStops(t *testing.T) {
	h, _ := prefetching(t, pull.Prefetch{MaxLayer: 20, AtOnce: 1}) // its end waits for everything
	h.layered("team/app", "v1", []string{"a", "b", "c"})
	h.Want(200, "GET", "/v2/team/app/manifests/v1", nil)
}

// dripping is a source whose blobs arrive when they are fed.
type dripping struct {
	upstream.Source
	asked chan struct{}
	body  io.ReadCloser
}

func (d dripping) Blob(ctx context.Context, r upstream.BlobRequest) (upstream.BlobStream, error) {
	s, err := d.Source.Blob(ctx, r)
	if err == nil {
		s.Body = d.body
	}
	close(d.asked)
	return s, err
}

// A client that pulls an image gets its layers from the upstream, although their fetch was
// started before the client asked for them.
func TestPrefetchIsForWhoPulls(t *testing.T) {
	h, _ := prefetching(t, pull.Prefetch{MaxLayer: 20, AtOnce: 3})
	body, feed := io.Pipe()
	from := dripping{h.Registry, make(chan struct{}), body}
	h.Upstream.Source = from
	d := h.layered("team/app", "v1", []string{"layer"}).Layers[0].Digest
	server := httptest.NewServer(h.Listener)
	defer server.Close()
	h.Want(200, "GET", "/v2/team/app/manifests/v1", nil)
	<-from.asked
	var answers []*http.Response
	for _, want := range []string{"origin", "flight"} {
		resp, err := server.Client().Get(server.URL + "/v2/team/app/blobs/" + d.String())
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if got := resp.Header.Get("X-Cache"); got != want {
			t.Errorf("X-Cache is %s, want %s", got, want)
		}
		answers = append(answers, resp)
	}
	if _, err := io.WriteString(feed, "layer"); err != nil {
		t.Fatal(err)
	}
	feed.Close()
	for _, resp := range answers {
		if got, err := io.ReadAll(resp.Body); err != nil || string(got) != "layer" {
			t.Errorf("%q, %v", got, err)
		}
	}
	h.fetchedAhead(1)
}

// A manifest with thousands of layers causes no thousands of requests, and no thousands of facts.
func TestPrefetchOfManyLayers(t *testing.T) {
	h, g := prefetching(t, pull.Prefetch{MaxLayer: 1 << 20, AtOnce: 8})
	close(g.gate)
	var layers []string
	for i := range 1500 {
		layers = append(layers, fmt.Sprint("layer ", i))
	}
	h.layered("team/app", "v1", layers)
	h.Want(200, "GET", "/v2/team/app/manifests/v1", nil)
	h.fetchedAhead(128)
	<-time.After(100 * time.Millisecond) // for those that must not come
	if n := h.Registry.Count("blob"); n != 128 {
		t.Errorf("%d blobs were fetched", n)
	}
	facts := 0
	for range h.Memory.Scan(t.Context(), "") {
		facts++
	}
	if facts > 5*128 { // each blob that was fetched has facts of its own
		t.Errorf("%d facts were recorded", facts)
	}
	last := digest.FromString(layers[1499]).String()
	h.Want(200, "GET", "/v2/team/app/blobs/"+last, nil)
}
