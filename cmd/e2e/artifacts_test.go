package e2e

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/types"
)

// TestRegctl is about a client that can be told to send layers in chunks of 1 MiB, which are too
// small for ECR.
func TestRegctl(t *testing.T) {
	s := newStack(t, stackOptions{byAddress: true})
	tool, dir := need(t, "regctl"), t.TempDir()
	_, version, _ := strings.Cut(filepath.Base(tool), "-")
	env := environment("HOME="+dir, "REGCTL_CONFIG="+filepath.Join(dir, "regctl.json"))
	do := func(t *testing.T, args ...string) string {
		t.Helper()
		return run(t, env, append([]string{tool}, args...)...)
	}
	registry := s.registryAddress()
	ca := read(t, s.certificate)
	do(t, "registry", "set", "--skip-check", "--cacert", string(ca), "--blob-chunk", "1048576", "--blob-max", "2097152", registry)
	do(t, "registry", "login", "--skip-check", "--user", pusher, "--pass", password, registry)
	s.ecr.push(t, "regctl/app:1", randomImage(t, types.OCIManifestSchema1, 1, 1000))

	row(t, "regctl", version, "push a layer in chunks that are too small for ECR", func(t *testing.T) {
		random := make([]byte, 7<<20)
		if _, err := rand.Read(random); err != nil {
			t.Fatal(err)
		}
		var layer bytes.Buffer
		w := tar.NewWriter(&layer)
		if err := w.WriteHeader(&tar.Header{Name: "random", Mode: 0o644, Size: int64(len(random))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(random); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, "layer.tar"), layer.Bytes())
		do(t, "image", "mod", registry+"/regctl/app:1", "--layer-add", "tar="+filepath.Join(dir, "layer.tar"), "--create", registry+"/regctl/app:2")
		s.sameBytes(t, "regctl/app:2")
	})
	row(t, "regctl", version, "recompress with zstd, push to another repository", func(t *testing.T) {
		do(t, "image", "mod", registry+"/regctl/app:2", "--layer-compress", "zstd", "--create", registry+"/regctl/zstd:2")
		s.sameBytes(t, "regctl/zstd:2")
	})
	row(t, "regctl", version, "copy to another repository", func(t *testing.T) {
		do(t, "image", "copy", registry+"/regctl/app:2", registry+"/regctl/copy:2")
		if got, want := s.ecr.digest(t, "regctl/copy:2"), s.ecr.digest(t, "regctl/app:2"); got != want {
			t.Errorf("ECR has %s, want %s", got, want)
		}
	})
}

// TestOras is about artifacts that are no images, and about those that refer to others.
func TestOras(t *testing.T) {
	s := newStack(t, stackOptions{byAddress: true})
	tool, dir := need(t, "oras"), t.TempDir()
	_, version, _ := strings.Cut(filepath.Base(tool), "-")
	write(t, filepath.Join(dir, "note.txt"), []byte("a note\n"))
	env := environment("HOME="+dir, "TMPDIR="+dir)
	access := []string{"--ca-file", s.certificate, "--username", pusher, "--password", password}
	do := func(t *testing.T, command string, args ...string) string {
		t.Helper()
		return run(t, env, append(append([]string{need(t, "env"), "--chdir", dir, tool, command}, access...), args...)...)
	}
	ref := s.registryAddress() + "/oras/note:1"

	row(t, "oras", version, "push a file", func(t *testing.T) {
		do(t, "push", ref, "note.txt:text/plain")
		s.ecr.digest(t, "oras/note:1")
	})
	row(t, "oras", version, "attach an artifact, and discover it", func(t *testing.T) {
		do(t, "attach", "--artifact-type", "application/vnd.example.sbom", ref, "note.txt")
		if out := do(t, "discover", ref); !strings.Contains(out, "application/vnd.example.sbom") {
			t.Errorf("discovered:\n%s", out)
		}
	})
	row(t, "oras", version, "pull the file", func(t *testing.T) {
		do(t, "pull", "--output", "pulled", ref)
		if got, err := os.ReadFile(filepath.Join(dir, "pulled/note.txt")); err != nil || string(got) != "a note\n" {
			t.Errorf("pulled %q, %v", got, err)
		}
	})
}
