package e2e

import (
	"archive/tar"
	"bytes"
	"cmp"
	"debug/elf"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// busybox is an image that runs: the static busybox of Debian and links to it.
func busybox(t testing.TB, format types.MediaType) v1.Image {
	t.Helper()
	binary := read(t, staticBusybox(t))
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	add := func(h tar.Header, content []byte) {
		h.Size, h.ModTime = int64(len(content)), time.Unix(1_700_000_000, 0)
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	add(tar.Header{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	add(tar.Header{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755}, binary)
	for _, applet := range []string{"cat", "echo", "ls", "sha256sum", "sh", "true"} {
		add(tar.Header{Name: "bin/" + applet, Typeflag: tar.TypeSymlink, Linkname: "busybox", Mode: 0o777}, nil)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return image(t, format, v1.Config{Cmd: []string{"/bin/sh"}, Env: []string{"PATH=/bin"}}, layer.Bytes())
}

// staticBusybox finds a busybox that needs no library.
func staticBusybox(t testing.TB) string {
	t.Helper()
	candidates := []string{filepath.Join(cacheDir(t), "bin", "busybox")}
	if path, err := exec.LookPath("busybox"); err == nil {
		candidates = append(candidates, path)
	}
	for _, path := range candidates {
		f, err := elf.Open(path)
		if err != nil {
			continue
		}
		dynamic := slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
		_ = f.Close()
		if !dynamic {
			return path
		}
	}
	lacking(t, "a static busybox is not installed; make install-test-tools does that")
	return ""
}

// image makes an image for this platform from uncompressed layers; format is the media type of its
// manifest.
func image(t testing.TB, format types.MediaType, config v1.Config, layers ...[]byte) v1.Image {
	t.Helper()
	layerType, configType := types.DockerLayer, types.DockerConfigJSON
	if format == types.OCIManifestSchema1 {
		layerType, configType = types.OCILayer, types.OCIConfigJSON
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, format), configType)
	for _, content := range layers {
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil },
			tarball.WithMediaType(layerType))
		if err != nil {
			t.Fatal(err)
		}
		if img, err = mutate.Append(img, mutate.Addendum{Layer: layer, MediaType: layerType}); err != nil {
			t.Fatal(err)
		}
	}
	file, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config = "linux", "amd64", config
	if img, err = mutate.ConfigFile(img, file); err != nil {
		t.Fatal(err)
	}
	return img
}

// randomImage makes an image of incompressible layers.
func randomImage(t testing.TB, format types.MediaType, layers int, size int64) v1.Image {
	t.Helper()
	layerType := types.DockerLayer
	if format == types.OCIManifestSchema1 {
		layerType = types.OCILayer
	}
	img := image(t, format, v1.Config{})
	for range layers {
		layer, err := random.Layer(size, layerType)
		if err != nil {
			t.Fatal(err)
		}
		if img, err = mutate.Append(img, mutate.Addendum{Layer: layer, MediaType: layerType}); err != nil {
			t.Fatal(err)
		}
	}
	return img
}

// multiArch makes an index of busybox for this platform and of images that only look like it for
// others.
func multiArch(t testing.TB, format types.MediaType) v1.ImageIndex {
	t.Helper()
	manifest := types.DockerManifestSchema2
	if format == types.OCIImageIndex {
		manifest = types.OCIManifestSchema1
	}
	return indexOf(t, format, busybox(t, manifest), randomImage(t, manifest, 2, 100_000), randomImage(t, manifest, 2, 100_000))
}

// indexOf makes an index of images, the first of them for this platform.
func indexOf(t testing.TB, format types.MediaType, images ...v1.Image) v1.ImageIndex {
	t.Helper()
	index := mutate.IndexMediaType(empty.Index, format)
	for i, img := range images {
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img,
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: []string{"amd64", "arm64", "s390x"}[i]}}})
	}
	return index
}

// saveImage puts an image into a file as docker save does.
func saveImage(t testing.TB, file, ref string, img v1.Image) {
	t.Helper()
	tag, err := name.NewTag(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := tarball.WriteToFile(file, tag, img); err != nil {
		t.Fatal(err)
	}
}

// debian is a tar file of a Debian system, made from the archive that this machine's own packages
// come from, and kept for later runs.
func debian(t testing.TB) string { return debootstrapped(t, "debian") }

// debootstrapped is debian with more packages, under a name of its own.
func debootstrapped(t testing.TB, name string, packages ...string) string {
	t.Helper()
	const suite = "bookworm"
	archive := filepath.Join(cacheDir(t), name+"-"+suite+".tar")
	if _, err := os.Stat(archive); err == nil {
		return archive
	}
	needRoot(t)
	debootstrap := need(t, "debootstrap")
	mirror := debianMirror(t)
	dir, err := os.MkdirTemp("", "dray-e2e-debian-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	env := environment("DEBIAN_FRONTEND=noninteractive", "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	args := []string{debootstrap, "--variant=minbase"}
	if len(packages) > 0 { // it refuses an empty list
		args = append(args, "--include="+strings.Join(packages, ","))
	}
	run(t, env, append(args, suite, filepath.Join(dir, "root"), mirror)...)
	made := archive + ".new"
	if err := os.MkdirAll(filepath.Dir(archive), 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, env, "tar", "--one-file-system", "-C", filepath.Join(dir, "root"), "-cf", made, ".")
	if err := os.Rename(made, archive); err != nil {
		t.Fatal(err)
	}
	return archive
}

// debianMirror asks apt where this machine's packages come from.
func debianMirror(t testing.TB) string {
	t.Helper()
	out := run(t, environment(), need(t, "apt-get"), "indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)", "Created-By: Packages")
	for line := range strings.Lines(out) {
		fields := strings.Split(strings.TrimSpace(line), "|")
		if len(fields) == 3 && fields[0] == "Debian" && fields[1] == "Debian" {
			return fields[2]
		}
	}
	lacking(t, "apt knows no Debian archive: "+cmp.Or(out, "apt-get update was never run"))
	return ""
}

func digestOf(t testing.TB, img interface{ Digest() (v1.Hash, error) }) string {
	t.Helper()
	d, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d.String()
}

// configOf is the digest of the configuration, which Docker calls the id of the image.
func configOf(t testing.TB, img v1.Image) string {
	t.Helper()
	d, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	return d.String()
}
