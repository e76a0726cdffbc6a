package scanner

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/opencontainers/go-digest"

	"dray/mirror/pipeline"
	"dray/upstream/oci"
)

// contents are blobs by digest.
type contents map[digest.Digest][]byte

func (c contents) Manifest(context.Context, oci.Descriptor) (*oci.Manifest, error) {
	return nil, errors.New("not asked for")
}

func (c contents) Scanned(context.Context, oci.Descriptor) (*pipeline.Scanned, error) {
	return nil, nil
}

func (c contents) Open(_ context.Context, d oci.Descriptor) (io.ReadCloser, error) {
	raw, ok := c[d.Digest]
	if !ok {
		return nil, oci.ErrBlobUnknown
	}
	return io.NopCloser(bytes.NewReader(raw)), nil
}

func (c contents) add(raw string) digest.Digest {
	d := digest.FromString(raw)
	c[d] = []byte(raw)
	return d
}

// image has one layer, and the same layer again.
func image(t *testing.T) *pipeline.Image {
	t.Helper()
	c := contents{}
	// An empty tar, gzipped once for all.
	layer := "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff\x62\x18\x05\xa3\x60\x14\x8c\x58\x00\x08\x00\x00\xff\xff\x2e\xaf\xb5\xef\x00\x04\x00\x00"
	ld := c.add(layer)
	const diff = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
	config := fmt.Sprintf(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["%s","%s"]}}`, diff, diff)
	cd := c.add(config)
	one := fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"%s","size":%d}`, ld, len(layer))
	raw := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"%s","size":%d},"layers":[%s,%s]}`, cd, len(config), one, one)
	view := &pipeline.LayerView{Digest: ld, Size: int64(len(layer)), MediaType: "application/vnd.oci.image.layer.v1.tar+gzip"}
	return &pipeline.Image{
		Repository: "team/app", Tag: "1", Digest: digest.FromString(raw), Contents: c,
		Manifests: []*pipeline.Manifest{{
			Kind: pipeline.KindImage, Digest: digest.FromString(raw), MediaType: "application/vnd.oci.image.manifest.v1+json", Size: int64(len(raw)), Raw: []byte(raw),
			Config: &pipeline.Config{Digest: cd, Size: int64(len(config))}, Layers: []*pipeline.LayerView{view, view, {Digest: digest.FromString("elsewhere"), Foreign: true}},
		}},
	}
}

func TestMain(m *testing.M) {
	if code, was := Supervise(os.Args); was {
		os.Exit(code)
	}
	HideProcess() // as dray does
	os.Exit(m.Run())
}

// public is a directory of the test that every user may enter.
func public(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(filepath.Dir(dir), 0o755)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func check(t *testing.T, c Config) ([]pipeline.Finding, error) {
	t.Helper()
	c.Directory = public(t)
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	found, err := s.CheckImage(t.Context(), image(t))
	if left, _ := os.ReadDir(c.Directory); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	return found, err
}

func script(text string, args ...string) []string {
	return append([]string{"sh", "-c", text, "sh"}, args...)
}

// An independent library reads the whole image.
func TestLayout(t *testing.T) {
	dir, img := t.TempDir(), image(t)
	if err := writeLayout(t.Context(), dir, img, 1<<20); err != nil {
		t.Fatal(err)
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index); err != nil {
		t.Error(err)
	}
	m, err := index.IndexManifest()
	if err != nil || len(m.Manifests) != 1 || m.Manifests[0].Digest.String() != img.Digest.String() || m.Manifests[0].Annotations["org.opencontainers.image.ref.name"] != "1" {
		t.Errorf("index %+v, %v", m, err)
	}
	if err := writeLayout(t.Context(), t.TempDir(), img, 100); err == nil || !strings.Contains(err.Error(), "max_image") {
		t.Errorf("an image that is too large: %v", err)
	}
}

func TestVerdicts(t *testing.T) {
	for name, c := range map[string]struct {
		config Config
		rule   string // of the one finding
		what   string // in it, or in the error
		fails  bool
	}{
		"nothing against it":     {config: Config{Command: script(`test -f "$1/index.json" && test -f "$1/oci-layout"`, "{layout}")}},
		"text":                   {config: Config{Command: script(`echo CVE-1 in libfoo; exit 1`)}, rule: "refused", what: "CVE-1 in libfoo"},
		"text to the other side": {config: Config{Command: script(`echo CVE-1 >&2; exit 1`)}, rule: "refused", what: "CVE-1"},
		"JSON":                   {config: Config{Command: script(`echo '{"findings":[{"rule":"cve","message":"CVE-1","path":"usr/lib/libfoo","fix":"update"}]}'; exit 1`)}, rule: "cve", what: "CVE-1"},
		"another code":           {config: Config{Command: script(`exit 10`), Refuses: 10}, rule: "refused", what: "no reason"},
		"no result":              {config: Config{Command: script(`echo database is missing >&2; exit 2`)}, fails: true, what: "database is missing"},
		"killed":                 {config: Config{Command: script(`kill -9 $$`)}, fails: true, what: "killed"},
		"too slow":               {config: Config{Command: script(`sleep 60 & wait`), Timeout: 200 * time.Millisecond}, fails: true, what: "no answer within"},
		"too large":              {config: Config{Command: script(`true`), MaxImageBytes: 10}, fails: true, what: "max_image"},
		"arguments as they are":  {config: Config{Command: script(`test "$1" = 'team/app:1; $(touch x)'`, "{repository}:{tag}; $(touch x)")}},
		"too much to say":        {config: Config{Command: script(`head -c 5000000 /dev/zero | tr '\0' y; exit 1`)}, rule: "refused", what: "yyy"},
	} {
		t.Run(name, func(t *testing.T) {
			found, err := check(t, c.config)
			switch {
			case c.fails:
				if err == nil || !strings.Contains(err.Error(), c.what) {
					t.Errorf("%+v, %v; want an error with %q", found, err, c.what)
				}
			case err != nil:
				t.Error(err)
			case c.rule == "":
				if len(found) > 0 {
					t.Errorf("found %+v", found)
				}
			case len(found) != 1 || found[0].Rule != c.rule || !strings.Contains(found[0].What, c.what):
				t.Errorf("found %+v", found)
			}
		})
	}
}

// The program gets no credentials of this process and no more than its limits.
func TestSurroundings(t *testing.T) {
	t.Setenv("AWS_SECRET_ACCESS_KEY", "not for scanners")
	found, err := check(t, Config{
		Command:     script(`! env | grep AWS_ && test "$CACHE" = /var/cache/scanner && test "$(ulimit -c)" = 0 && test "$HOME" = "$(pwd)" && touch "$TMPDIR/x"`),
		Environment: func() []string { return []string{"CACHE=/var/cache/scanner"} },
	})
	if err != nil || len(found) > 0 {
		t.Errorf("%+v, %v", found, err)
	}
	if out, err := check(t, Config{Command: script(`ulimit -v; exit 1`), MemoryBytes: 64 << 20}); err != nil || out[0].What != "65536" {
		t.Errorf("memory: %+v, %v", out, err)
	}
	want := strconv.Itoa(21 * runtime.NumCPU()) // all threads of the program may be busy until the timeout
	if out, err := check(t, Config{Command: script(`ulimit -t; exit 1`), Timeout: 20 * time.Second}); err != nil || out[0].What != want {
		t.Errorf("processor time: %+v, %v", out, err)
	}
}

// TestRelative: relative names are below the working directory of dray, although the program runs
// in another one.
func TestRelative(t *testing.T) {
	dir := public(t)
	t.Chdir(dir)
	if err := os.WriteFile("scan", []byte("#!/bin/sh\ntest \"$1\" = team/app\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod("scan", 0o755); err != nil { // whatever the umask is
		t.Fatal(err)
	}
	for _, name := range []string{"./scan", filepath.Join("..", filepath.Base(dir), "scan"), filepath.Join(dir, "scan")} {
		command := []string{name, "{repository}"}
		found, err := check(t, Config{Command: command})
		if err != nil || len(found) > 0 {
			t.Errorf("%s: %+v, %v", command, found, err)
		}
	}
	s, err := New(Config{Command: script(`test -f "$1/index.json" && test -d "$HOME"`, "{layout}"), Directory: "."})
	if err != nil {
		t.Fatal(err)
	}
	if found, err := s.CheckImage(t.Context(), image(t)); err != nil || len(found) > 0 {
		t.Errorf("in a relative directory: %+v, %v", found, err)
	}
}

// A report shows the revision to clients, so it depends on no argument and no variable.
func TestRevisionHasNoSecrets(t *testing.T) {
	revision := func(c Config) string {
		s, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		return s.Revision()
	}
	plain := revision(Config{Command: []string{"/bin/sh"}})
	if got := revision(Config{Command: []string{"/bin/sh", "--token", "x"}, Environment: func() []string { return []string{"TOKEN=x"} }}); got != plain {
		t.Error("a secret is part of the revision")
	}
	if revision(Config{Command: []string{"/bin/sh"}, Refuses: 2}) == plain || revision(Config{Command: []string{"/bin/true"}}) == plain {
		t.Error("different programs have the same revision")
	}
}

// As root, a program runs as a user without rights, or as the configured one, whatever the umask
// is.
func TestAnotherUser(t *testing.T) {
	c := Config{Command: script(`id -u; id -g; id -G; test -r "$1/index.json" && cat "$1"/blobs/sha256/* >/dev/null && touch here && ! touch "$1/there" 2>/dev/null; echo $?; exit 1`, "{layout}")}
	if os.Geteuid() != 0 {
		c.UID = os.Geteuid() + 1
		if _, err := New(c); err == nil {
			t.Error("another user without being root")
		}
		return
	}
	defer syscall.Umask(syscall.Umask(0o077))
	for _, ids := range [][2]int{{0, 0}, {1234, 0}, {1234, 5678}} {
		c.UID, c.GID = ids[0], ids[1]
		uid, gid := cmp.Or(c.UID, Nobody), cmp.Or(c.GID, Nobody)
		found, err := check(t, c)
		if err != nil || len(found) != 1 || found[0].What != fmt.Sprintf("%d\n%d\n%[2]d\n0", uid, gid) {
			t.Errorf("%v: %+v, %v", ids, found, err)
		}
	}
	closed := filepath.Join(public(t), "closed")
	if err := errors.Join(os.MkdirAll(filepath.Join(closed, "images"), 0o755), os.Chmod(filepath.Join(closed, "images"), 0o755)); err != nil {
		t.Fatal(err)
	}
	c.Directory = filepath.Join(closed, "images")
	for mode, fits := range map[os.FileMode]bool{0o700: false, 0o710: false, 0o711: true} {
		if err := os.Chmod(closed, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := New(c); (err == nil) != fits || err != nil && !strings.Contains(err.Error(), closed) {
			t.Errorf("below a directory with %o: %v", mode, err)
		}
		c := Config{Command: c.Command}
		t.Setenv("TMPDIR", filepath.Join(closed, "images"))
		if s, err := New(c); err != nil || (s.config.Directory == os.Getenv("TMPDIR")) != fits {
			t.Errorf("with TMPDIR below a directory with %o: %+v, %v", mode, s, err)
		}
	}
}

func TestBadConfiguration(t *testing.T) {
	for _, c := range []Config{{}, {Command: []string{"/no/such/program"}}} {
		if _, err := New(c); err == nil {
			t.Errorf("%+v is taken", c)
		}
	}
}
