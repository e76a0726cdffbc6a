package local

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"dray/upstream/oci"
)

// entries are a tar file of names and contents; a content that begins with "->" is a symbolic link.
func entries(t testing.TB, pairs ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(pairs); i += 2 {
		h := &tar.Header{Name: pairs[i], Mode: 0o644, Typeflag: tar.TypeReg, Size: int64(len(pairs[i+1]))}
		to, link := strings.CutPrefix(pairs[i+1], "->")
		if link {
			h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, to, 0
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if !link {
			_, _ = io.WriteString(w, pairs[i+1])
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func archive(t testing.TB, raw []byte) (*Files, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.tar")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return OpenArchive(path)
}

const config = `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`

// In the old format of docker save, a layer that occurs twice is a link.
func TestSavedByDocker(t *testing.T) {
	f, err := archive(t, entries(t, "c.json", config, "aa/layer.tar", "first layer", "bb/layer.tar", "->../aa/layer.tar",
		"manifest.json", `[{"Config":"c.json","RepoTags":["app:1"],"Layers":["aa/layer.tar","bb/layer.tar"]}]`))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := f.Root(t.Context(), "")
	if err != nil || len(m.Layers) != 2 || m.Layers[0].Digest != m.Layers[1].Digest || m.Config.Digest != digest.FromString(config) {
		t.Fatalf("%+v, %v", m, err)
	}
	r, err := Contents{Blobs: f}.Open(t.Context(), m.Layers[1])
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if raw, err := io.ReadAll(r); err != nil || string(raw) != "first layer" {
		t.Errorf("%q, %v", raw, err)
	}
}

func TestArchivesThatAreNone(t *testing.T) {
	for name, raw := range map[string][]byte{
		"nothing":        nil,
		"no tar":         []byte("hello, this is a text of some length and no archive at all"),
		"another tar":    entries(t, "etc/passwd", "root"),
		"no layer":       entries(t, "c.json", config, "manifest.json", `[{"Config":"c.json","Layers":["x/layer.tar"]}]`),
		"two images":     entries(t, "c.json", config, "manifest.json", `[{"Config":"c.json"},{"Config":"c.json"}]`),
		"a link outside": entries(t, "c.json", "->/etc/passwd", "manifest.json", `[{"Config":"c.json"}]`),
		"no JSON":        entries(t, "manifest.json", `[`),
	} {
		f, err := archive(t, raw)
		if err == nil {
			_, err = f.Root(t.Context(), "")
			f.Close()
		}
		if err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// One of several images is selected by its tag or its whole name, in all formats. Without a name,
// there must be only one. An error lists the names.
func TestSelectedImage(t *testing.T) {
	manifest := func(layer string) string {
		return fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},`+
			`"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}]}`, digest.FromString(config), len(config), digest.FromString(layer), len(layer))
	}
	blob := func(text string) []string { return []string{"blobs/sha256/" + digest.FromString(text).Encoded(), text} }
	one, two := manifest("one"), manifest("two")
	described := func(raw, whole, tag string) string {
		return fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":%q,"size":%d,"annotations":{"io.containerd.image.name":%q,"org.opencontainers.image.ref.name":%q}}`,
			digest.FromString(raw), len(raw), whole, tag)
	}
	index := fmt.Sprintf(`{"schemaVersion":2,"manifests":[%s,%s]}`, described(one, "docker.io/team/a:1", "1"), described(two, "docker.io/team/b:2", "2"))
	for format, raw := range map[string][]byte{
		"old": entries(t, "c.json", config, "1/layer.tar", "one", "2/layer.tar", "two",
			"manifest.json", `[{"Config":"c.json","RepoTags":["team/a:1","team/a:latest"],"Layers":["1/layer.tar"]},{"Config":"c.json","RepoTags":["team/b:2"],"Layers":["2/layer.tar"]}]`),
		"OCI": entries(t, slices.Concat([]string{"oci-layout", `{"imageLayoutVersion":"1.0.0"}`, "index.json", index}, blob(config), blob("one"), blob("two"), blob(one), blob(two))...),
	} {
		f, err := archive(t, raw)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for name, layer := range map[string]string{"1": "one", "team/a:1": "one", "a:1": "one", "2": "two", "team/b:2": "two"} {
			m, err := f.Root(t.Context(), name)
			if err != nil || len(m.Layers) != 1 || m.Layers[0].Digest != digest.FromString(layer) {
				t.Fatalf("%s, %s: %+v, %v", format, name, m, err)
			}
			r, err := f.Open(t.Context(), m.Layers[0])
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(r); err != nil || string(got) != layer {
				t.Errorf("%s, %s: %q, %v", format, name, got, err)
			}
			r.Close()
		}
		for _, name := range []string{"", "3", "team/a", "team/a:2", "eam/a:1"} {
			if m, err := f.Root(t.Context(), name); err == nil || !strings.Contains(err.Error(), "team/a:1") || !strings.Contains(err.Error(), "team/b:2") {
				t.Errorf("%s, %q: %+v, %v", format, name, m, err)
			}
		}
	}
}

// forged returns other bytes than those of the digest.
type forged struct{ Files }

func (forged) Open(context.Context, oci.Descriptor) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader("something else")), nil
}

func TestBytesAreVerified(t *testing.T) {
	r, err := Contents{Blobs: &forged{}}.Open(t.Context(), oci.Descriptor{Digest: digest.FromString("this")})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.ReadAll(r); err == nil {
		t.Error("forged bytes came to their end")
	}
	if _, err := (Contents{Blobs: &forged{}}).Open(t.Context(), oci.Descriptor{Digest: "../../etc/passwd"}); err == nil {
		t.Error("no digest, no error")
	}
}

func TestLayoutIsHeldToItsDigests(t *testing.T) {
	dir := t.TempDir()
	raw := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`
	d := digest.FromString("another")
	for name, text := range map[string]string{
		"index.json": fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`, oci.MediaTypeOCIIndex, d, len(raw)),
		"oci-layout": `{"imageLayoutVersion":"1.0.0"}`, "blobs/sha256/" + d.Encoded(): raw,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f, err := OpenLayout(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if m, err := f.Root(t.Context(), ""); err == nil {
		t.Errorf("forged manifest %s", m.Raw)
	}
	if _, err := OpenLayout(t.TempDir()); err == nil {
		t.Error("an empty directory is a layout")
	}
}

func FuzzArchive(f *testing.F) {
	f.Add(entries(f, "c.json", config, "l.tar", "x", "manifest.json", `[{"Config":"c.json","Layers":["l.tar"]}]`))
	f.Add(entries(f, "index.json", `{"manifests":[{"digest":"sha256:aa"}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		files, err := archive(t, raw)
		if err != nil {
			return
		}
		defer files.Close()
		m, err := files.Root(t.Context(), "")
		if err != nil {
			return
		}
		for _, l := range m.Layers {
			if r, err := (Contents{Blobs: files}).Open(t.Context(), l); err == nil {
				_, _ = io.Copy(io.Discard, r)
				r.Close()
			}
		}
	})
}

// A link may lead to a link. Links that lead to each other lead nowhere.
func TestLinksToLinks(t *testing.T) {
	for range 10 { // a map gives the links in random order
		f, err := archive(t, entries(t, "c.json", config, "a", "->b", "b", "->c", "c", "->d", "d", "text", "x", "->y", "y", "->x", "l", "->d", "l", "later", "m", "former", "m", "->l", "n", "->m",
			"manifest.json", `[{"Config":"c.json","RepoTags":["app:1"]}]`))
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{"a": "text", "b": "text", "c": "text", "l": "later", "m": "later", "n": "later"} {
			if raw, err := f.document(name); err != nil || string(raw) != want {
				t.Errorf("%s: %q, %v; want %q", name, raw, err, want)
			}
		}
		if _, err := f.document("x"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a loop of links: %v", err)
		}
		f.Close()
	}
}

// All entries of an archive count, whatever their names and types are.
func TestEntriesAreBounded(t *testing.T) {
	var one bytes.Buffer
	w := tar.NewWriter(&one)
	for _, typ := range []byte{tar.TypeReg, tar.TypeDir} {
		if err := w.WriteHeader(&tar.Header{Name: "x", Typeflag: typ, Mode: 0o755}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := archive(t, bytes.Repeat(one.Bytes(), maxEntries/2+1)); err == nil || !strings.Contains(err.Error(), "more than 100000 entries") {
		t.Error(err)
	}
}
