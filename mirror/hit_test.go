package mirror

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

	"dray/cache"
	"dray/cache/meta"
	"dray/mirror/identity"
	"dray/mirror/repository"
	"dray/mirror/request"
	"dray/mirror/route"
	"dray/mirror/wire"
	"dray/upstream/oci"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
)

// withMemory gives a house what a production mirror has: a memory before the store of
// facts, and one for small content.
func withMemory(t testing.TB, o meta.FrontOptions) *house {
	t.Helper()
	return buildHouse(t, 8<<20, func(s meta.Store) meta.Store { return meta.NewFronted(s, o) })
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

func benchmarkHit(b *testing.B, path func(m, layer digest.Digest) string) {
	h := withMemory(b, meta.FrontOptions{})
	layer := bytes.Repeat([]byte("layer"), 300_000)
	m := h.hold("team/app", "v1", layer)
	h.pull("team/app", "v1", m, layer)
	r := httptest.NewRequestWithContext(b.Context(), "GET", path(m.Digest, digest.FromBytes(layer)), http.NoBody)
	r.Header.Set("Accept", dockerAccept)
	b.ReportAllocs()
	for b.Loop() {
		c := &client{header: http.Header{}}
		h.l.ServeHTTP(c, r)
		if c.status != 200 || c.bytes == 0 {
			b.Fatalf("%d, %d bytes", c.status, c.bytes)
		}
	}
}

func BenchmarkHitManifestByTag(b *testing.B) {
	benchmarkHit(b, func(digest.Digest, digest.Digest) string { return "/v2/team/app/manifests/v1" })
}

func BenchmarkHitManifestByDigest(b *testing.B) {
	benchmarkHit(b, func(m, _ digest.Digest) string { return "/v2/team/app/manifests/" + m.String() })
}

func BenchmarkHitBlob(b *testing.B) {
	benchmarkHit(b, func(_, layer digest.Digest) string { return "/v2/team/app/blobs/" + layer.String() })
}

// atHome is a house whose facts are read once an hour, with an image that is hot.
func atHome(t *testing.T) (*house, *oci.Manifest, []byte) {
	t.Helper()
	h := withMemory(t, meta.FrontOptions{Staleness: time.Hour})
	layer := bytes.Repeat([]byte("layer"), 50_000)
	m := h.hold("team/app", "v1", layer)
	h.pull("team/app", "v1", m, layer)
	return h, m, layer
}

// hot reports whether a request would get a hot answer.
func (h *house) hot(path string, headers ...string) bool {
	h.Helper()
	r := httptest.NewRequestWithContext(h.Context(), "GET", path, http.NoBody)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	x := request.New(&h.l.Listener, h.m.repos, httptest.NewRecorder(), r, wire.Options{})
	k := h.m.pull.Hit(x)
	return k != nil && k.Valid(time.Now())
}

// A hot manifest costs no read of a fact and no question, and its answer is the same in
// every line as the one that did.
func TestHotAnswer(t *testing.T) {
	h, m, layer := atHome(t)
	for _, path := range []string{"/v2/team/app/manifests/v1", "/v2/team/app/manifests/" + m.Digest.String()} {
		cold := h.want(200, "GET", path, nil)
		if !h.hot(path) {
			t.Fatalf("%s is not hot", path)
		}
		calls, questions := h.store.Calls("get"), h.up.count("manifest")
		warm := h.want(200, "GET", path, nil)
		if diff := cmp.Diff(cold.Header(), warm.Header()); diff != "" || !bytes.Equal(cold.Body.Bytes(), warm.Body.Bytes()) {
			t.Errorf("%s: another answer:\n%s", path, diff)
		}
		if warm.Header().Get("X-Cache") != "cache" || warm.Header().Get("Content-Length") != strconv.Itoa(len(m.Raw)) {
			t.Errorf("%s: %v", path, warm.Header())
		}
		h.want(200, "HEAD", path, nil)
		if w := h.want(200, "HEAD", path, nil); w.Body.Len() != 0 || w.Header().Get("Content-Length") != strconv.Itoa(len(m.Raw)) {
			t.Errorf("HEAD %s: %d bytes, %v", path, w.Body.Len(), w.Header())
		}
		h.want(304, "GET", path, nil, "If-None-Match", request.ETag(m.Digest))
		if w := h.want(206, "GET", path, nil, "Range", "bytes=2-5"); w.Body.String() != string(m.Raw[2:6]) {
			t.Errorf("%s: %q", path, w.Body)
		}
		h.want(200, "GET", path, nil, "Range", "bytes=2-5", "If-Range", `"other"`)
		if h.store.Calls("get") != calls || h.up.count("manifest") != questions {
			t.Errorf("%s: %d reads of facts, %d questions", path, h.store.Calls("get")-calls, h.up.count("manifest")-questions)
		}
	}
	calls := h.store.Calls("get")
	h.want(200, "GET", "/v2/team/app/blobs/"+digest.FromBytes(layer).String(), nil)
	if n := h.store.Calls("get"); n != calls {
		t.Errorf("the layer: %d reads of facts", n-calls)
	}
}

// What this process writes is seen by the next request.
func TestHotAnswerEnds(t *testing.T) {
	tag := "/v2/team/app/manifests/v1"
	t.Run("push", func(t *testing.T) {
		h, _, _ := atHome(t)
		for i := range 20 {
			m := h.push("team/app", "v1", fmt.Appendf(nil, "layer %d", i))
			for range 3 {
				if w := h.want(200, "GET", tag, nil); !bytes.Equal(w.Body.Bytes(), m.Raw) {
					t.Fatalf("push %d: an older manifest", i)
				}
			}
			if !h.hot(tag) {
				t.Fatal("it is not hot again")
			}
		}
	})
	t.Run("forgotten", func(t *testing.T) {
		h, m, _ := atHome(t)
		questions := h.up.count("manifest")
		if err := h.tags.Forget(t.Context(), "up", "team/app", "v1"); err != nil || h.hot(tag) {
			t.Error("the tag is hot", err)
		}
		if h.want(200, "GET", tag, nil); h.up.count("manifest") != questions+1 {
			t.Error("the upstream was not asked")
		}
		byDigest := "/v2/team/app/manifests/" + m.Digest.String()
		if err := h.links.Forget(t.Context(), "up", "team/app", m.Digest); err != nil || h.hot(byDigest) {
			t.Error("the digest is hot", err)
		}
		h.up.mu.Lock()
		delete(h.up.manifests, "team/app@"+m.Digest.String())
		h.up.mu.Unlock()
		h.want(404, "GET", byDigest, nil)
	})
	t.Run("not visible", func(t *testing.T) {
		h, m, layer := atHome(t)
		h.want(404, "GET", "/v2/team/other/manifests/"+m.Digest.String(), nil)
		h.want(404, "GET", "/v2/team/other/manifests/v1", nil)
		h.want(404, "GET", "/v2/team/other/blobs/"+digest.FromBytes(layer).String(), nil)
	})
	t.Run("rights", func(t *testing.T) {
		h, _, _ := atHome(t)
		rule := func(repo string) *identity.Access {
			return &identity.Access{Rules: []identity.Rule{{Anonymous: true, Repositories: []string{repo}, Actions: []identity.Action{identity.Pull}}}}
		}
		h.l.Policy = identity.Policy{Role: identity.RoleMirror, Access: rule("team/*")}
		h.want(200, "GET", tag, nil)
		h.l.Policy.Access = rule("others/*")
		if h.want(403, "GET", tag, nil); !h.hot(tag) {
			t.Error("it was not the hot answer that was denied")
		}
	})
	t.Run("listener", func(t *testing.T) {
		h, _, _ := atHome(t)
		other := *h.l
		other.Routes = &route.Table{}
		h.l = &other
		h.want(404, "GET", tag, nil)
	})
}

// Facts that other processes write, and those that run out, are seen as late as the
// memory before the store allows, and no later.
func TestHotAnswerAges(t *testing.T) {
	tag := "/v2/team/app/manifests/v1"
	synctest.Test(t, func(t *testing.T) {
		h := withMemory(t, meta.FrontOptions{})
		up := h.m.repos.Upstream("up")
		up.Tags = repository.TagPolicy{Fresh: 10 * time.Second, Stale: time.Hour, NotFound: 5 * time.Second}
		layer := []byte("a layer of some bytes")
		first := h.hold("team/app", "v1", layer)
		h.pull("team/app", "v1", first, layer)
		if !h.hot(tag) {
			t.Fatal("it is not hot")
		}

		// Another mirror on the same store takes a push.
		second := image(t, []byte("another layer of some bytes"))
		theirs := meta.NewTags(h.memory, meta.TagsOptions{})
		links := meta.NewLinks(h.memory, meta.LinksOptions{})
		link := meta.Link{Digest: second.Digest, LinkFact: meta.LinkFact{MediaType: second.MediaType, Size: int64(len(second.Raw)), Kind: meta.KindManifest}}
		err := errors.Join(theirs.Forget(t.Context(), "up", "team/app", "v1"),
			theirs.Set(t.Context(), meta.TagKey{Upstream: "up", Repo: "team/app", Tag: "v1", Accept: repository.PushedAccept}, meta.TagFact{Digest: second.Digest, MediaType: second.MediaType, Size: -1}, 0),
			links.Add(t.Context(), "up", "team/app", link), links.Add(t.Context(), "up", "", link),
			h.cache.Put(t.Context(), cache.Blob{Digest: second.Digest, Size: int64(len(second.Raw))}, second.Raw))
		if err != nil {
			t.Fatal(err)
		}
		if time.Sleep(time.Second); h.hot(tag) {
			t.Error("it is hot after a second")
		}
		if w := h.want(200, "GET", tag, nil); !bytes.Equal(w.Body.Bytes(), second.Raw) {
			t.Error("the push of another mirror is not seen after a second")
		}
		if !h.hot(tag) {
			t.Error("it is not hot again")
		}

		// The window ends amid a lease.
		h.up.mu.Lock()
		h.up.manifests["team/app:v1"] = second
		h.up.mu.Unlock()
		time.Sleep(8500 * time.Millisecond)
		if h.want(200, "GET", tag, nil); !h.hot(tag) {
			t.Error("it is not hot within its window")
		}
		if time.Sleep(500 * time.Millisecond); h.hot(tag) {
			t.Error("it is hot after its window")
		}
		questions := h.up.count("manifest")
		if h.want(200, "GET", tag, nil); h.up.count("manifest") != questions+1 {
			t.Error("the upstream was not asked after the window")
		}

		// The upstream loses the tag.
		h.want(200, "GET", tag, nil)
		h.up.mu.Lock()
		delete(h.up.manifests, "team/app:v1")
		h.up.mu.Unlock()
		time.Sleep(10 * time.Second)
		h.want(404, "GET", tag, nil)
		h.want(404, "GET", tag, nil)
		if h.hot(tag) {
			t.Error("a tag that is gone is hot")
		}
	})
}

// A hit is cheap: loosely, so that only a mistake of kind fails.
func TestHotAnswerAllocates(t *testing.T) {
	h, _, _ := atHome(t)
	r := httptest.NewRequestWithContext(t.Context(), "GET", "/v2/team/app/manifests/v1", http.NoBody)
	c := &client{header: http.Header{}}
	h.l.ServeHTTP(c, r)
	if n := testing.AllocsPerRun(100, func() { h.l.ServeHTTP(c, r) }); n > 10 {
		t.Errorf("%v allocations", n)
	}
}
