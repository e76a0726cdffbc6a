package e2e

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

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
	dir := shortDir(t)
	cert := filepath.Join(dir, "cert.pem")
	run(t, environment(), built.dray, "cert", "--host", drayName, "--out-cert", cert, "--out-key", filepath.Join(dir, "key.pem"))
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
		for end := time.Now().Add(time.Minute); !strings.Contains(d.run(t, "info", "--format", "{{.RegistryConfig.Mirrors}}"), drayName); time.Sleep(100 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("Docker does not know the mirror")
			}
		}
		d.run(t, "pull", "busybox:1")
		if _, digest := d.image(t, "busybox:1"); digest != digestOf(t, img) {
			t.Errorf("pulled %s, want %s", digest, digestOf(t, img))
		}
	})
}
