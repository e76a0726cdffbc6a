package hosted

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"dray/cache"
	"dray/cache/disk"
	"dray/upstream"
	"dray/upstream/oci"
	"dray/upstream/upstreamtest"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"
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
	h.mu.Lock() // without using it
	defer h.mu.Unlock()
	if h.repos[repo] == nil {
		return false
	}
	st := h.repos[repo].now
	if r.Tag != "" {
		return st.tags[r.Tag].Digest != ""
	}
	return st.manifests[r.Digest] != nil
}

// tagged are the tags of a repository.
func (h *house) tagged(repo string) []string {
	tags, err := h.tags(repo)
	if err != nil && !oci.NotFound(err) {
		h.Fatal(err)
	}
	return tags
}

// sound holds the account of holds to what repositories have.
func (h *house) sound() {
	h.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	uses, used := map[digest.Digest]int{}, int64(0)
	for _, r := range h.repos {
		needs := map[digest.Digest]int{}
		for d, m := range r.now.manifests {
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
	for d, x := range h.holds {
		got[d] = x.uses
		used += x.size
	}
	if diff := cmp.Diff(uses, got); diff != "" || used != h.used {
		h.Errorf("uses (-repositories +account), %d bytes of %d:\n%s", used, h.used, diff)
	}
}

func TestSuites(t *testing.T) {
	h := begin(t, t.TempDir(), Options{})
	upstreamtest.TestSource(t, h, h, "suite")
	upstreamtest.TestSink(t, h, h, "suite")
	upstreamtest.TestDeleter(t, h, h, h, "suite", upstreamtest.DeleterOptions{Blobs: true})
	h.sound()
}

// What was acknowledged is there after a kill, and again after a stop in order, with nothing but the two directories.
func TestSurvivesKill(t *testing.T) {
	h := begin(t, t.TempDir(), Options{})
	one, two := h.push("team/app", "v1", 5000), h.push("team", "v2", 6000)
	for _, kill := range []bool{true, false} {
		h = h.again(kill)
		h.sound()
		for repo, img := range map[string]upstreamtest.Image{"team/app": one, "team": two} {
			m, err := h.Manifest(t.Context(), repo, oci.Reference{Digest: img.Manifest.Digest}, nil)
			if err != nil || !bytes.Equal(m.Raw, img.Manifest.Raw) || m.MediaType != img.Manifest.MediaType {
				t.Fatalf("%s after kill %v: %v", repo, kill, err)
			}
			for _, p := range [][]byte{img.Layer, img.Config} {
				if size, err := h.StatBlob(t.Context(), repo, digest.FromBytes(p)); err != nil || size != int64(len(p)) {
					t.Errorf("%s after kill %v: blob of %d bytes: %d, %v", repo, kill, len(p), size, err)
				}
			}
		}
		if tags := h.tagged("team/app"); !slices.Equal(tags, []string{"v1"}) {
			t.Errorf("tags %v", tags)
		}
	}
}

// A push whose bytes or whose file cannot be made durable is not acknowledged and leaves what was there before.
func TestBrokenDisk(t *testing.T) {
	h := begin(t, t.TempDir(), Options{})
	first := h.push("team/app", "v1", 1000)
	next := upstreamtest.NewImage(t, "next", 2000)
	for _, step := range []disk.Op{disk.OpSync, disk.OpCreate, disk.OpWrite, disk.OpPublish} {
		h.broken.Store(step)
		err := h.PutBlob(t.Context(), "team/app", upstreamtest.Upload(upstreamtest.NewImage(t, string(step), 1000).Layer))
		if e := oci.AsError(err); err == nil || e.Status != 503 {
			t.Errorf("PutBlob without %s: %v", step, err)
		}
		h.broken.Store(disk.Op(""))
	}
	next.Push(t, h, "team/app", "v2")
	third := upstreamtest.NewImage(t, "third", 3000)
	for _, p := range [][]byte{third.Layer, third.Config} {
		if err := h.PutBlob(t.Context(), "team/app", upstreamtest.Upload(p)); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []disk.Op{disk.OpSync, disk.OpCreate} {
		h.broken.Store(step)
		if _, err := h.PutManifest(t.Context(), "team/app", oci.Reference{Tag: "v1"}, third.Manifest); err == nil {
			t.Errorf("PutManifest without %s was acknowledged", step)
		}
		h.broken.Store(disk.Op(""))
		if err := h.cache.Delete(t.Context(), third.Manifest.Digest); err != nil {
			t.Fatal(err)
		}
	}
	// Something stands in the way of the file.
	if err := os.Mkdir(filepath.Join(h.dir, "hosted/team/app", tempName), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := h.PutManifest(t.Context(), "team/app", oci.Reference{Tag: "v1"}, third.Manifest); oci.AsError(err).Status != 503 {
		t.Errorf("PutManifest without a file: %v", err)
	}
	if err := os.Remove(filepath.Join(h.dir, "hosted/team/app", tempName)); err != nil {
		t.Fatal(err)
	}
	h.sound()
	for range 2 {
		m, err := h.Manifest(t.Context(), "team/app", oci.Reference{Tag: "v1"}, nil)
		if err != nil || m.Digest != first.Manifest.Digest {
			t.Errorf("the tag is %v, %v", m, err)
		}
		h = h.again(true)
		h.sound()
	}
}

// What lies in the directory besides sound files is set aside; the rest is served.
func TestBrokenFiles(t *testing.T) {
	h := begin(t, t.TempDir(), Options{})
	h.push("good", "v1", 1000)
	h.push("torn", "v1", 1000)
	lost := h.push("lost", "v1", 1001)
	h.stop(true)
	at := func(name string) string { return filepath.Join(h.dir, "hosted", name) }
	text, err := os.ReadFile(at("torn/" + fileName))
	if err != nil {
		t.Fatal(err)
	}
	stranger := bytes.Replace(text, []byte(`"name": "torn"`), []byte(`"name": "good"`), 1)
	for name, p := range map[string][]byte{"torn/" + fileName: text[:len(text)/2], "good/" + tempName: text[:10], "other/" + fileName: stranger, "UPPER/" + fileName: text} {
		if err := os.MkdirAll(filepath.Dir(at(name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at(name), p, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	hex := lost.Manifest.Digest.Encoded()
	if err := os.Remove(filepath.Join(h.dir, "content/blobs/sha256", hex[:2], hex)); err != nil {
		t.Fatal(err)
	}
	h = begin(t, h.dir, h.opts)
	h.sound()
	if got := slices.Sorted(maps.Keys(h.repos)); !slices.Equal(got, []string{"good", "lost"}) {
		t.Errorf("repositories %v", got)
	}
	if h.has("lost", "v1") || !h.has("good", "v1") {
		t.Error("a manifest whose bytes are gone is there, or a sound one is not")
	}
	for _, repo := range []string{"torn", "lost"} { // a push mends it
		img := h.push(repo, "v1", 1000)
		if _, err := h.Manifest(t.Context(), repo, oci.Reference{Digest: img.Manifest.Digest}, nil); err != nil {
			t.Error(err)
		}
	}
	h.again(true).sound()
}

// A blob whose bytes are gone is "not found", so that clients push it, and that mends it.
func TestLostBlobHeals(t *testing.T) {
	h := begin(t, t.TempDir(), Options{})
	img := h.push("team/app", "v1", 5000)
	layer := digest.FromBytes(img.Layer)
	if err := h.cache.Delete(t.Context(), layer); err != nil {
		t.Fatal(err)
	}
	if _, err := h.StatBlob(t.Context(), "team/app", layer); !errors.Is(err, oci.ErrBlobUnknown) {
		t.Errorf("StatBlob: %v", err)
	}
	if _, err := h.Blob(t.Context(), "team/app", layer, 0); !errors.Is(err, oci.ErrBlobUnknown) {
		t.Errorf("Blob: %v", err)
	}
	if _, err := h.PutManifest(t.Context(), "team/app", oci.Reference{Tag: "v2"}, img.Manifest); !errors.Is(err, oci.ErrManifestBlobUnknown) {
		t.Errorf("PutManifest: %v", err)
	}
	img.Push(t, h, "team/app", "v1")
	if _, err := h.StatBlob(t.Context(), "team/app", layer); err != nil {
		t.Errorf("after the push: %v", err)
	}
	h.again(true).sound()
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
	if _, err := h.PutManifest(t.Context(), "cache", oci.Reference{Tag: "v1"}, m); !errors.Is(err, oci.ErrManifestBlobUnknown) {
		t.Errorf("without its layer: %v", err)
	}
	if err := h.PutBlob(t.Context(), "cache", upstreamtest.Upload(layer)); err != nil {
		t.Fatal(err)
	}
	if _, err := h.PutManifest(t.Context(), "cache", oci.Reference{Tag: "v1"}, m); err != nil {
		t.Fatal(err)
	}
	h.expireMembers(h.lookup("cache"), time.Now().Add(24*time.Hour))
	if _, err := h.StatBlob(t.Context(), "cache", digest.FromBytes(layer)); err != nil {
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
	if _, err := h.PutManifest(h.Context(), repo, ref, m); err != nil {
		h.Fatal(err)
	}
	return m
}

// referrer pushes an artifact that refers to a manifest.
func (h *house) referrer(repo, artifactType string, to oci.Descriptor) *oci.Manifest {
	h.Helper()
	empty := []byte("{}")
	if err := h.PutBlob(h.Context(), repo, upstreamtest.Upload(empty)); err != nil {
		h.Fatal(err)
	}
	config := oci.Descriptor{MediaType: "application/vnd.oci.empty.v1+json", Digest: digest.FromBytes(empty), Size: 2}
	return h.manifest(repo, "", map[string]any{"schemaVersion": 2, "mediaType": oci.MediaTypeOCIManifest, "artifactType": artifactType,
		"config": config, "layers": []oci.Descriptor{config}, "subject": to, "annotations": map[string]string{"of": repo}})
}

func TestReferrers(t *testing.T) {
	h := begin(t, t.TempDir(), Options{})
	img := h.push("team/app", "v1", 1000)
	subject := img.Manifest.Descriptor()
	sig, sbom := h.referrer("team/app", "application/sig", subject), h.referrer("team/app", "application/sbom", subject)
	list := func(repo string, query url.Values) ([]string, upstream.Page) {
		t.Helper()
		p, err := h.Referrers(t.Context(), repo, subject.Digest, query)
		if err != nil {
			t.Fatal(err)
		}
		var index struct{ Manifests []oci.Descriptor }
		if err := json.Unmarshal(p.Body, &index); err != nil || index.Manifests == nil {
			t.Fatalf("%s: %v", p.Body, err)
		}
		var types []string
		for _, d := range index.Manifests {
			types = append(types, d.ArtifactType)
			if d.Annotations["of"] != repo || d.MediaType != oci.MediaTypeOCIManifest {
				t.Errorf("descriptor %+v", d)
			}
		}
		slices.Sort(types)
		return types, p
	}
	if got, p := list("team/app", nil); !slices.Equal(got, []string{"application/sbom", "application/sig"}) || p.FiltersApplied != "" {
		t.Errorf("all: %v, filters %q", got, p.FiltersApplied)
	}
	if got, p := list("team/app", url.Values{"artifactType": {"application/sig"}}); !slices.Equal(got, []string{"application/sig"}) || p.FiltersApplied != "artifactType" {
		t.Errorf("filtered: %v, filters %q", got, p.FiltersApplied)
	}
	if got, _ := list("nobody", nil); len(got) != 0 {
		t.Errorf("of a repository that is not there: %v", got)
	}
	for range 5 { // a page goes on after the last digest of the one before
		h.referrer("team/app", "application/more", subject)
	}
	least := min(sig.Digest.String(), sbom.Digest.String())
	if got, _ := list("team/app", url.Values{"last": {least}}); slices.Contains(got, "") || len(got) > 2 {
		t.Errorf("after %s: %v", least, got)
	}
}

func TestTagsPages(t *testing.T) {
	h := begin(t, t.TempDir(), Options{})
	img := h.push("r", "b", 100)
	for _, tag := range []string{"A", "c", "a", "B"} {
		img.Push(t, h, "r", tag)
	}
	read := func(q url.Values) ([]string, url.Values) {
		t.Helper()
		p, err := h.Tags(t.Context(), "r", q)
		if err != nil {
			t.Fatal(err)
		}
		var list struct{ Tags []string }
		if err := json.Unmarshal(p.Body, &list); err != nil || list.Tags == nil {
			t.Fatalf("%s: %v", p.Body, err)
		}
		return list.Tags, p.Next
	}
	all := []string{"A", "a", "B", "b", "c"}
	if got, next := read(nil); !slices.Equal(got, all) || next != nil {
		t.Errorf("all: %v, next %v", got, next)
	}
	var got []string
	for q := (url.Values{"n": {"2"}}); q != nil; {
		page, next := read(q)
		got, q = append(got, page...), next
	}
	if !slices.Equal(got, all) {
		t.Errorf("page by page: %v", got)
	}
	if got, next := read(url.Values{"n": {"0"}}); len(got) != 0 || next != nil {
		t.Errorf("none: %v, next %v", got, next)
	}
	if got, _ := read(url.Values{"last": {"aa"}}); !slices.Equal(got, []string{"B", "b", "c"}) {
		t.Errorf("after what is not there: %v", got)
	}
	if _, err := h.Tags(t.Context(), "r", url.Values{"n": {"x"}}); !errors.Is(err, oci.ErrPaginationInvalid) {
		t.Errorf("n=x: %v", err)
	}
	if _, err := h.Tags(t.Context(), "s", nil); !errors.Is(err, oci.ErrNameUnknown) {
		t.Errorf("no repository: %v", err)
	}
}

// A tag goes when it was neither pushed nor pulled for as long as its rule says, and what only it needed goes when
// nobody used it for as long as untagged manifests stay.
func TestUnusedTagsGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := begin(t, t.TempDir(), Options{
			Unused: 240 * time.Hour, Untagged: 24 * time.Hour,
			Rules: []Rule{{Repositories: []string{"team/*"}, Tags: []string{"pr-*", "tmp"}, Unused: 48 * time.Hour}, {Tags: []string{"keep"}}},
		})
		old, pulled := h.push("team/app", "pr-1", 1000), h.push("team/app", "pr-2", 1001)
		h.push("team/app", "main", 1002)
		h.push("team/app", "keep", 1003)
		h.push("other", "pr-1", 1004)
		time.Sleep(47 * time.Hour)
		if _, err := h.StatManifest(t.Context(), "team/app", oci.Reference{Tag: "pr-2"}, nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		h.prune(t.Context(), time.Now())
		if got := h.tagged("team/app"); !slices.Equal(got, []string{"keep", "main", "pr-2"}) || !h.has("other", "pr-1") {
			t.Errorf("after 49 h: %v", got)
		}
		if h.has("team/app", old.Manifest.Digest.String()) {
			t.Error("an old manifest without a tag is there")
		}
		if _, err := h.StatBlob(t.Context(), "team/app", digest.FromBytes(old.Layer)); err == nil {
			t.Error("its layer is there")
		}
		if _, err := h.StatBlob(t.Context(), "team/app", digest.FromBytes(pulled.Layer)); err != nil {
			t.Error(err)
		}
		h.sound()
		time.Sleep(200 * time.Hour)
		h.prune(t.Context(), time.Now())
		if got := h.tagged("team/app"); !slices.Equal(got, []string{"keep"}) || h.lookup("other") != nil {
			t.Errorf("after 249 h: %v", got)
		}
		if _, err := os.Stat(filepath.Join(h.dir, "hosted/other")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the directory of an empty repository: %v", err)
		}
		h.sound()
		h.stop(true)
	})
}

// Only the newest tags of a rule are kept, of each branch where a group says so.
func TestNewestTagsStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := begin(t, t.TempDir(), Options{Rules: []Rule{{Tags: []string{"b-*"}, Keep: 2, Group: "-"}, {Tags: []string{"v*"}, Keep: 1}}})
		for _, tag := range []string{"b-main-1", "b-main-2", "v1", "b-fix-1", "b-main-3", "latest", "v2"} {
			h.push("r", tag, 100)
			time.Sleep(time.Second)
		}
		h.prune(t.Context(), time.Now())
		if got, want := h.tagged("r"), []string{"b-fix-1", "b-main-2", "b-main-3", "latest", "v2"}; !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
		// A tag that is pushed again is new.
		h.push("r", "b-main-2", 100)
		time.Sleep(time.Second)
		h.push("r", "b-main-4", 100)
		h.prune(t.Context(), time.Now())
		if got, want := h.tagged("r"), []string{"b-fix-1", "b-main-2", "b-main-4", "latest", "v2"}; !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
		h.sound()
		h.stop(true)
	})
}

// What an index names and what refers to it stays and goes with it. What was pushed for an index that is yet to come stays.
func TestFamiliesStayTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := begin(t, t.TempDir(), Options{Unused: 10 * time.Hour, Untagged: 5 * time.Hour})
		one, two := upstreamtest.NewImage(t, "one", 100), upstreamtest.NewImage(t, "two", 100)
		one.Push(t, h, "r", "child")
		two.Push(t, h, "r", "child")
		index := h.index("r", "all", one, two)
		sig := h.referrer("r", "application/sig", index.Descriptor())
		family := []*oci.Manifest{one.Manifest, two.Manifest, index, sig}
		there := func() (n int) {
			for _, m := range family {
				if h.has("r", m.Digest.String()) {
					n++
				}
			}
			return n
		}
		if err := h.DeleteManifest(t.Context(), "r", oci.Reference{Tag: "child"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(9 * time.Hour)
		h.prune(t.Context(), time.Now())
		if there() != 4 {
			t.Errorf("%d of 4 are there, with the tag", there())
		}
		time.Sleep(2 * time.Hour)
		h.prune(t.Context(), time.Now())
		if there() != 0 || len(h.tagged("r")) != 0 {
			t.Errorf("%d of 4 are there, without the tag", there())
		}
		h.sound()
		h.stop(true)
	})
}

// Uses survive a stop in order, so that nothing looks older than it is.
func TestUsesAreWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := begin(t, t.TempDir(), Options{Unused: 10 * time.Hour, Untagged: time.Hour})
		h.push("r", "v1", 100)
		time.Sleep(9 * time.Hour)
		if _, err := h.Manifest(t.Context(), "r", oci.Reference{Tag: "v1"}, nil); err != nil {
			t.Fatal(err)
		}
		h = h.again(false)
		time.Sleep(2 * time.Hour)
		h.prune(t.Context(), time.Now())
		if !h.has("r", "v1") {
			t.Error("a tag that was used two hours ago is gone")
		}
		h.stop(true)
	})
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

// Many clients push, pull, delete and prune at once: nobody is told that something is there which is not, and the account is right.
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
					if _, err := h.StatBlob(t.Context(), repo, digest.FromBytes(p)); err != nil {
						t.Error(err)
					}
				}
				if n%4 == 3 {
					if err := h.DeleteManifest(t.Context(), repo, oci.Reference{Tag: tag}); err != nil && !oci.NotFound(err) {
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

// FuzzFileOf: whatever a name looks like, its file lies in the directory, is no other repository's, and leads back to it.
func FuzzFileOf(f *testing.F) {
	for _, s := range []string{"a", "a/b", "../a", "a/../b", "/a", "a//b", "a/" + fileName, fileName, ".", "a/.", "a\\b", "a\x00", strings.Repeat("a", 300), "a/_x", "A"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		file, err := fileOf(name)
		if err != nil {
			if oci.CheckRepo(name) == nil {
				t.Fatalf("%q is a good name: %v", name, err)
			}
			return
		}
		if !filepath.IsLocal(file) || strings.Contains(file, "..") {
			t.Fatalf("%q lies at %q", name, file)
		}
		if back, ok := repoOf(file); !ok || back != name {
			t.Fatalf("%q leads to %q and back to %q", name, file, back)
		}
	})
}

// FuzzDecode: no file makes dray fail, and what is read writes the same again.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"version":1,"name":"r","manifests":{"sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08":{"mediaType":"a/b","size":1,"pushed":"2026-01-02T03:04:05Z","used":5}},"tags":{"v1":{"digest":"sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","pushed":"2026-01-02T03:04:05Z"}}}`))
	f.Add([]byte(`{"version":1,"name":"r","tags":{"../x":{}}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		st, err := decode("r", text)
		if err != nil {
			return
		}
		once, err := st.encode("r")
		if err != nil {
			t.Skip() // a year that JSON cannot hold
		}
		back, err := decode("r", once)
		if err != nil {
			t.Fatalf("%s: %v", once, err)
		}
		if twice, err := back.encode("r"); err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%s\nbecame\n%s", once, twice)
		}
	})
}
