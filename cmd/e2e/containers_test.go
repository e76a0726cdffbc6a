package e2e

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/types"

	"dray/upstream/ecrtest"
)

// mirrored are the kinds of requests that a pull of something dray holds must not cause, where its
// tag is fresh.
var mirrored = []ecrtest.Kind{ecrtest.KindManifestGet, ecrtest.KindManifestHead, ecrtest.KindBlobGet, ecrtest.KindBlobHead, ecrtest.KindObjectGet}

// uploads are the kinds of requests that a push of something ECR holds must not cause.
var uploads = []ecrtest.Kind{ecrtest.KindUploadStart, ecrtest.KindUploadPatch, ecrtest.KindUploadPut, ecrtest.KindMount,
	"InitiateLayerUpload", "UploadLayerPart", "CompleteLayerUpload"}

// newContainersMachine is a machine with the configuration that Podman, Skopeo and their relatives
// share.
func newContainersMachine(t testing.TB, s *stack) *machine {
	t.Helper()
	m := newMachine(t, s)
	m.setup(t, "podman", "")
	return m
}

func TestSkopeo(t *testing.T) {
	s := newStack(t, stackOptions{})
	m := newContainersMachine(t, s)
	skopeo := []string{need(t, "skopeo"), "--insecure-policy"}
	version := firstLine(m.run(t, skopeo[0], "--version"))
	copies := func(t *testing.T, args ...string) { t.Helper(); m.run(t, append(append(skopeo, "copy"), args...)...) }
	const creds = pusher + ":" + password

	img := busybox(t, types.DockerManifestSchema2)
	s.hub.push(t, "library/busybox:1", img)
	s.hub.pushIndex(t, "library/multi:1", multiArch(t, types.DockerManifestList))

	row(t, "Skopeo", version, "copy from Docker Hub through the mirror", func(t *testing.T) {
		dir := filepath.Join(m.dir, "pulled")
		copies(t, "docker://docker.io/library/busybox:1", "dir:"+dir)
		manifest := read(t, filepath.Join(dir, "manifest.json"))
		if want, _ := img.RawManifest(); string(manifest) != string(want) {
			t.Errorf("copied the manifest\n%s\nwant\n%s", manifest, want)
		}
	})
	row(t, "Skopeo", version, "copy again: nothing is asked upstream", func(t *testing.T) {
		asked := s.hub.asked()
		copies(t, "docker://docker.io/library/busybox:1", "dir:"+filepath.Join(m.dir, "again"))
		asked.none(t, mirrored...)
	})
	row(t, "Skopeo", version, "copy all platforms of an image", func(t *testing.T) {
		copies(t, "--all", "docker://docker.io/library/multi:1", "dir:"+filepath.Join(m.dir, "multi"))
		manifest := read(t, filepath.Join(m.dir, "multi", "manifest.json"))
		if want, _ := s.hub.Image("library/multi", "1"); string(manifest) != string(want.Raw) {
			t.Errorf("copied the index\n%s\nwant\n%s", manifest, want.Raw)
		}
	})
	for _, format := range []string{"v2s2", "oci"} {
		row(t, "Skopeo", version, "push in format "+format, func(t *testing.T) {
			ref := "skopeo/" + format + ":1"
			copies(t, "--format", format, "--dest-creds", creds, "dir:"+filepath.Join(m.dir, "pulled"), "docker://"+drayName+":5000/"+ref)
			s.sameBytes(t, ref)
			got, _ := s.ecr.Image("skopeo/"+format, "1")
			want := map[string]types.MediaType{"v2s2": types.DockerManifestSchema2, "oci": types.OCIManifestSchema1}[format]
			if got.MediaType != string(want) {
				t.Errorf("ECR has media type %s, want %s", got.MediaType, want)
			}
		})
	}
	row(t, "Skopeo", version, "push all platforms of an image", func(t *testing.T) {
		copies(t, "--all", "--dest-creds", creds, "dir:"+filepath.Join(m.dir, "multi"), "docker://"+drayName+":5000/skopeo/multi:1")
		if got, want := s.ecr.digest(t, "skopeo/multi:1"), s.hub.digest(t, "library/multi:1"); got != want {
			t.Errorf("ECR has %s, want %s", got, want)
		}
	})
	row(t, "Skopeo", version, "push again: no layer is uploaded", func(t *testing.T) {
		asked := s.ecr.asked()
		copies(t, "--all", "--dest-creds", creds, "dir:"+filepath.Join(m.dir, "multi"), "docker://"+drayName+":5000/skopeo/multi:1")
		asked.none(t, uploads...)
	})
	row(t, "Skopeo", version, "list tags", func(t *testing.T) {
		out := m.run(t, append(skopeo, "list-tags", "--creds", creds, "docker://"+drayName+":5000/skopeo/multi")...)
		if !strings.Contains(out, `"1"`) {
			t.Errorf("tags: %s", out)
		}
	})
}

// podmanCommand is what runs Podman with a store of its own.
func podmanCommand(t testing.TB, m *machine) []string {
	t.Helper()
	// vfs works on every file system; nothing is run, so no cgroup is needed.
	return []string{need(t, "podman"), "--root", filepath.Join(m.dir, "root"), "--runroot", filepath.Join(m.dir, "run"), "--storage-driver", "vfs",
		"--cgroup-manager", "cgroupfs", "--events-backend", "none"}
}

func TestPodman(t *testing.T) {
	s := newStack(t, stackOptions{})
	m := newContainersMachine(t, s)
	podman := podmanCommand(t, m)
	do := func(t *testing.T, args ...string) string { t.Helper(); return m.run(t, append(podman, args...)...) }
	version := m.run(t, podman[0], "--version")

	img := busybox(t, types.OCIManifestSchema1)
	s.hub.push(t, "library/busybox:1", img)
	const ref = drayName + ":5000/podman/app:1"
	row(t, "Podman", version, "pull through a mirror of registries.conf", func(t *testing.T) {
		do(t, "pull", "docker.io/library/busybox:1")
		if got, want := do(t, "image", "inspect", "--format", "{{.Digest}}", "docker.io/library/busybox:1"), digestOf(t, img); got != want {
			t.Errorf("pulled %s, want %s", got, want)
		}
	})
	row(t, "Podman", version, "push", func(t *testing.T) {
		do(t, "tag", "docker.io/library/busybox:1", ref)
		do(t, "push", "--creds", pusher+":"+password, ref)
		s.sameBytes(t, "podman/app:1")
	})
	row(t, "Podman", version, "pull what was pushed: nothing is read from ECR", func(t *testing.T) {
		do(t, "rmi", "--all", "--force")
		asked := s.ecr.asked()
		do(t, "pull", "--creds", pusher+":"+password, ref)
		asked.none(t, mirrored...)
		if got, want := do(t, "image", "inspect", "--format", "{{.Digest}}", ref), s.ecr.digest(t, "podman/app:1"); got != want {
			t.Errorf("pulled %s, want %s", got, want)
		}
	})
	row(t, "Podman", version, "pull again through the mirror: nothing is asked upstream", func(t *testing.T) {
		do(t, "rmi", "--all", "--force")
		asked := s.hub.asked()
		do(t, "pull", "docker.io/library/busybox:1")
		asked.none(t, mirrored...)
	})
}
