package e2e

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"dray/upstream/ecrtest"
)

// docker is a Docker daemon of its own, and the client that speaks to it.
type docker struct {
	*machine
	client  []string
	socket  string
	version string
	process *process
}

// startDocker starts a daemon: without a network for containers, unless it is given flags that say
// otherwise.
func startDocker(t *testing.T, m *machine, network ...string) *docker {
	t.Helper()
	if len(network) == 0 {
		network = []string{"--bridge=none", "--iptables=false", "--ip6tables=false"}
	}
	return startDockerd(t, m, need(t, "dockerd"), network...)
}

// startDockerd starts a daemon of a certain version.
func startDockerd(t *testing.T, m *machine, daemon string, flags ...string) *docker {
	t.Helper()
	d := &docker{machine: m, socket: "unix://" + filepath.Join(m.dir, "docker.sock")}
	// The oldest API that Docker 29 speaks, which Debian's client does not choose by itself.
	d.client = []string{need(t, "env"), "DOCKER_API_VERSION=1.44", need(t, "docker")}
	if daemon == need(t, "dockerd") {
		d.client = d.client[2:]
	}
	d.process = m.start("dockerd", append([]string{daemon, "--data-root", filepath.Join(m.dir, "data"), "--exec-root", filepath.Join(m.dir, "exec"),
		"--pidfile", filepath.Join(m.dir, "docker.pid"), "--host", d.socket, "--log-level", "warn"}, flags...)...)
	d.process.await("docker version", func(context.Context) error {
		out, err := d.try(t, "version", "--format", "{{.Server.Version}}")
		if err != nil {
			return errors.New(out)
		}
		d.version = out
		return nil
	})
	return d
}

func (d *docker) try(t testing.TB, args ...string) (string, error) {
	t.Helper()
	return d.machine.try(t, slices.Concat(d.client, []string{"--host", d.socket}, args)...)
}

func (d *docker) run(t testing.TB, args ...string) string {
	t.Helper()
	return d.machine.run(t, slices.Concat(d.client, []string{"--host", d.socket}, args)...)
}

// load gives the daemon an image that comes from no registry.
func (d *docker) load(t testing.TB, ref string, img v1.Image) {
	t.Helper()
	d.run(t, "load", "--input", d.archive(t, ref, img))
}

// forget removes all images, so that a pull gets everything again.
func (d *docker) forget(t testing.TB) {
	t.Helper()
	if ids := strings.Fields(d.run(t, "image", "ls", "--all", "--quiet", "--no-trunc")); len(ids) > 0 {
		d.run(t, append([]string{"image", "rm", "--force"}, ids...)...)
	}
}

// image is the id of an image, and the digest under which the registry it came from has it.
func (d *docker) image(t testing.TB, ref string) (id, repoDigest string) {
	t.Helper()
	repository := ref[:max(strings.LastIndexByte(ref, ':'), 0)]
	if name, _, byDigest := strings.Cut(ref, "@"); byDigest {
		repository = name
	}
	fields := strings.Fields(d.run(t, "image", "inspect", "--format", "{{.Id}} {{range .RepoDigests}}{{.}} {{end}}", ref))
	for _, field := range fields[1:] {
		if name, digest, _ := strings.Cut(field, "@"); name == repository {
			return fields[0], digest
		}
	}
	t.Fatalf("%s: Docker knows no digest of it: %q", ref, fields)
	return "", ""
}

func TestDockerMirror(t *testing.T) {
	s := newStack(t, stackOptions{})
	m := newMachine(t, s)
	m.setup(t, "docker", m.run(t, need(t, "dockerd"), "--version"))
	d := startDocker(t, m)

	img := busybox(t, types.DockerManifestSchema2)
	s.hub.push(t, "library/busybox:1", img)
	index := multiArch(t, types.DockerManifestList)
	s.hub.pushIndex(t, "library/multi:1", index)
	want, id := digestOf(t, img), configOf(t, img)

	same := func(t *testing.T, ref string) {
		t.Helper()
		gotID, gotDigest := d.image(t, ref)
		if gotID != id || gotDigest != want {
			t.Errorf("%s: pulled image %s with digest %s, want %s with %s", ref, gotID, gotDigest, id, want)
		}
	}
	row(t, "Docker", d.version, "pull by tag through registry-mirrors", func(t *testing.T) {
		d.run(t, "pull", "busybox:1")
		same(t, "busybox:1")
		if got := d.run(t, "run", "--rm", "--network", "none", "busybox:1", "echo", "it runs"); got != "it runs" {
			t.Errorf("the container said %q", got)
		}
	})
	row(t, "Docker", d.version, "pull again after the image was removed: nothing is asked upstream", func(t *testing.T) {
		d.forget(t)
		asked := s.hub.asked()
		d.run(t, "pull", "busybox:1")
		same(t, "busybox:1")
		asked.none(t, ecrtest.KindManifestGet, ecrtest.KindManifestHead, ecrtest.KindBlobGet, ecrtest.KindBlobHead, ecrtest.KindObjectGet)
	})
	row(t, "Docker", d.version, "pull by digest", func(t *testing.T) {
		d.forget(t)
		asked := s.hub.asked()
		d.run(t, "pull", "busybox@"+want)
		same(t, "busybox@"+want)
		asked.none(t, ecrtest.KindBlobGet, ecrtest.KindObjectGet)
	})
	row(t, "Docker", d.version, "pull from a multi-platform image", func(t *testing.T) {
		d.run(t, "pull", "multi:1")
		gotID, gotDigest := d.image(t, "multi:1")
		if gotID != id || gotDigest != digestOf(t, index) {
			t.Errorf("pulled image %s with digest %s, want %s with %s", gotID, gotDigest, id, digestOf(t, index))
		}
	})
	row(t, "Docker", d.version, "pull from the cache after dray was stopped and started", func(t *testing.T) {
		d.forget(t)
		s.dray.stop()
		s.start()
		asked := s.hub.asked()
		d.run(t, "pull", "busybox:1")
		same(t, "busybox:1")
		asked.none(t, ecrtest.KindBlobGet, ecrtest.KindBlobHead, ecrtest.KindObjectGet)
	})
}

func TestDockerPush(t *testing.T) {
	s := newStack(t, stackOptions{doubles: withMounts})
	m := newMachine(t, s)
	d := startDocker(t, m)
	const registry = drayName + ":5000/"

	row(t, "Docker", d.version, "push without a password is refused, and says so", func(t *testing.T) {
		d.load(t, registry+"team/app:1", busybox(t, types.DockerManifestSchema2))
		out, err := d.try(t, "push", registry+"team/app:1")
		if err == nil || !strings.Contains(out, "no basic auth credentials") {
			t.Errorf("push: %v\n%s", err, out)
		}
	})
	row(t, "Docker", d.version, "log in", func(t *testing.T) {
		if out, err := d.try(t, "login", "--username", pusher, "--password", "wrong", drayName+":5000"); err == nil {
			t.Errorf("logged in with a wrong password: %s", out)
		}
		d.run(t, "login", "--username", pusher, "--password", password, drayName+":5000")
	})
	opPush.row(t, "Docker", d.version, "push to a repository that does not exist yet", func(t *testing.T) {
		pushed := pushedDigest(t, d.run(t, "push", registry+"team/app:1"))
		if got := s.ecr.digest(t, "team/app:1"); got != pushed {
			t.Errorf("ECR has %s, Docker pushed %s", got, pushed)
		}
	})
	opAgain.row(t, "Docker", d.version, "push the same image again: no layer is uploaded", func(t *testing.T) {
		asked := s.ecr.asked()
		d.run(t, "push", registry+"team/app:1")
		asked.none(t, ecrtest.KindUploadStart, ecrtest.KindUploadPatch, ecrtest.KindUploadPut, ecrtest.KindMount, "InitiateLayerUpload", "UploadLayerPart")
	})
	opPull.row(t, "Docker", d.version, "pull what was pushed: nothing is read from ECR", func(t *testing.T) {
		roundTrip(t, s, d, registry, "team/app:1")
	})
	opMount.row(t, "Docker", d.version, "push to another repository: layers are mounted", func(t *testing.T) {
		d.run(t, "tag", registry+"team/app:1", registry+"team/mounted:1")
		mounted(t, s, 1, func() { d.run(t, "push", registry+"team/mounted:1") })
		s.sameBytes(t, "team/mounted:1")
	})
	row(t, "Docker", d.version, "push an image of many layers, and pull it", func(t *testing.T) {
		d.load(t, registry+"team/layers:1", randomImage(t, types.DockerManifestSchema2, 9, 1<<20))
		pushed := pushedDigest(t, d.run(t, "push", registry+"team/layers:1"))
		if got := s.ecr.digest(t, "team/layers:1"); got != pushed {
			t.Errorf("ECR has %s, Docker pushed %s", got, pushed)
		}
		roundTrip(t, s, d, registry, "team/layers:1")
	})
	row(t, "Docker", d.version, "push a Debian system, and pull it byte for byte", func(t *testing.T) {
		ref := registry + "library/debian:bookworm"
		d.run(t, "import", debian(t), ref)
		version := d.run(t, "run", "--rm", "--network", "none", ref, "/bin/cat", "/etc/debian_version", "/var/lib/dpkg/status")
		pushed := pushedDigest(t, d.run(t, "push", ref))
		if got := s.ecr.digest(t, "library/debian:bookworm"); got != pushed {
			t.Errorf("ECR has %s, Docker pushed %s", got, pushed)
		}
		roundTrip(t, s, d, registry, "library/debian:bookworm")
		if again := d.run(t, "run", "--rm", "--network", "none", ref, "/bin/cat", "/etc/debian_version", "/var/lib/dpkg/status"); again != version {
			t.Error("the system that was pulled differs from the one that was pushed")
		}
		s.sameBytes(t, "library/debian:bookworm")
	})
	row(t, "Docker", d.version, "pull from ECR what dray has forgotten", func(t *testing.T) {
		id, digest := d.image(t, registry+"team/app:1")
		d.forget(t)
		s.dray.stop()
		if err := os.RemoveAll(s.cache); err != nil {
			t.Fatal(err)
		}
		s.start()
		d.run(t, "pull", registry+"team/app:1")
		if gotID, gotDigest := d.image(t, registry+"team/app:1"); gotID != id || gotDigest != digest {
			t.Errorf("pulled image %s with digest %s, want %s with %s", gotID, gotDigest, id, digest)
		}
	})
}

// roundTrip removes a pushed image from the daemon and pulls it: it is the same, and nothing was
// read from ECR.
func roundTrip(t *testing.T, s *stack, d *docker, registry, ref string) {
	t.Helper()
	id, digest := d.image(t, registry+ref)
	d.run(t, "image", "rm", "--force", id)
	asked := s.ecr.asked()
	d.run(t, "pull", registry+ref)
	if gotID, gotDigest := d.image(t, registry+ref); gotID != id || gotDigest != digest {
		t.Errorf("pulled image %s with digest %s, want %s with %s", gotID, gotDigest, id, digest)
	}
	asked.none(t, ecrtest.KindManifestGet, ecrtest.KindManifestHead, ecrtest.KindBlobGet, ecrtest.KindBlobHead, ecrtest.KindObjectGet)
}

// pushedDigest finds the digest of the manifest in what docker push says.
func pushedDigest(t *testing.T, out string) string {
	t.Helper()
	for word := range strings.FieldsSeq(out) {
		if strings.HasPrefix(word, "sha256:") {
			return word
		}
	}
	t.Fatalf("docker push named no digest:\n%s", out)
	return ""
}
