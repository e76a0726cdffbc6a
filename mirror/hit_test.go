package mirror

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"dray/cache"
	"dray/cache/disk"
	"dray/cache/meta"

	"github.com/opencontainers/go-digest"
)

// withMemory gives a house what a production mirror has: a memory before the store of
// facts, and one for small content.
func withMemory(t testing.TB) *house {
	t.Helper()
	h := newHouse(t)
	front := meta.NewFronted(h.store, meta.FrontOptions{})
	h.m.tags, h.m.links, h.m.known = meta.NewTags(front, meta.TagsOptions{}), meta.NewLinks(front, meta.LinksOptions{}), meta.NewKnown(front, meta.KnownOptions{})
	dir, err := disk.Open(disk.Options{Path: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dir.Close() })
	h.cache = cache.New(cache.Options{Disk: dir, MemoryBytes: 8 << 20})
	h.m.cache = h.cache
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

func benchmarkHit(b *testing.B, path func(m, layer digest.Digest) string) {
	h := withMemory(b)
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
