package hosted

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"

	"dray/cache"
	"dray/cache/disk"
	"dray/upstream"
	"dray/upstream/oci"
	"dray/upstream/upstreamtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// errBroken is what a broken disk answers.
var errBroken = errors.New("this step fails")

// house is a Store on a cache, both of which can be stopped and opened again.
type house struct {
	testing.TB
	*Store
	cache *cache.Cache
	dir   string
	stop  func(kill bool)
	// broken is the step of the disk that fails; empty: none.
	broken atomic.Value
}

// begin opens a Store in a directory that may have one already.
func begin(t testing.TB, dir string, o Options) *house {
	t.Helper()
	h := &house{TB: t, dir: dir}
	d, err := disk.Open(disk.Options{Path: filepath.Join(dir, "content"), Fault: func(op disk.Op, _ string) error {
		if h.broken.Load() == op {
			return errBroken
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	h.cache = cache.New(cache.Options{Disk: d})
	o.Name, o.Directory, o.Cache = "own", filepath.Join(dir, "hosted"), h.cache
	if h.Store, err = Open(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = h.cache.Run(ctx) })
	var once sync.Once
	h.stop = func(kill bool) {
		once.Do(func() {
			cancel()
			wg.Wait()
			if !kill {
				h.writeUses(context.Background(), 0)
			}
			if err := errors.Join(h.Store.Close(), d.Close()); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() { h.stop(true) })
	return h
}

// again stops the Store, without a last write if it is killed, and opens what is there.
func (h *house) again(kill bool) *house {
	h.Helper()
	o := h.opts
	h.stop(kill)
	return begin(h.TB, h.dir, o)
}

func (h *house) push(repo, tag string, size int) upstreamtest.Image {
	h.Helper()
	img := upstreamtest.NewImage(h, repo+":"+tag, size)
	img.Push(h, h.Store, repo, tag)
	return img
}

func (h *house) has(repo, ref string) bool {
	h.Helper()
	r, err := oci.ParseReference(ref)
	if err != nil {
		h.Fatal(err)
	}
	h.contents.mu.Lock() // without using it
	defer h.contents.mu.Unlock()
	if h.contents.repos[repo] == nil {
		return false
	}
	st := h.contents.repos[repo].state
	if r.Tag != "" {
		return st.tags[r.Tag].Digest != ""
	}
	return st.manifests[r.Digest] != nil
}

// tagged are the tags of a repository.
func (h *house) tagged(repo string) []string {
	tags, err := h.contents.tagNames(repo)
	if err != nil && !oci.NotFound(err) {
		h.Fatal(err)
	}
	return tags
}

// sound holds the account of holds to what repositories have.
func (h *house) sound() {
	h.Helper()
	h.contents.mu.Lock()
	defer h.contents.mu.Unlock()
	uses, used := map[digest.Digest]int{}, int64(0)
	for _, r := range h.contents.repos {
		needs := map[digest.Digest]int{}
		for d, m := range r.state.manifests {
			uses[d]++
			for _, b := range m.blobs {
				needs[b.Digest]++
			}
		}
		for d, m := range r.members {
			uses[d]++
			if m.needs != needs[d] {
				h.Errorf("%s needs %s %d times, counted %d", r.name, d, needs[d], m.needs)
			}
			delete(needs, d)
		}
		if len(needs) > 0 {
			h.Errorf("%s lacks %v", r.name, needs)
		}
	}
	got := map[digest.Digest]int{}
	for d, x := range h.contents.holds {
		got[d] = x.uses
		used += x.size
	}
	if diff := cmp.Diff(uses, got); diff != "" || used != h.contents.used {
		h.Errorf("uses (-repositories +account), %d bytes of %d:\n%s", used, h.contents.used, diff)
	}
}

func TestSuites(t *testing.T) {
	h := begin(t, t.TempDir(), Options{})
	upstreamtest.TestSource(t, h, h, "suite")
	upstreamtest.TestSink(t, h, h, "suite")
	upstreamtest.TestDeleter(t, h, h, h, "suite", upstreamtest.DeleterOptions{Blobs: true})
	h.sound()
}

// The old form of BuildKit's cache is an index that lists blobs. It needs them as an image does.
func TestIndexOfLayers(t *testing.T) {
	h := begin(t, t.TempDir(), Options{})
	layer := []byte("a layer")
	raw := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+zstd","digest":%q,"size":%d}]}`,
		oci.MediaTypeOCIIndex, digest.FromBytes(layer), len(layer))
	m, err := oci.ParseManifest("", []byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.PutManifest(t.Context(), upstream.Repo{Name: "cache"}, oci.Reference{Tag: "v1"}, m); !errors.Is(err, oci.ErrManifestBlobUnknown) {
		t.Errorf("without its layer: %v", err)
	}
	if err := h.PutBlob(t.Context(), upstream.Repo{Name: "cache"}, upstreamtest.Upload(layer)); err != nil {
		t.Fatal(err)
	}
	if _, err := h.PutManifest(t.Context(), upstream.Repo{Name: "cache"}, oci.Reference{Tag: "v1"}, m); err != nil {
		t.Fatal(err)
	}
	h.contents.expireMembers(h.contents.lookup("cache"), time.Now().Add(24*time.Hour))
	if _, err := h.StatBlob(t.Context(), upstream.Repo{Name: "cache"}, digest.FromBytes(layer)); err != nil {
		t.Errorf("after its time for a push: %v", err)
	}
	h.sound()
}

// index pushes an index of images that are there.
func (h *house) index(repo, tag string, images ...upstreamtest.Image) *oci.Manifest {
	h.Helper()
	var list []oci.Descriptor
	for _, i := range images {
		list = append(list, i.Manifest.Descriptor())
	}
	return h.manifest(repo, tag, map[string]any{"schemaVersion": 2, "mediaType": oci.MediaTypeOCIIndex, "manifests": list})
}

func (h *house) manifest(repo, tag string, fields map[string]any) *oci.Manifest {
	h.Helper()
	raw, err := json.Marshal(fields)
	if err != nil {
		h.Fatal(err)
	}
	m, err := oci.ParseManifest("", raw)
	if err != nil {
		h.Fatal(err)
	}
	ref := oci.Reference{Tag: tag}
	if tag == "" {
		ref.Digest = m.Digest
	}
	if _, err := h.PutManifest(h.Context(), upstream.Repo{Name: repo}, ref, m); err != nil {
		h.Fatal(err)
	}
	return m
}

// referrer pushes an artifact that refers to a manifest.
func (h *house) referrer(repo, artifactType string, to oci.Descriptor) *oci.Manifest {
	h.Helper()
	empty := []byte("{}")
	if err := h.PutBlob(h.Context(), upstream.Repo{Name: repo}, upstreamtest.Upload(empty)); err != nil {
		h.Fatal(err)
	}
	config := oci.Descriptor{MediaType: "application/vnd.oci.empty.v1+json", Digest: digest.FromBytes(empty), Size: 2}
	return h.manifest(repo, "", map[string]any{"schemaVersion": 2, "mediaType": oci.MediaTypeOCIManifest, "artifactType": artifactType,
		"config": config, "layers": []oci.Descriptor{config}, "subject": to, "annotations": map[string]string{"of": repo}})
}

// Run prunes by itself, and ends when it is told to.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := begin(t, t.TempDir(), Options{Unused: time.Hour})
		h.push("r", "v1", 100)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- h.Run(ctx) }()
		time.Sleep(time.Hour + 2*pruneEvery)
		synctest.Wait()
		if h.has("r", "v1") {
			t.Error("the tag is there")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		h.stop(true)
	})
}

// Many clients push, pull, delete and prune at once: nobody is told that something is there which
// is not, and the account is right.
func TestTogether(t *testing.T) {
	h := begin(t, t.TempDir(), Options{Rules: []Rule{{Keep: 3}}, Untagged: time.Nanosecond})
	shared := upstreamtest.NewImage(t, "shared", 10_000)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := range 10 {
				repo, tag := fmt.Sprintf("r%d", n%2), fmt.Sprintf("t%d-%d", i, n)
				img := upstreamtest.NewImage(t, tag, 1000)
				if n%3 == 0 {
					img = shared
				}
				img.Push(t, h, repo, tag)
				for _, p := range [][]byte{img.Layer, img.Config} {
					if _, err := h.StatBlob(t.Context(), upstream.Repo{Name: repo}, digest.FromBytes(p)); err != nil {
						t.Error(err)
					}
				}
				if n%4 == 3 {
					if err := h.DeleteManifest(t.Context(), upstream.Repo{Name: repo}, oci.Reference{Tag: tag}); err != nil && !oci.NotFound(err) {
						t.Error(err)
					}
				}
				h.prune(t.Context(), time.Now())
			}
		})
	}
	wg.Wait()
	h.sound()
	h.again(true).sound()
}
