package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/types"
)

// TestContainerImage builds the image by make dockerBuild and runs it by make dockerRun, between
// Docker and the fakeecr program. All of it is in a network of its own, so that ports can be
// published.
func TestContainerImage(t *testing.T) {
	needRoot(t)
	const ip = "192.0.2.1"
	dir := shortDir(t)
	credentials := filepath.Join(dir, "credentials") // where make looks for the files
	if err := os.Mkdir(credentials, 0o700); err != nil {
		t.Fatal(err)
	}
	cert, _ := makeCertificate(t, credentials, drayName)
	m := machineAt(t, ip, cert)
	tool := staticBusybox(t)
	m.inside = newNetwork(t, tool, ip).inside
	d := startDocker(t, m, "--bip=198.51.100.1/24")
	ecr := startFakeECR(t, m.inside, ip, dir)

	// make finds the daemon by the variable that every Docker client reads.
	env := slices.Concat(m.env(), ecr.variables(), goCaches(t), []string{"DOCKER_HOST=" + d.socket, "CI=true", "HOME=" + dir})
	run(t, env, need(t, "make"), "-C", "../..", "dockerBuild", "IMAGE=dray:e2e")
	if files := d.run(t, "image", "inspect", "--format", "{{.Config.User}} {{.Config.Entrypoint}}", "dray:e2e"); files != "65532:65532 [/bin/dray]" {
		t.Errorf("the image has user and entry point %s", files)
	}
	// Docker's bridge hides where a client is, so it is not known to be this machine.
	dockerRun := func(t *testing.T) *process {
		t.Helper()
		makefile, err := filepath.Abs("../../Makefile")
		if err != nil {
			t.Fatal(err)
		}
		p := start(t, "make", env, need(t, "make"), "-C", dir, "-f", makefile, "-e", "IMAGE=dray:e2e", "REGION=eu-west-1", "REGISTRY="+drayName+":5000",
			"DRAY_ALLOW_ANONYMOUS_PUSH=true", "dockerRun")
		m.awaitReady(t, p, tool)
		return p
	}
	p := dockerRun(t)
	const ref = drayName + ":5000/team/app:1"
	row(t, "Docker", d.version, "push to and pull from dray as make dockerRun starts it", func(t *testing.T) {
		d.load(t, ref, busybox(t, types.DockerManifestSchema2))
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
		if <-p.ended; p.err != nil {
			t.Errorf("make dockerRun: %v", p.err)
		}
		dockerRun(t)
		ecr.process.stop() // what follows comes from the volume
		d.run(t, "image", "rm", ref)
		d.run(t, "pull", ref)
		d.run(t, "stop", "--time", "20", "dray")
	})
}

// goCaches lead a make with another HOME to the caches of the go command, so that it does not fetch
// and build everything anew.
func goCaches(t testing.TB) (variables []string) {
	t.Helper()
	for _, cache := range []string{"GOCACHE", "GOMODCACHE"} {
		variables = append(variables, cache+"="+run(t, environment(), need(t, "go"), "env", cache))
	}
	return variables
}

// TestMakeSaysHowToMakeACertificate: without one neither dray nor Docker is started, which would
// make the directory as root.
func TestMakeSaysHowToMakeACertificate(t *testing.T) {
	makefile, err := filepath.Abs("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, target := range []string{"run", "dockerRun"} {
		cmd := exec.CommandContext(t.Context(), need(t, "make"), "-C", dir, "-f", makefile, "-e", "REGION=eu-west-1", "REGISTRY=dray.example.com", "ECR_REGISTRY="+ecrName, target)
		cmd.Env = environment("DOCKER_HOST=unix://" + dir + "/nobody.sock")
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "credentials/cert.pem: make -e REGISTRY=dray.example.com genSelfsigned") {
			t.Errorf("make %s: %v\n%s", target, err, out)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("made %v, %v", left, err)
	}
}

// fakeECR is the fakeecr program.
type fakeECR struct {
	process *process
	ready   struct{ Registry, RegistryHost, API, Control string }
}

// startFakeECR runs the program at an address of a network, with further flags; see newNetwork.
func startFakeECR(t *testing.T, inside []string, ip, dir string, flags ...string) *fakeECR {
	t.Helper()
	f := &fakeECR{}
	file := filepath.Join(dir, "fakeecr.json")
	argv := slices.Concat(inside, []string{built.fakeecr, "--ready-file", file, "--registry", ip + ":0", "--api", ip + ":0", "--objects", ip + ":0"}, flags)
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
