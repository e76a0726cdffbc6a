package e2e

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// TestSetupUndo sets up every client on a machine like this one, and takes everything back.
func TestSetupUndo(t *testing.T) {
	m := setupMachine(t)
	m.put("docker/daemon.json", []byte("{\n\t\"log-driver\": \"local\"\n}\n"))
	m.put("containerd/config.toml", []byte("version = 2 # ours\n"))
	m.put("rancher/k3s/registries.yaml", []byte("configs: # of ours\n  registry.example.com: {auth: {username: ci}}\n"))
	before := tree(t, m.dir)
	clients := []string{"docker", "containerd", "k3s", "buildkit", "podman"}
	for _, client := range clients {
		m.setup(t, client, "")
	}
	written := tree(t, m.dir)
	for _, client := range clients {
		m.setup(t, client, "")
	}
	if diff := cmp.Diff(written, tree(t, m.dir)); diff != "" {
		t.Errorf("writing again changed:\n%s", diff)
	}
	for _, client := range clients {
		out := run(t, environment(), built.dray, "setup", client, "--root", m.dir, "--undo")
		if !strings.Contains(out, "\nremoved: ") && !strings.Contains(out, "\nrestored: ") {
			t.Errorf("undo of %s:\n%s", client, out)
		}
	}
	if diff := cmp.Diff(before, tree(t, m.dir)); diff != "" {
		t.Errorf("after undo (-before):\n%s", diff)
	}
}

// setupMachine is a machine of which only the files matter.
func setupMachine(t *testing.T) *machine {
	t.Helper()
	cert, _ := makeCertificate(t, shortDir(t), drayName)
	return machineAt(t, "127.0.0.1", cert)
}

// tree returns the content of the files below /etc of a machine that clients read, and of the
// records of dray setup.
func tree(t *testing.T, root string) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, dir := range []string{"etc/docker", "etc/containerd", "etc/rancher", "etc/buildkit", "etc/containers", "var"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if os.IsNotExist(err) {
				return nil
			}
			if err == nil && d.Type().IsRegular() {
				var content []byte
				content, err = os.ReadFile(path)
				found[path] = string(content)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}

// TestSetupKubernetes asks containerd what it makes of its configuration: without a file, with the
// file that containerd itself prints, and with a short one of the former form.
func TestSetupKubernetes(t *testing.T) {
	for _, c := range []struct {
		name string
		find func(testing.TB, string) string
	}{{"containerd", need}, {"containerd 2", needBuilt}} {
		t.Run(c.name, func(t *testing.T) {
			m := setupMachine(t)
			daemon := c.find(t, "containerd")
			version := m.run(t, daemon, "--version")
			const path = `config_path = "/etc/containerd/certs.d"`
			for name, text := range map[string]string{"no file": "", "its own file": m.run(t, daemon, "config", "default"), "a short file": "version = 2\n[debug]\n  level = \"info\"\n"} {
				// An unknown version gets what every version reads.
				for _, version := range []string{version, ""} {
					m.put("containerd/config.toml", []byte(text))
					if text == "" {
						run(t, environment(), "rm", filepath.Join(m.dir, "etc/containerd/config.toml"))
					}
					m.setup(t, "containerd", version)
					dump := m.run(t, daemon, "config", "dump")
					// From version 2.3 on, containerd knows the path by itself.
					if file, _ := os.ReadFile(filepath.Join(m.dir, "etc/containerd/config.toml")); !strings.Contains(strings.ReplaceAll(dump, "'", `"`), path) &&
						(c.name == "containerd" || strings.Contains(string(file), "config_path = \"/")) {
						t.Errorf("%s, version %q: containerd does not see %s:\n%s", name, version, path, dump)
					}
					run(t, environment(), built.dray, "setup", "containerd", "--root", m.dir, "--undo")
					if file, _ := os.ReadFile(filepath.Join(m.dir, "etc/containerd/config.toml")); string(file) != text {
						t.Errorf("%s, version %q: the file after undo is:\n%s", name, version, file)
					}
				}
			}
		})
	}
}

// TestSetupK3s pulls by the configuration of k3s. The client is the one with which k3s' relatives
// fetch images of their own, and has k3s' library that reads the file.
func TestSetupK3s(t *testing.T) {
	wharfie := needLarge(t, "wharfie")
	s := newStack(t, stackOptions{})
	m := newMachine(t, s)
	m.put("rancher/k3s/registries.yaml", []byte("mirrors:\n  quay.io: # the fallback is ours\n    endpoint: [\"https://quay.io\"]\n"))
	m.setup(t, "k3s", "")
	img := busybox(t, types.OCIManifestSchema1)
	s.hub.push(t, "library/busybox:1", img)
	s.quay.push(t, "org/busybox:1", img)
	for _, ref := range []string{"docker.io/library/busybox:1", "quay.io/org/busybox:1"} {
		row(t, "k3s", filepath.Base(wharfie), "pull "+ref+" by registries.yaml", func(t *testing.T) {
			dir := filepath.Join(m.dir, strings.NewReplacer("/", "-", ":", "-").Replace(ref)) // a colon would separate two names
			m.run(t, wharfie, "--private-registry", "/etc/rancher/k3s/registries.yaml", ref, dir)
			if _, err := os.Stat(filepath.Join(dir, "bin/busybox")); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestSetupDockerReload sets up a Docker that runs.
func TestSetupDockerReload(t *testing.T) {
	s := newStack(t, stackOptions{})
	m := newMachine(t, s)
	m.put("docker/daemon.json", []byte("{\n  \"max-concurrent-downloads\": 2\n}\n"))
	d := startDocker(t, m)
	img := busybox(t, types.DockerManifestSchema2)
	s.hub.push(t, "library/busybox:1", img)
	row(t, "Docker", d.version, "pull through a mirror that dray setup wrote while Docker ran, after a reload", func(t *testing.T) {
		if out, err := d.try(t, "pull", "busybox:1"); err == nil {
			t.Fatalf("pulled without a mirror: %s", out)
		}
		m.setup(t, "docker", d.version)
		if err := d.process.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		d.process.await("the mirror", func(context.Context) error {
			if out := d.run(t, "info", "--format", "{{.RegistryConfig.Mirrors}}"); !strings.Contains(out, drayName) {
				return errors.New(out)
			}
			return nil
		})
		d.run(t, "pull", "busybox:1")
		if _, digest := d.image(t, "busybox:1"); digest != digestOf(t, img) {
			t.Errorf("pulled %s, want %s", digest, digestOf(t, img))
		}
	})
}

// TestSetupCredentials pulls from a mirror that wants credentials, by the ways that dray setup
// names. Podman and BuildKit send credentials only where they are asked for them.
func TestSetupCredentials(t *testing.T) {
	for _, challenge := range []bool{true, false} {
		s := newStack(t, stackOptions{configure: func(config map[string]any) {
			mirror := config["listeners"].([]any)[0].(map[string]any)
			mirror["auth"], mirror["challenge"] = "builders", challenge
		}})
		img := busybox(t, types.OCIManifestSchema1)
		pulls := func(t *testing.T, repo string, pull func() (string, error), can bool) {
			t.Helper()
			s.hub.push(t, "library/"+repo+":1", img)
			if out, err := pull(); (err == nil) != can {
				t.Errorf("challenge %t: %v\n%s", challenge, err, out)
			}
		}
		t.Run("Podman", func(t *testing.T) {
			m := newContainersMachine(t, s)
			write(t, filepath.Join(m.home, ".docker/config.json"), bytes.ReplaceAll(dockerAuth(), []byte(":5000"), nil))
			pulls(t, "podman", func() (string, error) {
				return m.try(t, append(podmanCommand(t, m), "pull", "--quiet", "docker.io/library/podman:1")...)
			}, challenge)
		})
		t.Run("BuildKit", func(t *testing.T) {
			b := startBuildKit(t, newMachine(t, s))
			write(t, filepath.Join(b.home, ".docker/config.json"), bytes.ReplaceAll(dockerAuth(), []byte(":5000"), nil))
			pulls(t, "buildkit", func() (string, error) { return b.try(t, b.pullCommand(t, "buildkit:1")...) }, challenge)
		})
		t.Run("containerd", func(t *testing.T) {
			m := newMachine(t, s)
			version := m.run(t, need(t, "containerd"), "--version")
			m.setup(t, "containerd", version)
			file := filepath.Join(m.dir, "etc/containerd/certs.d/docker.io/hosts.toml")
			text := read(t, file)
			header := base64.StdEncoding.EncodeToString([]byte(pusher + ":" + password))
			m.put("containerd/certs.d/docker.io/hosts.toml", fmt.Appendf(text, "\n[host.\"https://%s\".header]\n  Authorization = \"Basic %s\"\n", drayName, header))
			m.setup(t, "containerd", version) // which leaves it as it is
			c := startContainerd(t, m, need)
			pulls(t, "containerd", func() (string, error) { c.pull(t, "docker.io/library/containerd:1"); return "", nil }, true)
		})
	}
}
