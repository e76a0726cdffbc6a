package mirror

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dray/cache"
	"dray/cache/disk"
	"dray/cache/meta"
	"dray/cache/meta/metatest"
	"dray/mirror/identity"
	"dray/mirror/repository"
	"dray/mirror/request"
	"dray/mirror/route"
	"dray/upstream"
	"dray/upstream/oci"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// registry is an upstream in memory.
type registry struct {
	mu        sync.Mutex
	manifests map[string]*oci.Manifest // by "repo:tag" and "repo@digest"
	blobs     map[string][]byte        // by "repo@digest"
	calls     map[string]int
	// half, when not nil, is when the second half of a blob follows.
	half chan struct{}
}

var (
	_ upstream.Source = (*registry)(nil)
	_ upstream.Sink   = (*registry)(nil)
	_ upstream.Lister = (*registry)(nil)
)

func at(repo string, ref oci.Reference) string {
	if ref.ByDigest() {
		return repo + "@" + ref.String()
	}
	return repo + ":" + ref.Tag
}

func (r *registry) called(what string) { r.calls[what]++ }

func (r *registry) count(what string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.calls[what]
}

func (r *registry) Manifest(_ context.Context, repo upstream.Repo, ref oci.Reference, _ []string) (*oci.Manifest, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.called("manifest")
	if m := r.manifests[at(repo.Name, ref)]; m != nil {
		c := *m
		return &c, nil
	}
	return nil, oci.ErrManifestUnknown
}

func (r *registry) StatManifest(ctx context.Context, repo upstream.Repo, ref oci.Reference, accept []string) (oci.Descriptor, error) {
	m, err := r.Manifest(ctx, repo, ref, accept)
	if err != nil {
		return oci.Descriptor{}, err
	}
	return m.Descriptor(), nil
}

func (r *registry) blob(repo string, d digest.Digest) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p, ok := r.blobs[repo+"@"+d.String()]; ok {
		return p, nil
	}
	return nil, oci.ErrBlobUnknown
}

func (r *registry) Blob(_ context.Context, q upstream.BlobRequest) (upstream.BlobStream, error) {
	p, err := r.blob(q.Repo.Name, q.Digest)
	if err != nil {
		return upstream.BlobStream{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.called("blob")
	body := io.Reader(bytes.NewReader(p[q.From:]))
	if r.half != nil {
		body = io.MultiReader(bytes.NewReader(p[q.From:len(p)/2]), lateEnd(r.half), bytes.NewReader(p[len(p)/2:]))
	}
	return upstream.BlobStream{Body: io.NopCloser(body), Size: int64(len(p)), Ranges: true}, nil
}

// lateEnd is a reader of nothing that ends late.
type lateEnd chan struct{}

func (w lateEnd) Read([]byte) (int, error) {
	<-w
	return 0, io.EOF
}

func (r *registry) StatBlob(_ context.Context, repo upstream.Repo, d digest.Digest) (int64, error) {
	p, err := r.blob(repo.Name, d)
	return int64(len(p)), err
}

func (r *registry) PutBlob(_ context.Context, repo upstream.Repo, u upstream.Upload) error {
	rc, err := u.Open()
	if err != nil {
		return err
	}
	defer rc.Close()
	p, err := io.ReadAll(rc)
	if err != nil {
		return err
	}
	d, err := u.Digest()
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.blobs[repo.Name+"@"+d.String()] = p
	return nil
}

func (r *registry) PutManifest(_ context.Context, repo upstream.Repo, ref oci.Reference, m *oci.Manifest) (upstream.Pushed, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.manifests[at(repo.Name, ref)], r.manifests[repo.Name+"@"+m.Digest.String()] = m, m
	return upstream.Pushed{Digest: m.Digest}, nil
}

func (r *registry) Mount(context.Context, upstream.Repo, string, digest.Digest) (bool, error) {
	return false, nil
}

func (r *registry) Tags(context.Context, upstream.Repo, url.Values) (upstream.Page, error) {
	return upstream.Page{Body: []byte(`{"name":"x","tags":["v1"]}`)}, nil
}

func (r *registry) Referrers(context.Context, upstream.Repo, digest.Digest, url.Values) (upstream.Page, error) {
	return upstream.Page{}, upstream.ErrReferrersUnsupported
}

// house is a Mirror with all it needs, each part of which can be made to fail.
type house struct {
	testing.TB
	l      *Listener
	m      *Mirror
	cache  *cache.Cache
	disk   *disk.Dir
	memory *metatest.Memory
	store  *metatest.Faulty
	up     *registry
	tags   *meta.Tags
	links  *meta.Links
	// broken is the step of the disk that fails; empty: none.
	broken atomic.Value
}

var errBroken = errors.New("this step fails")

func newHouse(t testing.TB) *house {
	t.Helper()
	return buildHouse(t, 1, plainFacts)
}

// plainFacts puts nothing before the store of facts.
func plainFacts(s meta.Store) meta.Store { return s }

// repo is a repository of the one upstream.
func (h *house) repo(name string) repository.Repo {
	return h.m.repos.Repo(h.m.repos.Upstream("up"), name)
}

// buildHouse makes a house with so much memory for small content, and something before its store of facts.
func buildHouse(t testing.TB, memoryBytes int64, front func(meta.Store) meta.Store, changes ...func(*house, *Options)) *house {
	t.Helper()
	h := &house{TB: t, memory: metatest.NewMemory(), up: &registry{manifests: map[string]*oci.Manifest{}, blobs: map[string][]byte{}, calls: map[string]int{}}}
	h.store = metatest.NewFaulty(h.memory)
	h.broken.Store(disk.Op(""))
	dir, err := disk.Open(disk.Options{Path: filepath.Join(t.TempDir(), "content"), Fault: func(op disk.Op, _ string) error {
		if h.broken.Load() == op {
			return errBroken
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	h.disk, h.cache = dir, cache.New(cache.Options{Disk: dir, MemoryBytes: memoryBytes})
	facts := front(h.store)
	h.tags, h.links = meta.NewTags(facts, meta.TagsOptions{}), meta.NewLinks(facts, meta.LinksOptions{})
	o := Options{
		Cache: h.cache, Tags: h.tags, Links: h.links, Known: meta.NewKnown(facts, meta.KnownOptions{}), Touches: meta.NewTouches(facts, meta.TouchesOptions{}),
		Upstreams: []*repository.Upstream{{
			Name: "up", Registry: "up.example", Source: h.up, Sink: h.up, Lister: h.up, Tags: repository.TagPolicy{Fresh: time.Hour, Stale: time.Hour},
		}},
	}
	for _, change := range changes {
		change(h, &o)
	}
	h.m, err = New(o)
	if err != nil {
		t.Fatal(err)
	}
	h.l = &Listener{Mirror: h.m, Listener: request.Listener{
		Name: "l", Routes: &route.Table{Order: []route.Route{{Upstream: "up"}}}, Policy: identity.Policy{Role: identity.RoleRegistry, AllowAnonymousPush: true},
	}}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = h.cache.Run(ctx) })
	wg.Go(func() { _ = h.m.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		if err := dir.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// counted is the sum of a metric of a mirror.
func counted(t testing.TB, m *Mirror, name string) (sum float64) {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(m.Collectors()...)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, one := range f.GetMetric() {
			sum += one.GetCounter().GetValue() + one.GetGauge().GetValue()
		}
	}
	return sum
}

// until waits for what the mirror does in the background.
func (h *house) until(done func() bool) {
	h.Helper()
	for range 1000 {
		if done() {
			return
		}
		<-time.After(5 * time.Millisecond) // the work belongs to the mirror and not to the test
	}
	h.Fatal("the work in the background does not end")
}

// fetchedAhead waits until so many blobs have been fetched ahead.
func (h *house) fetchedAhead(n float64) {
	h.Helper()
	h.until(func() bool { return counted(h, h.m, "dray_prefetched_blobs_total") >= n })
}

// do hands one request to the listener.
func (h *house) do(method, path string, body []byte, headers ...string) *httptest.ResponseRecorder {
	h.Helper()
	r := httptest.NewRequestWithContext(h.Context(), method, path, bytes.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.l.ServeHTTP(w, r)
	return w
}

func (h *house) want(status int, method, path string, body []byte, headers ...string) *httptest.ResponseRecorder {
	h.Helper()
	w := h.do(method, path, body, headers...)
	if w.Code != status {
		h.Fatalf("%s %s: %d, want %d\n%s", method, path, w.Code, status, w.Body)
	}
	return w
}

// hold puts an image into the upstream.
func (h *house) hold(repo, tag string, layer []byte) *oci.Manifest {
	h.Helper()
	m := image(h, layer)
	h.up.mu.Lock()
	defer h.up.mu.Unlock()
	h.up.manifests[repo+":"+tag], h.up.manifests[repo+"@"+m.Digest.String()] = m, m
	h.up.blobs[repo+"@"+digest.FromBytes(layer).String()] = layer
	return m
}

func image(t testing.TB, layer []byte) *oci.Manifest {
	t.Helper()
	raw := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}]}`, oci.MediaTypeOCIManifest, digest.FromBytes(layer), len(layer))
	m, err := oci.ParseManifest(oci.MediaTypeOCIManifest, []byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// pull gets an image twice, by tag and by digest, with its layer, and holds it to its bytes.
func (h *house) pull(repo, tag string, m *oci.Manifest, layer []byte) {
	h.Helper()
	for range 2 {
		for _, ref := range []string{tag, m.Digest.String()} {
			if w := h.want(200, "GET", "/v2/"+repo+"/manifests/"+ref, nil); !bytes.Equal(w.Body.Bytes(), m.Raw) {
				h.Errorf("%s: another manifest", ref)
			}
		}
		path := "/v2/" + repo + "/blobs/" + digest.FromBytes(layer).String()
		if w := h.want(200, "GET", path, nil); !bytes.Equal(w.Body.Bytes(), layer) {
			h.Errorf("another blob of %d bytes", w.Body.Len())
		}
		if w := h.want(206, "GET", path, nil, "Range", "bytes=10-19"); !bytes.Equal(w.Body.Bytes(), layer[10:20]) {
			h.Error("another range")
		}
	}
}

func (h *house) push(repo, tag string, layer []byte) *oci.Manifest {
	h.Helper()
	at := h.want(202, "POST", "/v2/"+repo+"/blobs/uploads/", nil).Header().Get("Location")
	h.want(201, "PUT", at+"?digest="+digest.FromBytes(layer).String(), layer)
	m := image(h, layer)
	h.want(201, "PUT", "/v2/"+repo+"/manifests/"+tag, m.Raw, "Content-Type", m.MediaType)
	if got, err := h.up.blob(repo, digest.FromBytes(layer)); err != nil || !bytes.Equal(got, layer) {
		h.Errorf("the upstream has %d bytes, %v", len(got), err)
	}
	return m
}

// A store of facts that fails costs questions, never a pull and never a push.
func TestFactsFail(t *testing.T) {
	layer := bytes.Repeat([]byte("layer"), 50_000)
	t.Run("from the start", func(t *testing.T) {
		h := newHouse(t)
		h.store.Fail(errBroken, 0)
		h.pull("team/app", "v1", h.hold("team/app", "v1", layer), layer)
		h.pull("team/new", "v1", h.push("team/new", "v1", layer), layer)
		if h.want(404, "GET", "/v2/team/app/manifests/v9", nil); h.store.Calls("get") == 0 {
			t.Error("the store was not asked")
		}
	})
	t.Run("later", func(t *testing.T) {
		h := newHouse(t)
		m := h.hold("team/app", "v1", layer)
		h.pull("team/app", "v1", m, layer)
		h.store.Fail(errBroken, 0)
		h.pull("team/app", "v1", m, layer)
		h.store.Fail(nil, 0)
		h.pull("team/app", "v1", m, layer)
	})
}

// A store that was emptied, as by FLUSHALL, costs questions; the bytes are not fetched again.
func TestFactsFlushed(t *testing.T) {
	h := newHouse(t)
	layer := bytes.Repeat([]byte("layer"), 50_000)
	m := h.hold("team/app", "v1", layer)
	h.pull("team/app", "v1", m, layer)
	pushed := h.push("team/pushed", "v1", layer)
	for range 2 {
		for e, err := range h.memory.Scan(t.Context(), "") {
			if err != nil {
				t.Fatal(err)
			}
			if err := h.memory.Delete(t.Context(), e.Key); err != nil {
				t.Fatal(err)
			}
		}
		h.pull("team/pushed", "v1", pushed, layer)
		h.pull("team/app", "v1", m, layer)
		h.want(200, "HEAD", "/v2/team/app/blobs/"+digest.FromBytes(layer).String(), nil)
	}
	if n := h.up.count("blob"); n != 1 {
		t.Errorf("the blob was fetched %d times", n)
	}
	// Bytes that lie here are not for a repository that does not have them.
	h.want(404, "GET", "/v2/team/other/blobs/"+digest.FromBytes(layer).String(), nil)
}

// Who gets a manifest uses the layers that it names, even without getting them from here: they are evicted together.
func TestLayersAreUsedWithTheirManifest(t *testing.T) {
	h := buildHouse(t, 1<<20, func(s meta.Store) meta.Store { return s })
	layer := bytes.Repeat([]byte("layer"), 50_000)
	m := h.push("team/app", "v1", layer)
	wantHits := func(after string, n int) {
		t.Helper()
		for _, d := range []digest.Digest{m.Digest, digest.FromBytes(layer)} {
			if i, ok := h.disk.Lookup(d); !ok || i.Hits != n {
				t.Errorf("after %s %s has %d hits, held %v; want %d", after, d, i.Hits, ok, n)
			}
		}
	}
	wantHits("the push", 0)
	h.want(200, "HEAD", "/v2/team/app/manifests/v1", nil)
	wantHits("HEAD", 0)
	for range 3 { // in less than a minute
		h.want(200, "GET", "/v2/team/app/manifests/v1", nil)
		wantHits("GET", 1)
	}
}

// A disk that fails makes pulls pass through, and pushes fail with a reason; once it works again, so does the cache.
func TestDiskFails(t *testing.T) {
	layer := bytes.Repeat([]byte("layer"), 300_000)
	for _, op := range []disk.Op{disk.OpCreate, disk.OpWrite, disk.OpPublish, disk.OpOpen, disk.OpRead} {
		t.Run(string(op), func(t *testing.T) {
			h := newHouse(t)
			m := h.hold("team/app", "v1", layer)
			h.broken.Store(op)
			h.pull("team/app", "v1", m, layer)
			if op == disk.OpCreate || op == disk.OpWrite || op == disk.OpPublish {
				w := h.do("POST", "/v2/team/app/blobs/uploads/?digest="+digest.FromBytes(layer).String(), layer)
				if w.Code != 503 || !strings.Contains(w.Body.String(), "UNAVAILABLE") || strings.Contains(w.Body.String(), errBroken.Error()) {
					t.Errorf("push: %d %s", w.Code, w.Body)
				}
				if n := counted(t, h.m, "dray_uploads_open"); n != 0 {
					t.Errorf("%v uploads are left", n)
				}
			}
			h.broken.Store(disk.Op(""))
			h.pull("team/app", "v1", m, layer)
			h.push("team/app", "v2", layer)
			if _, held := h.cache.Stat(digest.FromBytes(layer)); !held {
				t.Error("the blob is not kept although the disk works again")
			}
		})
	}
}

// An upload that its client left alone ends, and gives back its bytes and its place; one in use does not.
func TestUploadExpires(t *testing.T) {
	h := buildHouse(t, 1, plainFacts, func(_ *house, o *Options) { o.MaxUploadsPerClient = 2 })
	start := func() string {
		return h.want(202, "POST", "/v2/team/app/blobs/uploads/", nil).Header().Get("Location")
	}
	idle, busy := start(), start()
	h.want(429, "POST", "/v2/team/app/blobs/uploads/", nil)
	h.want(202, "PATCH", idle, []byte("some bytes"))
	body, feed := io.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() {
		w := httptest.NewRecorder()
		if h.l.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "PATCH", busy, body)); w.Code != 202 {
			t.Errorf("PATCH: %d %s", w.Code, w.Body)
		}
	})
	if _, err := feed.Write([]byte("a request is on it")); err != nil {
		t.Fatal(err)
	}
	h.m.push.Expire(time.Now().Add(h.m.expiry - time.Minute))
	h.want(204, "GET", idle, nil)
	h.m.push.Expire(time.Now().Add(h.m.expiry + time.Minute))
	feed.Close()
	wg.Wait()
	h.want(404, "GET", idle, nil)
	h.want(404, "PATCH", idle, []byte("x"))
	h.want(204, "GET", busy, nil)
	start()
	h.want(429, "POST", "/v2/team/app/blobs/uploads/", nil)
}

// Blobs of a push that never got its manifest are let go.
func TestStagedExpire(t *testing.T) {
	h := newHouse(t)
	blob := []byte("a blob without manifest")
	h.want(201, "POST", "/v2/team/app/blobs/uploads/?digest="+digest.FromBytes(blob).String(), blob)
	h.m.repos.Expire(time.Now())
	if n := h.m.repos.Staged().Len(); n != 1 {
		t.Errorf("%d staged, want 1", n)
	}
	h.m.repos.Expire(time.Now().Add(2 * h.m.expiry))
	if n := h.m.repos.Staged().Len(); n != 0 {
		t.Errorf("%d staged are left", n)
	}
}

// A client that leaves while it waits gets nothing, and the work for it goes on for the next.
func TestClientLeaves(t *testing.T) {
	h := newHouse(t)
	h.hold("team/app", "v1", []byte("layer"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := httptest.NewRecorder()
	func() {
		defer func() {
			if p := recover(); p != http.ErrAbortHandler {
				t.Errorf("recovered %v", p)
			}
		}()
		h.l.ServeHTTP(w, httptest.NewRequestWithContext(ctx, "GET", "/v2/team/app/manifests/v1", nil))
	}()
	if w.Body.Len() > 0 {
		t.Errorf("it was sent %s", w.Body)
	}
	h.want(200, "GET", "/v2/team/app/manifests/v1", nil)
}

// FuzzListener: whatever a stranger sends, the answer has a status and says which API it is of, an error is one of the
// protocol, and nothing is published.
func FuzzListener(f *testing.F) {
	f.Add("GET", "/v2/team/app/manifests/v1", "", "bytes=0-1", "*/*", "")
	f.Add("PUT", "/v2/team/app/manifests/v1", "digest=x", "", "application/vnd.oci.image.index.v1+json", `{"schemaVersion":2,"manifests":[]}`)
	f.Add("PATCH", "/a/b/v2/c/blobs/uploads/ID", "_state=1", "0-5", "", "hello")
	f.Add("POST", "/v2/a/blobs/uploads/", "mount=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855&from=b", "", "", "")
	f.Add("HEAD", "/v2/../../etc/passwd", "ns=%2e%2e", "", "", "")
	f.Add("GET", "/v2/a/blobs/sha512:00", "", `W/"x", *`, "", "")
	h := newHouse(f)
	f.Fuzz(func(t *testing.T, method, path, query, header, contentType, body string) {
		r := &http.Request{
			Method: cmp.Or(method, "GET"), URL: &url.URL{Path: path, RawQuery: query}, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Host: header, RemoteAddr: header,
			Header: http.Header{"Range": {header}, "Content-Range": {header}, "If-None-Match": {header}, "If-Range": {body}, "Accept": {contentType, header}, "Content-Type": {contentType}},
			Body:   io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
		}
		w := httptest.NewRecorder()
		h.l.ServeHTTP(w, r.WithContext(t.Context()))
		if w.Header().Get("Docker-Distribution-Api-Version") != "registry/2.0" || w.Code < 200 || w.Code >= 600 {
			t.Fatalf("%s %q: %d %v", method, path, w.Code, w.Header())
		}
		if w.Code < 400 {
			return
		}
		var p struct{ Errors []struct{ Code string } }
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || len(p.Errors) != 1 || p.Errors[0].Code == "" {
			t.Fatalf("%s %q: %d %s", method, path, w.Code, w.Body)
		}
		if w.Code >= 500 {
			t.Fatalf("%s %q?%q is dray's fault: %d %s", method, path, query, w.Code, w.Body)
		}
	})
}
