package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// TestContainerImage builds the image as make does, and runs it with environment variables alone, between Docker and the fakeecr program.
func TestContainerImage(t *testing.T) {
	needRoot(t)
	ip, dir := nextIP(), shortDir(t)
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "privkey.pem")
	run(t, environment(), built.dray, "cert", "--host", drayName, "--out-cert", cert, "--out-key", key)
	m := machineAt(t, ip, cert)
	m.put("docker/daemon.json", []byte(`{"insecure-registries": ["`+drayName+`:5000"]}`))
	d := startDocker(t, m)
	ecr := startFakeECR(t, dir)

	// make knows the daemon by the variable that every Docker client reads.
	run(t, append(m.env(), "DOCKER_HOST="+d.socket), need(t, "make"), "-C", "../..", "dockerBuild", "IMAGE=dray:e2e")
	if files := d.run(t, "image", "inspect", "--format", "{{.Config.User}} {{.Config.Entrypoint}}", "dray:e2e"); files != "65532:65532 [/bin/dray]" {
		t.Errorf("the image has user and entry point %s", files)
	}
	for _, file := range []string{cert, key} { // who runs make owns them; here that is not the user of the image
		if err := os.Chown(file, 65532, 65532); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	args := []string{"run", "--detach", "--name", "dray", "--network", "host", "--user", "65532:65532", "--cap-drop", "ALL",
		"--security-opt", "no-new-privileges", "--read-only", "--volume", dir + ":/credentials:ro", "--volume", "dray-cache:/cache"}
	for _, v := range append(ecr.variables(), "TLS_CERTIFICATE=/credentials/cert.pem", "TLS_PRIVATE_KEY=/credentials/privkey.pem",
		"REGISTRY="+drayName+":5000", "PORT=5000", "REGION=eu-west-1", "DRAY_ADDRESS="+ip+":5000", "DRAY_ADMIN_ADDRESS="+ip+":6060") {
		args = append(args, "--env", v)
	}
	d.run(t, append(args, "dray:e2e")...)
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := d.try(t, "logs", "dray")
			t.Logf("the log of the container:\n%s", out)
		}
	})
	d.process.awaitHTTP("http://" + net.JoinHostPort(ip, "6060") + "/readyz")

	const ref = drayName + ":5000/team/app:1"
	file := filepath.Join(m.dir, "load.tar")
	tag, err := name.NewTag(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := tarball.WriteToFile(file, tag, busybox(t, types.DockerManifestSchema2)); err != nil {
		t.Fatal(err)
	}
	row(t, "Docker", d.version, "push to and pull from dray in a container, set up by environment variables alone", func(t *testing.T) {
		d.run(t, "load", "--input", file)
		pushed := pushedDigest(t, d.run(t, "push", ref))
		id, _ := d.image(t, ref)
		d.run(t, "image", "rm", ref)
		d.run(t, "pull", ref)
		if gotID, gotDigest := d.image(t, ref); gotID != id || gotDigest != pushed {
			t.Errorf("pulled image %s with digest %s, want %s with %s", gotID, gotDigest, id, pushed)
		}
	})
	row(t, "dray", "", "the container stops when it is told to, and comes back with its cache", func(t *testing.T) {
		d.run(t, "stop", "--time", "20", "dray")
		if code := d.run(t, "inspect", "--format", "{{.State.ExitCode}}", "dray"); code != "0" {
			t.Errorf("exit code %s", code)
		}
		d.run(t, "start", "dray")
		d.process.awaitHTTP("http://" + net.JoinHostPort(ip, "6060") + "/readyz")
		ecr.process.stop() // what follows comes from the volume
		d.run(t, "image", "rm", ref)
		d.run(t, "pull", ref)
	})
	d.run(t, "rm", "--force", "--volumes", "dray")
}

// fakeECR is the fakeecr program.
type fakeECR struct {
	process *process
	ready   struct{ Registry, RegistryHost, API, Control string }
}

// startFakeECR runs the program, by another command where one is given.
func startFakeECR(t *testing.T, dir string, by ...string) *fakeECR {
	t.Helper()
	f := &fakeECR{}
	file := filepath.Join(dir, "fakeecr.json")
	argv := append(by, built.fakeecr, "--ready-file", file)
	f.process = start(t, "fakeecr", environment(), argv[0], argv[1:]...)
	f.process.await(file, func(context.Context) error {
		line, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if !strings.HasSuffix(string(line), "\n") {
			return errors.New("not written yet")
		}
		return json.Unmarshal(line, &f.ready)
	})
	return f
}

// variables lead dray to the program in place of ECR.
func (f *fakeECR) variables() []string {
	registry, _ := url.Parse(f.ready.Registry)
	host, _, _ := strings.Cut(f.ready.RegistryHost, ":")
	return []string{"ECR_REGISTRY=http://" + host, "DRAY_ECR_ADDRESS=" + registry.Host, "AWS_ENDPOINT_URL=" + f.ready.API, "AWS_REGION=eu-west-1",
		"AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY=example", "AWS_EC2_METADATA_DISABLED=true"}
}
