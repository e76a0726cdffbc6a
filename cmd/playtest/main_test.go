package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// binaries builds what the playtest starts, and the playtest, which is faster without the race
// detector of the test.
func binaries(t *testing.T) (dray, fakeecr, playtest string) {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "go", "build", "-tags=grpcnotrace", "-ldflags=-s -w", "-o", dir, "dray/cmd/dray", "dray/cmd/fakeecr", "dray/cmd/playtest")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return filepath.Join(dir, "dray"), filepath.Join(dir, "fakeecr"), filepath.Join(dir, "playtest")
}

// quiet is the environment of this process without variables that name a real registry.
func quiet(t *testing.T, more ...string) []string {
	t.Helper()
	environ := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "TMPDIR=" + os.TempDir()}
	return append(environ, more...)
}

// leftNothing gives the playtest a directory for its temporary files, and checks in the end
// that it is empty.
func leftNothing(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	t.Cleanup(func() {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("files are left: %v, %v", left, err)
		}
	})
}

func TestPlaytestOnce(t *testing.T) {
	dray, fakeecr, playtest := binaries(t)
	leftNothing(t)
	cmd := exec.CommandContext(t.Context(), playtest, "--once", "--clients", "3", "--dray", dray, "--fakeecr", fakeecr)
	cmd.Env = quiet(t, "PORT=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, operation := range []string{"pull through dray, warm", "3 clients at once, warm", "pull what was pushed"} {
		found := false
		for line := range strings.Lines(string(out)) {
			found = found || strings.Contains(line, operation) && strings.HasSuffix(strings.TrimSpace(line), "100 %")
		}
		if !found {
			t.Errorf("%s: not served from the cache alone\n%s", operation, out)
		}
	}
}

// TestPlaytestStaysUntilInterrupted tries some of the commands that the playtest prints.
func TestPlaytestStaysUntilInterrupted(t *testing.T) {
	dray, fakeecr, playtest := binaries(t)
	leftNothing(t)
	cmd := exec.CommandContext(t.Context(), playtest, "--clients", "1", "--dray", dray, "--fakeecr", fakeecr)
	cmd.Env = quiet(t, "PORT=0")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	byHand := regexp.MustCompile(`curl --cacert (\S+) (\S+/tags/list)`)
	metrics := regexp.MustCompile(`curl -s (\S+/metrics) \| grep`)
	var tags, counted string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		said.WriteString(lines.Text() + "\n")
		if m := byHand.FindStringSubmatch(lines.Text()); m != nil {
			tags = getTrusting(t, m[1], m[2])
		}
		if m := metrics.FindStringSubmatch(lines.Text()); m != nil {
			counted = getTrusting(t, os.DevNull, m[1])
		}
		if strings.Contains(lines.Text(), "*.log") { // the last line
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				t.Error(err)
			}
		}
	}
	if err := cmd.Wait(); err != nil || !strings.Contains(said.String(), "registry-mirrors") {
		t.Errorf("%v\n%s", err, &said)
	}
	if !strings.Contains(tags, `"one"`) || !strings.Contains(tags, `"two"`) {
		t.Errorf("tags by hand: %s", tags)
	}
	if !strings.Contains(counted, "\ndray_upstream_received_bytes_total{") || !strings.Contains(counted, "\ndray_upstream_requests_total{") {
		t.Errorf("metrics by hand: %s", counted)
	}
}

// TestPlaytestWithARegistry gives the playtest a registry that it did not start, as if it were
// a real ECR.
func TestPlaytestWithARegistry(t *testing.T) {
	dray, fakeecr, playtest := binaries(t)
	registry, err := start(t.TempDir(), fakeecr, quiet(t))
	if err != nil {
		t.Fatal(err)
	}
	defer registry.stop()
	line, err := registry.line(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var ready struct{ Registry, RegistryHost, API, Control string }
	if err := json.Unmarshal([]byte(line), &ready); err != nil {
		t.Fatal(err)
	}
	leftNothing(t)
	cmd := exec.CommandContext(t.Context(), playtest, "--once", "--clients", "2", "--dray", dray, "--fakeecr", fakeecr)
	cmd.Env = quiet(t, "PORT=0", "ECR_REGISTRY=http://"+ready.RegistryHost, "DRAY_ECR_ADDRESS="+strings.TrimPrefix(ready.Registry, "http://"), "REGION=eu-west-1", "AWS_ACCESS_KEY_ID=AKIATEST", "AWS_SECRET_ACCESS_KEY=x",
		"AWS_ENDPOINT_URL_ECR="+ready.API, "AWS_ENDPOINT_URL_CLOUDWATCH="+ready.API, "AWS_EC2_METADATA_DISABLED=true")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{`pull from ECR itself .* - +- +-`, `pull through dray, cold .* 0 %`, `pull through dray, warm .* 0\.0 MB +0 +100 %`, `pull what was pushed .* 100 %`} {
		if !regexp.MustCompile(want).Match(out) {
			t.Errorf("no line is like %s:\n%s", want, out)
		}
	}
	var images []struct{ Repository string }
	if err := get(t.Context(), ready.Control+"/images", func(body io.Reader) error { return json.NewDecoder(body).Decode(&images) }); err != nil {
		t.Fatal(err)
	}
	for _, img := range images {
		if img.Repository != repository {
			t.Errorf("the repository %s was touched", img.Repository)
		}
	}
	if len(images) == 0 {
		t.Error("the registry has no image")
	}
	http.DefaultClient.CloseIdleConnections()
}

// TestListensWhereItsClientsAre: other machines cannot connect, unless the clients' name
// resolves to another interface or DRAY_ADDRESS says so.
func TestListensWhereItsClientsAre(t *testing.T) {
	for _, tc := range []struct {
		name           string
		registry, vars string
		want, dial     string
		open           bool
	}{
		{"as it comes", "localhost:5000", "", "127.0.0.1", "127.0.0.1:5000", false},
		{"an address of the loopback interface", "127.0.0.1:5000", "", "127.0.0.1", "127.0.0.1:5000", false},
		{"a name that leads nowhere", "dray.invalid:5000", "", "127.0.0.1", "127.0.0.1:5000", false},
		{"an address of this network", "192.0.2.7:5000", "", "", "127.0.0.1:5000", true},
		{"asked for", "localhost:5000", ":5000", "", "127.0.0.1:5000", true},
		{"asked for on IPv6", "localhost:5000", "[::1]:5000", "::1", "[::1]:5000", false},
		{"closed in spite of the name", "192.0.2.7:5000", "127.0.0.2:5000", "127.0.0.2", "127.0.0.2:5000", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := &testbed{registry: tc.registry, vars: map[string]string{"DRAY_ADDRESS": tc.vars, "PORT": "5000"}}
			got := s.listenAt(t.Context())
			s.vars["DRAY_ADDRESS"] = net.JoinHostPort(got, "5000")
			if got != tc.want || s.isOpen() != tc.open || s.dialAt() != tc.dial {
				t.Errorf("%q, open %v, dialled at %s", got, s.isOpen(), s.dialAt())
			}
			var next strings.Builder
			s.printNext(&next)
			if strings.Contains(next.String(), "WARNING: other machines") != tc.open {
				t.Errorf("printed: %s", &next)
			}
			if strings.Contains(next.String(), "sudo mkdir") == (strings.HasPrefix(s.registry, "localhost") || strings.HasPrefix(s.registry, "127.")) {
				t.Errorf("%s; printed: %s", s.registry, &next)
			}
		})
	}
}

// getTrusting is curl --cacert.
func getTrusting(t *testing.T, certificate, url string) string {
	t.Helper()
	pem, err := os.ReadFile(certificate)
	if err != nil {
		t.Error(err)
		return ""
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		t.Error(err)
		return ""
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return string(body)
}

// script is an executable that stands for dray.
func script(t *testing.T, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dray")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFailuresAreExplained(t *testing.T) {
	dray, fakeecr, _ := binaries(t)
	taken, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	for _, tc := range []struct {
		name, dray, fakeecr, port, want string
	}{
		{"no dray", "/nowhere/dray", fakeecr, "0", "/nowhere/dray: no such file"},
		{"no certificate", script(t, "echo no luck; exit 1"), fakeecr, "0", "make a certificate: exit status 1: no luck"},
		{"no stand-in", dray, script(t, "echo who am I >&2; exit 1"), "0", "who am I"},
		{"port in use", dray, fakeecr, port, "port " + port + " is in use, on macOS often by AirPlay Receiver; try another: make -e PORT=5001 playtest"},
		{"dray ends", script(t, `[ "$1" = cert ] && exec `+dray+` "$@"; echo giving up >&2; exit 3`), fakeecr, "0", "it ended: exit status 3\ngiving up"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			leftNothing(t)
			var out, errs bytes.Buffer
			code := run(t.Context(), []string{"--once", "--dray", tc.dray, "--fakeecr", tc.fakeecr}, quiet(t, "PORT="+tc.port), &out, &errs)
			if code != 1 || !strings.Contains(errs.String(), tc.want) {
				t.Errorf("code %d\n%s", code, &errs)
			}
		})
	}
	if code := run(t.Context(), []string{"--bogus"}, nil, io.Discard, io.Discard); code != 2 {
		t.Errorf("wrong usage: code %d", code)
	}
}

// TestMeterOfARealRegistry: a real registry reports no traffic, so dray's metrics are read.
func TestMeterOfARealRegistry(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "# HELP dray_upstream_requests_total x\n"+
			`dray_upstream_requests_total{kind="blob",method="GET",status="307",upstream="ecr"} 4`+"\n"+
			`dray_upstream_requests_total{kind="manifest",method="GET",status="200",upstream="ecr"} 2`+"\n"+
			"dray_upstream_received_bytes_total{kind=\"blob\"} 2.49e+07\ndray_upstream_retries_total 9\n")
	}))
	defer server.Close()
	s := &testbed{admin: server.Listener.Addr().String()}
	got, err := s.meter(t.Context())
	if err != nil || got != (traffic{requests: 6, bytes: 24_900_000}) {
		t.Errorf("got %+v, %v", got, err)
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestRegionOf(t *testing.T) {
	for host, want := range map[string]string{
		"123456789012.dkr.ecr.eu-west-1.amazonaws.com": "eu-west-1", "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn": "cn-north-1",
		"123456789012.dkr-ecr.us-east-2.on.aws": "us-east-2", "123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com": "us-gov-west-1", "localhost": "",
	} {
		if got := regionOf(host); got != want {
			t.Errorf("%s: %q, want %q", host, got, want)
		}
	}
}

func TestVerdict(t *testing.T) {
	good := []row{{operation: "pull through dray, cold", client: 100, ecr: traffic{1, 100}, through: true, pull: true},
		{operation: "pull through dray, warm", client: 100, through: true, pull: true}, {operation: "pull from ECR itself", client: 100, pull: true}}
	if err := verdict(good); err != nil {
		t.Error(err)
	}
	for _, bad := range []row{{operation: "pull through dray, cold", client: 100, through: true, pull: true},
		{operation: "pull through dray, warm", client: 100, ecr: traffic{1, 50}, through: true, pull: true}} {
		if verdict([]row{bad}) == nil {
			t.Errorf("%+v passed", bad)
		}
	}
}

func TestTable(t *testing.T) {
	var out strings.Builder
	printTable(&out, []row{{operation: "pull, cold", took: 1500e6, client: 80e6, ecr: traffic{9, 10e6}, metered: true, through: true, pull: true}, {operation: "push", client: 5e5}})
	want := `
  operation     time  to/from client  from ECR  requests to ECR  hits
  pull, cold  1.50 s         80.0 MB   10.0 MB                9  88 %
  push        0.00 s          0.5 MB         -                -     -
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestImagesDifferByLabelAlone(t *testing.T) {
	digests := map[string]int{}
	for _, label := range []string{"a", "b", "a"} {
		img, err := makeImage(label, "image.go", "image.go")
		if err != nil {
			t.Fatal(err)
		}
		m, err := img.Manifest()
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range m.Layers {
			digests[l.Digest.String()]++
		}
	}
	if len(digests) != 4 {
		t.Errorf("%d layers, want 4: two of each label, the same each time", len(digests))
	}
}
