package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const composeDir = "../../deploy/compose"

// TestCompose starts what deploy/compose describes with Docker: dray's own image, and images of
// Redis and Prometheus that are made of Debian's programs. It pulls from a stand-in for Docker Hub,
// and asks Prometheus what it has seen of that.
func TestCompose(t *testing.T) {
	needRoot(t)
	compose := need(t, "docker-compose")
	const ip = "192.0.2.1"
	dir := shortDir(t)
	makeCertificate(t, dir, drayName)
	m := machineAt(t, ip, filepath.Join(dir, "cert.pem"))
	tool := staticBusybox(t)
	m.inside = newNetwork(t, tool, ip).inside
	d := startDocker(t, m, "--bip=198.51.100.1/26", "--default-address-pool=base=198.51.100.64/26,size=28")
	hub := startFakeECR(t, m.inside, ip, dir, "--hub", "--seed", "library/app:1")

	env := slices.Concat(m.env(), goCaches(t), []string{"DOCKER_HOST=" + d.socket, "DRAY_TAG=1.2.3", "HOME=" + dir})
	run(t, env, need(t, "make"), "-C", "../..", "dockerBuild", "IMAGE=get.dray.example/dray:1.2.3")
	images := composeImages(t)
	d.importProgram(t, images["redis"], need(t, "redis-server"), `ENV PATH=/usr/bin`)
	d.importProgram(t, images["prometheus"], need(t, "prometheus"), `ENTRYPOINT ["/usr/bin/prometheus"]`)

	deploy := filepath.Join(dir, "deploy")
	copyDeployment(t, deploy, hub.ready.Registry)
	argv := func(args ...string) []string {
		return m.command(slices.Concat([]string{compose, "--project-directory", filepath.Join(deploy, "compose"), "-f", filepath.Join(deploy, "compose/compose.yaml"), "-p", "dray"}, args)...)
	}
	command := func(args ...string) string {
		t.Helper()
		return run(t, env, argv(args...)...)
	}
	t.Cleanup(func() {
		for _, args := range [][]string{{"logs", "--tail", "30"}, {"down", "--volumes", "--timeout", "20"}} {
			command := argv(args...)
			last := exec.Command(command[0], command[1:]...) // the context of the test has ended
			last.Env = env
			if out, err := last.CombinedOutput(); err != nil || t.Failed() {
				t.Logf("docker-compose %s: %v\n%s", args[0], err, out)
			}
		}
	})
	command("up", "-d", "--no-build")
	get := func(url string) (string, error) { return m.try(t, tool, "wget", "-q", "-O", "-", url) }
	d.process.await("dray in its container", func(context.Context) error {
		out, err := get("http://127.0.0.1:5000/v2/")
		if err != nil {
			return errors.New(out)
		}
		return nil
	})
	d.run(t, "pull", "127.0.0.1:5000/docker.io/library/app:1")
	if out := command("exec", "-T", "dray", "dray", "stats"); !strings.Contains(out, "docker.io") {
		t.Errorf("dray stats in the container says:\n%s", out)
	}
	for query, want := range map[string]string{
		`up{job="dray"}`: "1",
		`count(dray_requests_total{listener="mirror",kind="manifest",status="200"}) > 0`: "",
		`min(dray_meta_up)`:                     "1", // Redis answers
		`count(ALERTS{alertname="DrayAbsent"})`: "nothing",
	} {
		d.process.await(query, func(context.Context) error { return prometheusSays(get, query, want) })
	}
	rules, _ := readRules(t)
	if out, err := get("http://127.0.0.1:9090/api/v1/rules"); err != nil || strings.Count(out, `"type":"alerting"`) != len(rules) {
		t.Errorf("Prometheus has other rules than %d alerts: %v\n%s", len(rules), err, out)
	}
	if out, err := try(t, env, m.command(tool, "nc", "-w", "1", "127.0.0.1", "6379")...); err == nil {
		t.Errorf("Redis can be reached from the machine: %s", out)
	}
	container := command("ps", "-q", "dray")
	command("stop", "dray")
	if out := d.run(t, "inspect", "--format", "{{.State.ExitCode}}", container); out != "0" {
		t.Errorf("dray ended with %s", out)
	}
	command("up", "-d", "--no-build")
	hub.process.stop() // what follows comes from the volume
	d.run(t, "image", "rm", "127.0.0.1:5000/docker.io/library/app:1")
	d.process.await("the image from the cache", func(context.Context) error {
		if out, err := d.try(t, "pull", "127.0.0.1:5000/docker.io/library/app:1"); err != nil {
			return errors.New(out)
		}
		return nil
	})
}

// prometheusSays asks Prometheus, and returns an error unless the answer has one value, which is
// want if that is not empty. With "nothing" there must be no value.
func prometheusSays(get func(url string) (string, error), query, want string) error {
	out, err := get("http://127.0.0.1:9090/api/v1/query?query=" + url.QueryEscape(query))
	if err != nil {
		return errors.New(out)
	}
	var answer struct {
		Data struct{ Result []struct{ Value [2]any } }
	}
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		return err
	}
	result := answer.Data.Result
	if want == "nothing" && len(result) == 0 || len(result) == 1 && (want == "" || result[0].Value[1] == want) {
		return nil
	}
	return errors.New(out)
}

// composeImages returns the images of the services, with the versions that the file has.
func composeImages(t *testing.T) map[string]string {
	t.Helper()
	var file struct {
		Services map[string]struct{ Image string }
	}
	if err := yaml.Unmarshal(read(t, filepath.Join(composeDir, "compose.yaml")), &file); err != nil {
		t.Fatal(err)
	}
	images := map[string]string{}
	for name, service := range file.Services {
		images[name] = regexp.MustCompile(`\$\{[A-Z_]+:-([^}]*)\}`).ReplaceAllString(service.Image, "$1")
	}
	return images
}

// copyDeployment copies the files that Compose needs, with a stand-in for Docker Hub as the only
// upstream, and with a Prometheus that looks each second.
func copyDeployment(t *testing.T, to, hub string) {
	t.Helper()
	for _, name := range []string{"compose/compose.yaml", "compose/dray.yaml", "compose/prometheus.yml", "helm/rules.yaml"} {
		text := read(t, filepath.Join("../../deploy", name))
		if name == "compose/dray.yaml" {
			const upstreams = "upstreams: [docker.io, quay.io, registry.k8s.io]\n"
			if !strings.Contains(string(text), upstreams) {
				t.Fatalf("deploy/%s has other upstreams", name)
			}
			text = []byte(strings.Replace(string(text), upstreams, "upstreams: [{name: docker.io, url: '"+hub+"', hosts: [docker.io], prefixes: [docker.io], default_namespace: library}]\n", 1))
		}
		if name == "compose/prometheus.yml" {
			text = bytes.ReplaceAll(text, []byte("_interval: 15s"), []byte("_interval: 1s"))
		}
		file := filepath.Join(to, name)
		write(t, file, text)
		if err := os.Chmod(file, 0o644); err != nil { // containers run as users without rights
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
}

// importProgram makes an image of a program of this machine with its libraries.
func (d *docker) importProgram(t *testing.T, image, program, change string) {
	t.Helper()
	root := filepath.Join(shortDir(t), "root")
	copied := filepath.Join(root, "usr/bin", filepath.Base(program))
	files := map[string]string{copied: program}
	for _, path := range regexp.MustCompile(`(?m)(/\S+) \(0x`).FindAllStringSubmatch(run(t, environment(), need(t, "ldd"), program), -1) {
		files[filepath.Join(root, path[1])] = path[1]
	}
	for to, from := range files {
		write(t, to, read(t, from))
		if err := os.Chmod(to, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for dir, mode := range map[string]os.FileMode{"tmp": 0o777, "prometheus": 0o777, "etc": 0o755} {
		if err := os.MkdirAll(filepath.Join(root, dir), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(root, dir), mode); err != nil {
			t.Fatal(err)
		}
	}
	archive := filepath.Join(filepath.Dir(root), "root.tar")
	run(t, environment(), "tar", "-C", root, "-cf", archive, ".")
	d.run(t, "import", "--change", change, archive, image)
}
