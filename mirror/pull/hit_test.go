package pull_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"

	"dray/cache"
	"dray/cache/meta"
	"dray/mirror"
	"dray/mirror/identity"
	"dray/mirror/live"
	"dray/mirror/mirrortest"
	"dray/mirror/repository"
	"dray/mirror/request"
	"dray/mirror/route"
	"dray/upstream/oci"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is a mirror, with what several tests need.
type fixture struct {
	*mirrortest.Fixture
	front *meta.Cached // the memory before the store of facts, where there is one
}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	return &fixture{Fixture: mirrortest.New(t, mirrortest.Options{})}
}

// withMemory gives a fixture what a production mirror has: a memory before the store of
// facts, and one for small content.
func withMemory(t testing.TB, o meta.CachedOptions) *fixture { return withTable(t, o, nil) }

// withTable is withMemory with a table of live pulls.
func withTable(t testing.TB, o meta.CachedOptions, table *live.Table) *fixture {
	t.Helper()
	h := &fixture{}
	show := func(_ *mirrortest.Fixture, o *mirror.Options) { o.Live = table }
	h.Fixture = mirrortest.New(t, mirrortest.Options{MemoryBytes: 8 << 20, Change: show, Before: func(s meta.Store) meta.Store {
		h.front = meta.NewCached(s, o)
		return h.front
	}})
	return h
}

// client is a ResponseWriter that costs next to nothing, so that benchmarks show what
// the mirror costs.
type client struct {
	header http.Header
	status int
	bytes  int64
}

func (c *client) Header() http.Header              { return c.header }
func (c *client) WriteHeader(status int)           { c.status = status }
func (c *client) Write(p []byte) (int, error)      { c.bytes += int64(len(p)); return len(p), nil }
func (c *client) SetWriteDeadline(time.Time) error { return nil }

func (c *client) ReadFrom(r io.Reader) (int64, error) {
	l, ok := r.(*io.LimitedReader)
	if !ok {
		return io.Copy(struct{ io.Writer }{c}, r)
	}
	c.bytes += l.N
	return l.N, nil
}

const dockerAccept = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json, */*"

// benchmarkHit measures hits without a table of live pulls, and with one.
func benchmarkHit(b *testing.B, status int, path func(m, layer digest.Digest) string, lines ...string) {
	b.Run("alone", func(b *testing.B) { benchmarkHitWith(b, nil, status, path, lines...) })
	b.Run("shown", func(b *testing.B) { benchmarkHitWith(b, live.New(live.Options{}), status, path, lines...) })
}

func benchmarkHitWith(b *testing.B, table *live.Table, status int, path func(m, layer digest.Digest) string, lines ...string) {
	h := withTable(b, meta.CachedOptions{}, table)
	layer := bytes.Repeat([]byte("layer"), 300_000)
	m := h.Hold("team/app", "v1", layer)
	h.Pull("team/app", "v1", m, layer)
	r := httptest.NewRequestWithContext(b.Context(), "GET", path(m.Digest, digest.FromBytes(layer)), http.NoBody)
	r.Header.Set("Accept", dockerAccept)
	r.Header.Set("User-Agent", "containerd/v2.2.1")
	for i := 0; i < len(lines); i += 2 {
		r.Header.Set(lines[i], lines[i+1])
	}
	b.ReportAllocs()
	for b.Loop() {
		c := &client{header: http.Header{}}
		h.Listener.ServeHTTP(c, r)
		if c.status != status || c.bytes == 0 {
			b.Fatalf("%d, %d bytes", c.status, c.bytes)
		}
	}
}

func BenchmarkHitManifestByTag(b *testing.B) {
	benchmarkHit(b, 200, func(digest.Digest, digest.Digest) string { return "/v2/team/app/manifests/v1" })
}

func BenchmarkHitManifestByDigest(b *testing.B) {
	benchmarkHit(b, 200, func(m, _ digest.Digest) string { return "/v2/team/app/manifests/" + m.String() })
}

func BenchmarkHitBlob(b *testing.B) {
	benchmarkHit(b, 200, func(_, layer digest.Digest) string { return "/v2/team/app/blobs/" + layer.String() })
}

func BenchmarkHitRange(b *testing.B) {
	benchmarkHit(b, 206, func(_, layer digest.Digest) string { return "/v2/team/app/blobs/" + layer.String() }, "Range", "bytes=400000-1399999")
}

// atHome is a fixture whose facts are read once an hour, with an image that is hot.
func atHome(t *testing.T) (*fixture, *oci.Manifest, []byte) {
	t.Helper()
	h := withMemory(t, meta.CachedOptions{Staleness: time.Hour})
	layer := bytes.Repeat([]byte("layer"), 50_000)
	m := h.Hold("team/app", "v1", layer)
	h.Pull("team/app", "v1", m, layer)
	return h, m, layer
}

// hot asks for a manifest and reports whether its answer was hot: it costs no read of a fact, not
// even from memory.
func (h *fixture) hot(path string) (w *httptest.ResponseRecorder, hot bool) {
	h.Helper()
	reads := h.reads()
	w = h.Do("GET", path, nil)
	return w, h.reads() == reads
}

// reads counts the reads of facts, wherever they were answered from.
func (h *fixture) reads() float64 {
	return mirrortest.Counted(h, h.front.Collectors(), "dray_meta_cached_reads_total")
}

func (h *fixture) wantHot(path string) *httptest.ResponseRecorder {
	h.Helper()
	w, hot := h.hot(path)
	if w.Code != 200 || !hot {
		h.Errorf("%s: %d, hot %t; want a hot answer", path, w.Code, hot)
	}
	return w
}

func (h *fixture) wantCold(status int, path string) *httptest.ResponseRecorder {
	h.Helper()
	w, hot := h.hot(path)
	if w.Code != status || hot {
		h.Errorf("%s: %d, hot %t; want a cold answer of %d", path, w.Code, hot, status)
	}
	return w
}

// A hot manifest costs no read of a fact and no question, and its answer is the same in
// every line as the one that did.
func TestHotAnswer(t *testing.T) {
	h, m, layer := atHome(t)
	for _, path := range []string{"/v2/team/app/manifests/v1", "/v2/team/app/manifests/" + m.Digest.String()} {
		cold := h.Want(200, "GET", path, nil, "X-Request-Id", "one")
		h.wantHot(path)
		calls, questions := h.Facts.Calls("get"), h.Registry.Count("manifest")
		warm := h.Want(200, "GET", path, nil, "X-Request-Id", "one")
		if diff := cmp.Diff(cold.Header(), warm.Header()); diff != "" || !bytes.Equal(cold.Body.Bytes(), warm.Body.Bytes()) {
			t.Errorf("%s: another answer:\n%s", path, diff)
		}
		if warm.Header().Get("X-Cache") != "cache" || warm.Header().Get("Content-Length") != strconv.Itoa(len(m.Raw)) {
			t.Errorf("%s: %v", path, warm.Header())
		}
		h.Want(200, "HEAD", path, nil)
		if w := h.Want(200, "HEAD", path, nil); w.Body.Len() != 0 || w.Header().Get("Content-Length") != strconv.Itoa(len(m.Raw)) {
			t.Errorf("HEAD %s: %d bytes, %v", path, w.Body.Len(), w.Header())
		}
		h.Want(304, "GET", path, nil, "If-None-Match", request.ETag(m.Digest))
		if w := h.Want(206, "GET", path, nil, "Range", "bytes=2-5"); w.Body.String() != string(m.Raw[2:6]) {
			t.Errorf("%s: %q", path, w.Body)
		}
		h.Want(200, "GET", path, nil, "Range", "bytes=2-5", "If-Range", `"other"`)
		if h.Facts.Calls("get") != calls || h.Registry.Count("manifest") != questions {
			t.Errorf("%s: %d reads of facts, %d questions", path, h.Facts.Calls("get")-calls, h.Registry.Count("manifest")-questions)
		}
	}
	calls := h.Facts.Calls("get")
	h.Want(200, "GET", "/v2/team/app/blobs/"+digest.FromBytes(layer).String(), nil)
	if n := h.Facts.Calls("get"); n != calls {
		t.Errorf("the layer: %d reads of facts", n-calls)
	}
}

// The next request sees the writes of this process.
func TestHotAnswerEnds(t *testing.T) {
	tag := "/v2/team/app/manifests/v1"
	t.Run("push", func(t *testing.T) {
		h, _, _ := atHome(t)
		for i := range 20 {
			m := h.Push("team/app", "v1", fmt.Appendf(nil, "layer %d", i))
			for range 3 {
				if w := h.Want(200, "GET", tag, nil); !bytes.Equal(w.Body.Bytes(), m.Raw) {
					t.Fatalf("push %d: an older manifest", i)
				}
			}
			h.wantHot(tag)
		}
	})
	t.Run("forgotten", func(t *testing.T) {
		h, m, _ := atHome(t)
		questions := h.Registry.Count("manifest")
		if err := h.Tags.Forget(t.Context(), "up", "team/app", "v1"); err != nil {
			t.Fatal(err)
		}
		if h.wantCold(200, tag); h.Registry.Count("manifest") != questions+1 {
			t.Error("the upstream was not asked")
		}
		byDigest := "/v2/team/app/manifests/" + m.Digest.String()
		h.Want(200, "GET", byDigest, nil)
		h.wantHot(byDigest)
		if err := h.Visibility.Forget(t.Context(), "up", "team/app", m.Digest); err != nil {
			t.Fatal(err)
		}
		h.Registry.DropManifest("team/app", oci.Reference{Digest: m.Digest})
		h.wantCold(404, byDigest)
	})
	t.Run("not visible", func(t *testing.T) {
		h, m, layer := atHome(t)
		h.Want(404, "GET", "/v2/team/other/manifests/"+m.Digest.String(), nil)
		h.Want(404, "GET", "/v2/team/other/manifests/v1", nil)
		h.Want(404, "GET", "/v2/team/other/blobs/"+digest.FromBytes(layer).String(), nil)
	})
	t.Run("rights", func(t *testing.T) {
		h, _, _ := atHome(t)
		rule := func(repo string) *identity.Access {
			return &identity.Access{Rules: []identity.Rule{{Anonymous: true, Repositories: []string{repo}, Actions: []identity.Action{identity.Pull}}}}
		}
		h.Listener.Policy = identity.Policy{Role: identity.RoleMirror, Access: rule("team/*")}
		h.Want(200, "GET", tag, nil)
		h.Listener.Policy.Access = rule("others/*")
		h.Want(403, "GET", tag, nil)
		h.Listener.Policy.Access = rule("team/*")
		h.wantHot(tag) // and so it was when it was denied
	})
	t.Run("listener", func(t *testing.T) {
		h, _, _ := atHome(t)
		other := *h.Listener
		other.Routes = &route.Table{}
		h.Listener = &other
		h.Want(404, "GET", tag, nil)
	})
}

// Facts that other processes write, and those that run out, are seen as late as the
// memory before the store allows, and no later.
func TestHotAnswerAges(t *testing.T) {
	tag := "/v2/team/app/manifests/v1"
	synctest.Test(t, func(t *testing.T) {
		h := withMemory(t, meta.CachedOptions{})
		up := h.Upstream
		up.Tags = repository.TagPolicy{Fresh: 10 * time.Second, Stale: time.Hour, NotFound: 5 * time.Second}
		layer := []byte("a layer of some bytes")
		first := h.Hold("team/app", "v1", layer)
		h.Pull("team/app", "v1", first, layer)
		h.wantHot(tag)

		// Another mirror on the same store takes a push.
		second := mirrortest.Image(t, []byte("another layer of some bytes"))
		theirs := meta.NewTags(h.Memory, meta.Options{})
		links := meta.NewVisibility(h.Memory, meta.Options{})
		link := meta.Link{Digest: second.Digest, LinkFact: meta.LinkFact{MediaType: second.MediaType, Size: int64(len(second.Raw)), Kind: meta.KindManifest}}
		_, before, _ := theirs.Ask(t.Context(), meta.TagKey{Upstream: "up", Repo: "team/app", Tag: "v1", Accept: repository.PushedAccept})
		err := errors.Join(
			theirs.Pushed(t.Context(), before, meta.TagFact{Digest: second.Digest, MediaType: second.MediaType, Size: -1}),
			links.Add(t.Context(), "up", "team/app", link), links.Add(t.Context(), "up", "", link),
			h.Cache.Put(t.Context(), cache.Blob{Digest: second.Digest, Size: int64(len(second.Raw))}, second.Raw))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if w := h.wantCold(200, tag); !bytes.Equal(w.Body.Bytes(), second.Raw) {
			t.Error("the push of another mirror is not seen after a second")
		}
		h.wantHot(tag)

		// The window ends during a lease.
		h.Registry.HoldManifest("team/app", "v1", second)
		time.Sleep(8500 * time.Millisecond)
		h.Want(200, "GET", tag, nil)
		h.wantHot(tag)
		time.Sleep(500 * time.Millisecond)
		questions := h.Registry.Count("manifest")
		if h.wantCold(200, tag); h.Registry.Count("manifest") != questions+1 {
			t.Error("the upstream was not asked after the window")
		}

		// The upstream loses the tag.
		h.Want(200, "GET", tag, nil)
		h.Registry.DropManifest("team/app", oci.Reference{Tag: "v1"})
		time.Sleep(10 * time.Second)
		h.wantCold(404, tag)
		h.wantCold(404, tag)
	})
}

// A hit is cheap: loosely, so that only a mistake of kind fails.
func TestHotAnswerAllocates(t *testing.T) {
	h, _, _ := atHome(t)
	r := httptest.NewRequestWithContext(t.Context(), "GET", "/v2/team/app/manifests/v1", http.NoBody)
	c := &client{header: http.Header{}}
	h.Listener.ServeHTTP(c, r)
	if n := testing.AllocsPerRun(100, func() { h.Listener.ServeHTTP(c, r) }); n > 10 {
		t.Errorf("%v allocations", n)
	}
}

// A client that gets a manifest uses the layers that it names, also where it does not get them from
// here: they are evicted together.
func TestLayersAreUsedWithTheirManifest(t *testing.T) {
	h := mirrortest.New(t, mirrortest.Options{MemoryBytes: 1 << 20})
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
