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

// fetchedAhead waits until so many blobs have been fetched ahead.
func (h *fixture) fetchedAhead(n float64) {
	h.Helper()
	h.Until(func() bool { return h.Counted("dray_prefetched_blobs_total") >= n })
}

// prefetching is a fixture that fetches ahead through a gate.
func prefetching(t *testing.T, p pull.Prefetch) (*fixture, *mirrortest.Gated) {
	h := &fixture{Fixture: mirrortest.New(t, mirrortest.Options{Change: func(_ *mirrortest.Fixture, o *mirror.Options) {
		o.Prefetch = map[string]pull.Prefetch{"up": p}
	}})}
	return h, h.Gate()
}

// layered puts an image of layers into the upstream.
func (h *fixture) layered(repo, tag string, layers []string) *oci.Manifest {
	h.Helper()
	var all [][]byte
	for _, l := range layers {
		all = append(all, []byte(l))
	}
	return h.Hold(repo, tag, all...)
}

// Prefetching is bounded; clients join it, and nothing is asked for twice.
func TestPrefetchBounded(t *testing.T) {
	h, g := prefetching(t, pull.Prefetch{MaxLayer: 20, AtOnce: 3})
	large := strings.Repeat("large", 10)
	layers := []string{"a", "b", "c", "d", "e", "f", "g", "a", large}
	h.layered("team/app", "v1", layers)
	h.Want(200, "HEAD", "/v2/team/app/manifests/v1", nil)
	if g.Most() != 0 {
		t.Error("a HEAD fetches blobs")
	}
	for range 3 {
		h.Want(200, "GET", "/v2/team/app/manifests/v1", nil)
	}
	var wg sync.WaitGroup
	wg.Go(func() { h.Want(200, "GET", "/v2/team/app/blobs/"+digest.FromString("a").String(), nil) })
	g.Open()
	wg.Wait()
	h.Until(func() bool { return h.Registry.Count("blob") >= 7 })
	if most := g.Most(); most > 3+1 {
		t.Errorf("%d blobs at once", most)
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
	g.Open()
	h.layered("team/app", "v1", []string{"there", "not there"})
	h.Registry.DropBlob("team/app", digest.FromString("not there"))
	h.Want(200, "GET", "/v2/team/app/manifests/v1", nil)
	h.fetchedAhead(2)
	asked := g.Asked()
	h.Want(404, "GET", "/v2/team/app/blobs/"+digest.FromString("not there").String(), nil)
	h.Want(200, "GET", "/v2/team/app/blobs/"+digest.FromString("there").String(), nil)
	if g.Asked() != asked {
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
	g.Open()
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
