package e2e

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/types"
)

// containerd is a daemon of its own, and ctr that speaks to it.
type containerd struct {
	*machine
	client, socket, version string
	// local are the flags that have ctr itself speak to registries, with the certificate and
	// password it is given.
	local []string
}

// startContainerd starts a daemon that find finds, and its client.
func startContainerd(t *testing.T, m *machine, find func(testing.TB, string) string) *containerd {
	t.Helper()
	c := &containerd{machine: m, client: find(t, "ctr"), socket: filepath.Join(m.dir, "containerd.sock")}
	// No service for Kubernetes, which wants a network; and the snapshotter that works on every
	// file system.
	m.put("containerd/config.toml", fmt.Appendf(nil, `version = 2
root = %q
state = %q
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"]
[grpc]
  address = %q
`, filepath.Join(m.dir, "root"), filepath.Join(m.dir, "state"), c.socket))
	p := m.start("containerd", find(t, "containerd"), "--config", "/etc/containerd/config.toml")
	p.await("ctr version", func(context.Context) error {
		out, err := c.try(t, "version")
		if err != nil {
			return errors.New(out)
		}
		_, server, _ := strings.Cut(out, "Server:")
		c.version = strings.TrimSpace(strings.TrimPrefix(firstLine(strings.TrimSpace(server)), "Version:"))
		return nil
	})
	if !strings.HasPrefix(c.version, "1.") {
		c.local = []string{"--local"}
	}
	return c
}

func (c *containerd) try(t testing.TB, args ...string) (string, error) {
	t.Helper()
	return c.machine.try(t, append([]string{c.client, "--address", c.socket}, args...)...)
}

// run returns what ctr says, without its warnings about the machine.
func (c *containerd) run(t testing.TB, args ...string) string {
	t.Helper()
	lines := strings.SplitAfter(c.machine.run(t, append([]string{c.client, "--address", c.socket}, args...)...), "\n")
	return strings.Join(slices.DeleteFunc(lines, func(l string) bool { return strings.Contains(l, "level=warning") }), "")
}

// pull gets an image by way of the hosts.toml files.
func (c *containerd) pull(t testing.TB, ref string, args ...string) {
	t.Helper()
	c.run(t, c.pullArgs(ref, args...)...)
}

func (c *containerd) pullArgs(ref string, more ...string) []string {
	return slices.Concat([]string{"images", "pull", "--snapshotter", "native", "--hosts-dir", "/etc/containerd/certs.d"}, c.local, more, []string{ref})
}

// access are the flags by which ctr trusts dray and logs in.
func (c *containerd) access() []string {
	return append([]string{"--tlscacert", "/etc/dray/cert.pem", "--user", pusher + ":" + password}, c.local...)
}

// push sends an image to dray.
func (c *containerd) push(t testing.TB, ref string) {
	t.Helper()
	command := slices.Concat([]string{"images", "push"}, c.access(), []string{ref})
	out, err := c.try(t, command...)
	// ctr 1.6 sometimes fails to read a layer from its own daemon, and then sends nothing of it.
	if own := err != nil && strings.Contains(out, "rpc error: code = Internal desc = unexpected EOF"); own || err != nil && c.again > 0 {
		if !own {
			c.again--
		}
		out, err = c.try(t, command...)
	}
	if err != nil {
		t.Fatalf("push %s: %v\n%s", ref, err, out)
	}
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

func TestContainerd(t *testing.T)  { testContainerd(t, "containerd", need) }
func TestContainerd2(t *testing.T) { testContainerd(t, "containerd 2", needBuilt) }

func testContainerd(t *testing.T, name string, find func(testing.TB, string) string) {
	s := newStack(t, stackOptions{doubles: withMounts})
	m := newMachine(t, s)
	m.setup(t, "containerd", m.run(t, find(t, "containerd"), "--version"))
	c := startContainerd(t, m, find)

	s.hub.push(t, "library/busybox:1", busybox(t, types.OCIManifestSchema1))
	s.hub.pushIndex(t, "library/multi:1", multiArch(t, types.OCIImageIndex))
	s.quay.push(t, "org/app:1", randomImage(t, types.DockerManifestSchema2, 3, 200_000))

	row(t, name, c.version, "pull from Docker Hub by its hosts.toml", func(t *testing.T) {
		c.pull(t, "docker.io/library/busybox:1")
		if got, want := c.digest(t, "docker.io/library/busybox:1"), s.hub.digest(t, "library/busybox:1"); got != want {
			t.Errorf("pulled %s, want %s", got, want)
		}
	})
	row(t, name, c.version, "pull again after everything was removed: nothing is asked upstream", func(t *testing.T) {
		c.forget(t)
		asked := s.hub.asked()
		c.pull(t, "docker.io/library/busybox:1")
		asked.none(t, mirrored...)
	})
	row(t, name, c.version, "pull from another registry by its hosts.toml, which says ?ns=", func(t *testing.T) {
		hub := s.hub.asked()
		c.pull(t, "quay.io/org/app:1")
		if got, want := c.digest(t, "quay.io/org/app:1"), s.quay.digest(t, "org/app:1"); got != want {
			t.Errorf("pulled %s, want %s", got, want)
		}
		hub.none(t, mirrored...)
	})
	row(t, name, c.version, "pull all platforms of an image", func(t *testing.T) {
		c.pull(t, "docker.io/library/multi:1", "--all-platforms")
		if got, want := c.digest(t, "docker.io/library/multi:1"), s.hub.digest(t, "library/multi:1"); got != want {
			t.Errorf("pulled %s, want %s", got, want)
		}
	})
	const ref = drayName + ":5000/containerd/app:1"
	opPush.row(t, name, c.version, "push", func(t *testing.T) {
		c.run(t, "images", "tag", "docker.io/library/busybox:1", ref)
		c.push(t, ref)
		if got, want := s.ecr.digest(t, "containerd/app:1"), s.hub.digest(t, "library/busybox:1"); got != want {
			t.Errorf("ECR has %s, want %s", got, want)
		}
		s.sameBytes(t, "containerd/app:1")
	})
	opAgain.row(t, name, c.version, "push again: no layer is uploaded", func(t *testing.T) {
		asked := s.ecr.asked()
		c.push(t, ref)
		asked.none(t, uploads...)
	})
	opMount.row(t, name, c.version, "push to another repository: layers are mounted", func(t *testing.T) {
		c.run(t, "images", "tag", ref, at("containerd/copy:1"))
		mounted(t, s, 1, func() { c.push(t, at("containerd/copy:1")) })
		s.sameBytes(t, "containerd/copy:1")
	})
	opIndex.row(t, name, c.version, "push an image of several platforms", func(t *testing.T) {
		c.run(t, "images", "tag", "docker.io/library/multi:1", at("containerd/multi:1"))
		c.push(t, at("containerd/multi:1"))
		wholeIndex(t, s, "containerd/multi:1")
	})
	opPull.row(t, name, c.version, "pull what was pushed: nothing is read from ECR", func(t *testing.T) {
		c.forget(t)
		asked := s.ecr.asked()
		c.run(t, slices.Concat([]string{"images", "pull", "--snapshotter", "native"}, c.access(), []string{ref})...)
		asked.none(t, mirrored...)
	})
}
