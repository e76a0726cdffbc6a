package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// machine is the view that a client has: this machine with another /etc, in a mount namespace of
// its own. In it the name of dray leads to the dray under test, and the names of public registries
// to addresses where nobody listens.
type machine struct {
	t           testing.TB
	dir         string // short, removed after the test
	home        string
	certificate string // file; dray's
	// registries are those that dray setup configures; none: Docker Hub and Quay.
	registries []string
	// inside is what runs a command in the machine's network; none: the network of the test.
	inside []string
	// again is how many commands that fail are run a second time.
	again int
}

// newMachine copies /etc, puts in what a client needs to use dray, and leaves everything else as it
// is.
func newMachine(t testing.TB, s *stack) *machine {
	t.Helper()
	return machineAt(t, s.ip, s.certificate)
}

// machineAt is newMachine for a dray at an address, with a certificate.
func machineAt(t testing.TB, ip, certificateFile string) *machine {
	t.Helper()
	needRoot(t)
	m := &machine{t: t, dir: shortDir(t), certificate: certificateFile}
	m.home = filepath.Join(m.dir, "home")
	if err := os.Mkdir(m.home, 0o700); err != nil {
		t.Fatal(err)
	}
	run(t, environment(), "cp", "-a", "/etc", filepath.Join(m.dir, "etc"))
	for _, own := range []string{"docker", "containerd", "buildkit", "containers/registries.conf.d", "containers/certs.d", "dray"} {
		if err := os.RemoveAll(filepath.Join(m.dir, "etc", own)); err != nil {
			t.Fatal(err)
		}
	}
	nobody := "127.0.0.127"
	m.put("hosts", []byte("127.0.0.1 localhost\n"+ip+" "+drayName+"\n"+
		nobody+" docker.io registry-1.docker.io index.docker.io auth.docker.io quay.io "+ecrName+"\n"))
	certificate := read(t, certificateFile)
	m.put("dray/cert.pem", certificate)
	for _, client := range []string{"docker", "containers"} { // of the mirror, dray setup has clients trust
		m.put(filepath.Join(client, "certs.d", drayName+":5000", "ca.crt"), certificate)
	}
	return m
}

// put makes a file below /etc.
func (m *machine) put(name string, content []byte) {
	m.t.Helper()
	path := filepath.Join(m.dir, "etc", name)
	_ = os.Remove(path) // a link would lead out of the copy
	write(m.t, path, content)
}

// setup has dray setup configure a client for the mirror, for registries that the stack has.
// version is what the client says about its version.
func (m *machine) setup(t testing.TB, client, version string) {
	t.Helper()
	run(t, environment(), append(m.setupCommand(client, version), "--write")...)
}

func (m *machine) setupCommand(client, version string) []string {
	registries := m.registries
	if registries == nil {
		registries = []string{"docker.io", "quay.io"}
	}
	command := []string{built.dray, "setup", client, "--root", m.dir, "--url", "https://" + drayName, "--ca", m.certificate}
	for _, registry := range registries {
		command = append(command, "--registry", registry)
	}
	if version != "" {
		command = append(command, "--client-version", version)
	}
	return command
}

// archive is a file with an image; see saveImage.
func (m *machine) archive(t testing.TB, ref string, img v1.Image) string {
	t.Helper()
	file := filepath.Join(m.dir, "load.tar")
	saveImage(t, file, ref, img)
	return file
}

// command is what runs a command on the machine.
func (m *machine) command(command ...string) []string {
	// Podman and Skopeo must neither read nor write root's own cache of blobs and registries.
	script := `mount --bind "$1/etc" /etc && mkdir -p "$1/containers" /var/lib/containers && mount --bind "$1/containers" /var/lib/containers &&
		shift && exec "$@"`
	return slices.Concat(m.inside, []string{need(m.t, "unshare"), "--mount", "--propagation", "private", "/bin/sh", "-c", script, "sh", m.dir}, command)
}

func (m *machine) env() []string {
	return environment("HOME="+m.home, "XDG_RUNTIME_DIR="+m.home,
		"PATH="+os.Getenv("PATH")+":/usr/local/sbin:/usr/sbin:/sbin")
}

// start runs a daemon on the machine; see start.
func (m *machine) start(name string, command ...string) *process {
	m.t.Helper()
	argv := m.command(command...)
	return start(m.t, name, m.env(), argv[0], argv[1:]...)
}

// try and run run a client on the machine; see try and run.
func (m *machine) try(t testing.TB, command ...string) (string, error) {
	t.Helper()
	return try(t, m.env(), m.command(command...)...)
}

func (m *machine) run(t testing.TB, command ...string) string {
	t.Helper()
	if m.again > 0 {
		out, err := m.try(t, command...)
		if err == nil {
			return out
		}
		m.again--
		t.Logf("%s: %v, so it is run again\n%s", strings.Join(command, " "), err, out)
	}
	return run(t, m.env(), m.command(command...)...)
}

// firstLine of what a client says about its version.
func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
