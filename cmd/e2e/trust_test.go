package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/types"
)

// TestDockerTrust shows that Docker accepts the certificate of dray because of certs.d, and only
// because of it. Docker asks no certificate of what lies in 127.0.0.0/8, so here dray has another
// address (RFC 5737), in a network that consists of nothing else.
func TestDockerTrust(t *testing.T) {
	needRoot(t)
	const ip = "192.0.2.1"
	dir := shortDir(t)
	cert, key := makeCertificate(t, dir, drayName)
	m := machineAt(t, ip, cert)
	tool := staticBusybox(t)
	m.inside = newNetwork(t, tool, ip).inside

	ecr := startFakeECR(t, m.inside, "127.0.0.1", dir)
	env := environment(append(ecr.variables(), "HOME="+dir, "TLS_CERTIFICATE="+cert, "TLS_PRIVATE_KEY="+key, "REGISTRY="+drayName+":5000",
		"DRAY_ADDRESS="+ip+":5000", "DRAY_CACHE_DIRECTORY="+filepath.Join(dir, "cache"), "DRAY_ALLOW_ANONYMOUS_PUSH=true")...)
	argv := append(m.inside, built.dray, "serve")
	dray := start(t, "dray", env, argv[0], argv[1:]...)
	m.awaitReady(t, dray, tool)

	trusted := filepath.Join(m.dir, "etc/docker/certs.d", drayName+":5000")
	if err := os.Rename(trusted, trusted+".not"); err != nil {
		t.Fatal(err)
	}
	d := startDocker(t, m)
	const ref = drayName + ":5000/team/app:1"
	d.load(t, ref, busybox(t, types.DockerManifestSchema2))
	row(t, "Docker", d.version, "a certificate of nobody's is refused", func(t *testing.T) {
		if out, err := d.try(t, "push", ref); err == nil || !strings.Contains(out, "certificate signed by unknown authority") {
			t.Errorf("push: %v\n%s", err, out)
		}
	})
	row(t, "Docker", d.version, "the certificate of dray cert is trusted by certs.d", func(t *testing.T) {
		if err := os.Rename(trusted+".not", trusted); err != nil {
			t.Fatal(err)
		}
		d.run(t, "push", ref)
		d.forget(t)
		d.run(t, "pull", ref)
	})
}

// network is a network namespace.
type network struct {
	file   string   // by which it is entered
	inside []string // what runs a command in it
}

// newNetwork makes a network namespace with one address besides that of the loopback interface. It
// lasts as long as the test.
func newNetwork(t *testing.T, busybox, ip string) network {
	t.Helper()
	script := fmt.Sprintf(`"$0" ip link set lo up && "$0" ip address add %s/32 dev lo && echo up && exec "$0" sleep 3600`, ip)
	p := start(t, "network", environment(), need(t, "unshare"), "--net", "/bin/sh", "-c", script, busybox)
	p.await("network", func(context.Context) error {
		if log, err := os.ReadFile(p.logFile); err != nil || string(log) != "up\n" {
			return fmt.Errorf("%w: %s", err, log)
		}
		return nil
	})
	file := fmt.Sprintf("/proc/%d/ns/net", p.cmd.Process.Pid)
	return network{file, []string{need(t, "nsenter"), "--net=" + file}}
}

// awaitReady waits until the dray in the machine's network is ready, asking at the address where
// its admin listener is by default.
func (m *machine) awaitReady(t *testing.T, dray *process, busybox string) {
	t.Helper()
	dray.await("readyz", func(context.Context) error {
		out, err := try(t, environment(), append(m.inside, busybox, "wget", "-q", "-O", "-", "http://127.0.0.1:6060/readyz")...)
		if err != nil {
			return errors.New(out)
		}
		return nil
	})
}
