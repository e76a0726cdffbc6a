package e2e

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/types"
)

// containerd is a daemon of its own, and ctr that speaks to it.
type containerd struct {
	*machine
	client, socket, version string
}

func startContainerd(t *testing.T, m *machine) *containerd {
	t.Helper()
	c := &containerd{machine: m, client: need(t, "ctr"), socket: filepath.Join(m.dir, "containerd.sock")}
	// No service for Kubernetes, which wants a network; and the snapshotter that works on every file system.
	m.put("containerd/config.toml", fmt.Appendf(nil, `version = 2
root = %q
state = %q
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = %q
`, filepath.Join(m.dir, "root"), filepath.Join(m.dir, "state"), c.socket))
	p := m.start("containerd", need(t, "containerd"), "--config", "/etc/containerd/config.toml")
	p.await("ctr version", func(context.Context) error {
		out, err := c.try(t, "version")
		if err != nil {
			return errors.New(out)
		}
		_, server, _ := strings.Cut(out, "Server:")
		c.version = strings.TrimSpace(strings.TrimPrefix(firstLine(strings.TrimSpace(server)), "Version:"))
		return nil
	})
	return c
}

func (c *containerd) try(t testing.TB, args ...string) (string, error) {
	t.Helper()
	return c.machine.try(t, append([]string{c.client, "--address", c.socket}, args...)...)
}

func (c *containerd) run(t testing.TB, args ...string) string {
	t.Helper()
	return c.machine.run(t, append([]string{c.client, "--address", c.socket}, args...)...)
}

// pull gets an image by way of the hosts.toml files.
func (c *containerd) pull(t testing.TB, ref string, args ...string) {
	t.Helper()
	c.run(t, append(append([]string{"images", "pull", "--snapshotter", "native", "--hosts-dir", "/etc/containerd/certs.d"}, args...), ref)...)
}

// digest of the manifest that containerd has under a name.
func (c *containerd) digest(t testing.TB, ref string) string {
	t.Helper()
	for line := range strings.Lines(c.run(t, "images", "ls", "name=="+ref)) {
		if fields := strings.Fields(line); len(fields) > 2 && fields[0] == ref {
			return fields[2]
		}
	}
	t.Errorf("containerd has no %s", ref)
	return ""
}

// forget removes all images and all content, or else the next pull fetches nothing.
func (c *containerd) forget(t testing.TB) {
	t.Helper()
	for _, kind := range []string{"images", "content"} {
		if names := strings.Fields(c.run(t, kind, "ls", "--quiet")); len(names) > 0 {
			c.run(t, append([]string{kind, "rm"}, names...)...)
		}
	}
}

func TestContainerd(t *testing.T) {
	s := newStack(t, stackOptions{})
	m := newMachine(t, s)
	m.deploy("containerd/docker.io/hosts.toml", "containerd/certs.d/docker.io/hosts.toml")
	m.deploy("containerd/_default/hosts.toml", "containerd/certs.d/_default/hosts.toml")
	c := startContainerd(t, m)

	s.hub.push(t, "library/busybox:1", busybox(t, types.OCIManifestSchema1))
	s.hub.pushIndex(t, "library/multi:1", multiArch(t, types.OCIImageIndex))
	s.quay.push(t, "org/app:1", randomImage(t, types.DockerManifestSchema2, 3, 200_000))

	row(t, "containerd", c.version, "pull from Docker Hub by its hosts.toml", func(t *testing.T) {
		c.pull(t, "docker.io/library/busybox:1")
		if got, want := c.digest(t, "docker.io/library/busybox:1"), s.hub.digest(t, "library/busybox:1"); got != want {
			t.Errorf("pulled %s, want %s", got, want)
		}
	})
	row(t, "containerd", c.version, "pull again after everything was removed: nothing is asked upstream", func(t *testing.T) {
		c.forget(t)
		asked := s.hub.asked()
		c.pull(t, "docker.io/library/busybox:1")
		asked.none(t, mirrored...)
	})
	row(t, "containerd", c.version, "pull from another registry by _default, which says ?ns=", func(t *testing.T) {
		hub := s.hub.asked()
		c.pull(t, "quay.io/org/app:1")
		if got, want := c.digest(t, "quay.io/org/app:1"), s.quay.digest(t, "org/app:1"); got != want {
			t.Errorf("pulled %s, want %s", got, want)
		}
		hub.none(t, mirrored...)
	})
	row(t, "containerd", c.version, "pull all platforms of an image", func(t *testing.T) {
		c.pull(t, "docker.io/library/multi:1", "--all-platforms")
		if got, want := c.digest(t, "docker.io/library/multi:1"), s.hub.digest(t, "library/multi:1"); got != want {
			t.Errorf("pulled %s, want %s", got, want)
		}
	})
	const ref = drayName + ":5000/containerd/app:1"
	push := func(t *testing.T) {
		t.Helper()
		c.run(t, "images", "push", "--tlscacert", "/etc/dray/cert.pem", "--user", pusher+":"+password, ref)
	}
	row(t, "containerd", c.version, "push", func(t *testing.T) {
		c.run(t, "images", "tag", "docker.io/library/busybox:1", ref)
		push(t)
		if got, want := s.ecr.digest(t, "containerd/app:1"), s.hub.digest(t, "library/busybox:1"); got != want {
			t.Errorf("ECR has %s, want %s", got, want)
		}
		s.sameBytes(t, "containerd/app:1")
	})
	row(t, "containerd", c.version, "push again: no layer is uploaded", func(t *testing.T) {
		asked := s.ecr.asked()
		push(t)
		asked.none(t, uploads...)
	})
	row(t, "containerd", c.version, "pull what was pushed: nothing is read from ECR", func(t *testing.T) {
		c.forget(t)
		asked := s.ecr.asked()
		c.run(t, "images", "pull", "--snapshotter", "native", "--tlscacert", "/etc/dray/cert.pem", "--user", pusher+":"+password, ref)
		asked.none(t, mirrored...)
	})
}
