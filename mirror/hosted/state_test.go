package hosted

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/cache"
	"dray/cache/disk"
	"dray/upstream"
	"dray/upstream/oci"
	"dray/upstream/upstreamtest"
)

// Acknowledged content is there after a kill, and after a regular stop, with nothing but the two
// directories.
func TestSurvivesKill(t *testing.T) {
	h := begin(t, t.TempDir(), Options{})
	one, two := h.push("team/app", "v1", 5000), h.push("team", "v2", 6000)
	for _, kill := range []bool{true, false} {
		h = h.again(kill)
		h.sound()
		for repo, img := range map[string]upstreamtest.Image{"team/app": one, "team": two} {
			m, err := h.Manifest(t.Context(), upstream.Repo{Name: repo}, oci.Reference{Digest: img.Manifest.Digest}, nil)
			if err != nil || !bytes.Equal(m.Raw, img.Manifest.Raw) || m.MediaType != img.Manifest.MediaType {
				t.Fatalf("%s after kill %v: %v", repo, kill, err)
			}
			for _, p := range [][]byte{img.Layer, img.Config} {
				if size, err := h.StatBlob(t.Context(), upstream.Repo{Name: repo}, digest.FromBytes(p)); err != nil || size != int64(len(p)) {
					t.Errorf("%s after kill %v: blob of %d bytes: %d, %v", repo, kill, len(p), size, err)
				}
			}
		}
		if tags := h.tagged("team/app"); !slices.Equal(tags, []string{"v1"}) {
			t.Errorf("tags %v", tags)
		}
	}
}

// A push whose bytes or whose file cannot be made durable is not acknowledged and leaves what was
// there before.
func TestBrokenDisk(t *testing.T) {
	h := begin(t, t.TempDir(), Options{})
	first := h.push("team/app", "v1", 1000)
	next := upstreamtest.NewImage(t, "next", 2000)
	for _, step := range []disk.Op{disk.OpSync, disk.OpCreate, disk.OpWrite, disk.OpPublish} {
		h.broken.Store(step)
		err := h.PutBlob(t.Context(), upstream.Repo{Name: "team/app"}, upstreamtest.Upload(upstreamtest.NewImage(t, string(step), 1000).Layer))
		if e := oci.AsError(err); err == nil || e.Status != 503 {
			t.Errorf("PutBlob without %s: %v", step, err)
		}
		h.broken.Store(disk.Op(""))
	}
	next.Push(t, h, "team/app", "v2")
	third := upstreamtest.NewImage(t, "third", 3000)
	for _, p := range [][]byte{third.Layer, third.Config} {
		if err := h.PutBlob(t.Context(), upstream.Repo{Name: "team/app"}, upstreamtest.Upload(p)); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []disk.Op{disk.OpSync, disk.OpCreate} {
		h.broken.Store(step)
		if _, err := h.PutManifest(t.Context(), upstream.Repo{Name: "team/app"}, oci.Reference{Tag: "v1"}, third.Manifest); err == nil || oci.AsError(err).Status != 503 {
			t.Errorf("PutManifest without %s: %v", step, err)
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
	if _, err := h.PutManifest(t.Context(), upstream.Repo{Name: "team/app"}, oci.Reference{Tag: "v1"}, third.Manifest); oci.AsError(err).Status != 503 {
		t.Errorf("PutManifest without a file: %v", err)
	}
	if err := os.Remove(filepath.Join(h.dir, "hosted/team/app", tempName)); err != nil {
		t.Fatal(err)
	}
	h.sound()
	for range 2 {
		m, err := h.Manifest(t.Context(), upstream.Repo{Name: "team/app"}, oci.Reference{Tag: "v1"}, nil)
		if err != nil || m.Digest != first.Manifest.Digest {
			t.Errorf("the tag is %v, %v", m, err)
		}
		h = h.again(true)
		h.sound()
	}
}

// Unreadable files in the directory are renamed; the rest is served.
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
	if got := slices.Sorted(maps.Keys(h.contents.repos)); !slices.Equal(got, []string{"good", "lost"}) {
		t.Errorf("repositories %v", got)
	}
	if h.has("lost", "v1") || !h.has("good", "v1") {
		t.Error("a manifest whose bytes are gone is there, or a sound one is not")
	}
	for _, repo := range []string{"torn", "lost"} { // a push mends it
		img := h.push(repo, "v1", 1000)
		if _, err := h.Manifest(t.Context(), upstream.Repo{Name: repo}, oci.Reference{Digest: img.Manifest.Digest}, nil); err != nil {
			t.Error(err)
		}
	}
	h.again(true).sound()
}

// TestDiskFails has a disk that fails for a while. The failure is no loss: a Store does not open
// without the content, an open one does not say that the content is unknown, and a backup fails.
func TestDiskFails(t *testing.T) {
	h := begin(t, t.TempDir(), Options{})
	h.push("team/app", "v1", 1000)
	h.stop(true)
	for op, failure := range map[disk.Op]error{disk.OpOpen: syscall.EMFILE, disk.OpRead: syscall.EIO} {
		broken := true
		d, err := disk.Open(disk.Options{Path: filepath.Join(h.dir, "content"), Fault: func(at disk.Op, _ string) error {
			if broken && at == op {
				return failure
			}
			return nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		o := h.opts
		o.Cache = cache.New(cache.Options{Disk: d, MemoryBytes: 1}) // keeps nothing in memory
		if _, err := Open(t.Context(), o); !errors.Is(err, failure) {
			t.Errorf("Open while %s fails: %v", op, err)
		}
		broken = false
		s, err := Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		for _, broken = range []bool{true, false} {
			_, err := s.Manifest(t.Context(), upstream.Repo{Name: "team/app"}, oci.Reference{Tag: "v1"}, nil)
			if broken && oci.AsError(err).Status != 503 || !broken && err != nil {
				t.Errorf("Manifest, %s fails: %t: %v", op, broken, err)
			}
		}
		o.Cache.Close()
		if err := errors.Join(s.Close(), d.Close()); err != nil {
			t.Error(err)
		}
	}
	err := Needs(h.opts.Directory, func(digest.Digest) ([]byte, error) { return nil, syscall.EIO }, func(digest.Digest) {})
	if !errors.Is(err, syscall.EIO) {
		t.Errorf("Needs: %v", err)
	}
}

// TestNeedsMeanwhile has repositories erased while the files are read, as by a process that has the
// Store open. Needs finds those that are left.
func TestNeedsMeanwhile(t *testing.T) {
	h := begin(t, t.TempDir(), Options{})
	for _, repo := range []string{"a", "a/child", "b/deep/er", "c"} {
		h.push(repo, "v1", 1000)
	}
	h.stop(false)
	directory := filepath.Join(h.dir, "hosted")
	root, err := os.OpenRoot(directory)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	needed := map[digest.Digest]bool{}
	err = Needs(directory, func(digest.Digest) ([]byte, error) { return nil, fs.ErrNotExist }, func(d digest.Digest) {
		needed[d] = true
		for _, repo := range []string{"a/child", "b/deep/er"} {
			if err := (files{root}).erase(repo); err != nil {
				t.Error(err)
			}
		}
	})
	if err != nil || len(needed) != 2 {
		t.Errorf("%d manifests, %v; want those of a and c", len(needed), err)
	}
	if n, err := Repositories(directory); n != 2 || err != nil {
		t.Errorf("%d repositories, %v", n, err)
	}
}

// A blob whose bytes are gone is "not found", so that clients push it, and that mends it.
func TestLostBlobHeals(t *testing.T) {
	h := begin(t, t.TempDir(), Options{})
	img := h.push("team/app", "v1", 5000)
	layer := digest.FromBytes(img.Layer)
	if err := h.cache.Delete(t.Context(), layer); err != nil {
		t.Fatal(err)
	}
	if _, err := h.StatBlob(t.Context(), upstream.Repo{Name: "team/app"}, layer); !errors.Is(err, oci.ErrBlobUnknown) {
		t.Errorf("StatBlob: %v", err)
	}
	if _, err := h.Blob(t.Context(), upstream.BlobRequest{Repo: upstream.Repo{Name: "team/app"}, Digest: layer}); !errors.Is(err, oci.ErrBlobUnknown) {
		t.Errorf("Blob: %v", err)
	}
	if _, err := h.PutManifest(t.Context(), upstream.Repo{Name: "team/app"}, oci.Reference{Tag: "v2"}, img.Manifest); !errors.Is(err, oci.ErrManifestBlobUnknown) {
		t.Errorf("PutManifest: %v", err)
	}
	img.Push(t, h, "team/app", "v1")
	if _, err := h.StatBlob(t.Context(), upstream.Repo{Name: "team/app"}, layer); err != nil {
		t.Errorf("after the push: %v", err)
	}
	h.again(true).sound()
}

// FuzzFileOf: whatever a name looks like, its file lies in the directory, is no other repository's,
// and leads back to it.
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

// A foreign layer that was pushed as well is kept with its image, also after a kill and past Grace.
// One that was not is not missed, and joins when the image is pushed again after it.
func TestForeignLayers(t *testing.T) {
	h := begin(t, t.TempDir(), Options{Grace: time.Millisecond})
	img := upstreamtest.NewImage(t, "x", 1000)
	foreign := []byte("foreign")
	d := digest.FromBytes(foreign)
	layer := fmt.Sprintf(`"layers":[{"mediaType":"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip","digest":%q,"size":%d},`, d, len(foreign))
	man, err := oci.ParseManifest(img.Manifest.MediaType, bytes.Replace(img.Manifest.Raw, []byte(`"layers":[`), []byte(layer), 1))
	if err != nil || bytes.Equal(man.Raw, img.Manifest.Raw) {
		t.Fatal("no foreign layer", err)
	}
	img.Push(t, h.Store, "win/app", "plain")
	put := func() {
		t.Helper()
		if _, err := h.PutManifest(t.Context(), upstream.Repo{Name: "win/app"}, oci.Reference{Tag: "v1"}, man); err != nil {
			t.Fatal(err)
		}
		h.sound()
	}
	put()
	if _, err := h.StatBlob(t.Context(), upstream.Repo{Name: "win/app"}, d); !oci.NotFound(err) {
		t.Errorf("a layer that nobody sent: %v", err)
	}
	if err := h.PutBlob(t.Context(), upstream.Repo{Name: "win/app"}, upstreamtest.Upload(foreign)); err != nil {
		t.Fatal(err)
	}
	put()
	for range 2 {
		time.Sleep(2 * time.Millisecond)
		h.prune(t.Context(), time.Now())
		if n, err := h.StatBlob(t.Context(), upstream.Repo{Name: "win/app"}, d); err != nil || n != int64(len(foreign)) {
			t.Errorf("the foreign layer: %d bytes, %v", n, err)
		}
		h.sound()
		h = h.again(true)
	}
	if err := h.DeleteManifest(t.Context(), upstream.Repo{Name: "win/app"}, oci.Reference{Digest: man.Digest}); err != nil {
		t.Fatal(err)
	}
	h.sound()
}
