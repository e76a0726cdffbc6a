package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"dray/cmd/dray/config"
	"dray/cmd/dray/program"
	"dray/upstream/ecrtest"
)

// served is dray, run by its arguments and environment alone.
type served struct {
	stderr *recording
	client *http.Client
	end    func() int
}

// deaf returns an address of 127.0.0.1 at which nobody listens before the test ends.
func deaf(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	bound, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", bound.(*syscall.SockaddrInet4).Port)
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// runServe runs `dray serve` until the test ends or end is called, which returns
// its exit code. It returns when ready answers.
func runServe(t *testing.T, environ []string, client *http.Client, ready string) *served {
	t.Helper()
	s := &served{stderr: &recording{}, client: client}
	ctx, cancel := context.WithCancel(context.Background())
	code := make(chan int, 1)
	go func() { code <- run(ctx, []string{"serve"}, environ, strings.NewReader(""), io.Discard, s.stderr) }()
	s.end = sync.OnceValue(func() int { cancel(); return <-code })
	t.Cleanup(func() {
		s.end()
		if t.Failed() {
			t.Log(s.stderr.String())
		}
	})
	for deadline := time.Now().Add(20 * time.Second); ; {
		resp, err := client.Get(ready)
		if err == nil {
			resp.Body.Close()
			return s
		}
		select {
		case c := <-code:
			t.Fatalf("serve ended with %d\n%s", c, s.stderr)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("not ready: %v\n%s", err, s.stderr)
		}
	}
}

// TestServeZeroConfiguration: without any configuration dray serves Docker Hub on the
// loopback interface, and keeps what it has in the cache directory.
func TestServeZeroConfiguration(t *testing.T) {
	dir, port := t.TempDir(), freePort(t)
	admin := "127.0.0.1:" + freePort(t)
	s := runServe(t, []string{"XDG_CACHE_HOME=" + dir, "PORT=" + port, "DRAY_ADMIN_ADDRESS=" + admin}, &http.Client{}, "http://127.0.0.1:"+port+"/v2/")
	for path, want := range map[string]string{"/metrics": "dray_requests_total", "/healthz": "", "/readyz": `"name": "upstream docker.io"`, "/debug/pprof/": "goroutine"} {
		resp, err := s.client.Get("http://" + admin + path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		if resp.Body.Close(); resp.StatusCode != 200 || !strings.Contains(string(body), want) {
			t.Errorf("%s: %s\n%.300s", path, resp.Status, body)
		}
	}
	for _, address := range interfaceAddresses(t) {
		if c, err := net.DialTimeout("tcp", net.JoinHostPort(address, port), time.Second); err == nil {
			c.Close()
			t.Errorf("dray listens on %s", address)
		}
	}
	resp, err := s.client.Post("http://127.0.0.1:"+port+"/v2/library/x/blobs/uploads/", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != 403 || !strings.Contains(string(body), "DENIED") {
		t.Errorf("a push to the mirror: %s %s", resp.Status, body)
	}
	if code := s.end(); code != 0 {
		t.Errorf("ended with %d\n%s", code, s.stderr)
	}
	if _, err := os.Stat(filepath.Join(dir, "dray", "content", "blobs")); err != nil {
		t.Error(err)
	}
}

// interfaceAddresses are the machine's addresses besides the loopback ones.
func interfaceAddresses(t *testing.T) (out []string) {
	t.Helper()
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && n.IP.To4() != nil {
			out = append(out, n.IP.String())
		}
	}
	return out
}

// TestServeContract: the six variables of the predecessor alone make a working proxy
// with TLS for pull and push, and publish its metric.
func TestServeContract(t *testing.T) {
	ecr := ecrtest.Start(t, ecrtest.Options{SelfSigned: true})
	cert, key := filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	if code, _, stderr := runDray(t, nil, "cert", "--host", "127.0.0.1", "--out-cert", cert, "--out-key", key); code != 0 {
		t.Fatal(stderr)
	}
	setenv(t, "AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
	setenv(t, "AWS_SECRET_ACCESS_KEY", "not-a-secret")
	setenv(t, "AWS_ENDPOINT_URL_ECR", ecr.APIURL)
	setenv(t, "AWS_ENDPOINT_URL_CLOUDWATCH", ecr.APIURL)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, ecr.CAPEM, 0o600); err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	roots := x509.NewCertPool()
	pem, _ := os.ReadFile(cert)
	roots.AppendCertsFromPEM(pem)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	defer client.CloseIdleConnections()
	base := "https://127.0.0.1:" + port
	s := runServe(t, []string{
		"TLS_CERTIFICATE=" + cert, "TLS_PRIVATE_KEY=" + key, "ECR_REGISTRY=" + ecr.RegistryHost, "REGISTRY=127.0.0.1:" + port, "PORT=" + port, "REGION=eu-west-1",
		// Where the fake is, which the names of the real one would tell.
		"DRAY_ECR_ADDRESS=" + ecr.RegistryAddr, "DRAY_ECR_CA_FILE=" + ca, "DRAY_CACHE_DIRECTORY=" + t.TempDir(), "DRAY_ADMIN_ADDRESS=127.0.0.1:" + freePort(t),
	}, client, base+"/v2/")

	whole := &stack{TB: t, ecr: ecr, url: base, client: client}
	m := whole.push("team/app", "v1", []byte("a layer"))
	if r := whole.want(200, "GET", "/v2/team/app/manifests/v1", nil); string(r.body) != string(m.Raw) {
		t.Error("the manifest differs")
	}
	if _, ok := ecr.Image("team/app", "v1"); !ok {
		t.Error("ECR does not have the image")
	}
	if code := s.end(); code != 0 {
		t.Errorf("ended with %d", code)
	}
	metrics := ecr.Metrics()
	if len(metrics) != 1 || metrics[0].Namespace != "Custom/ecr_reverse_proxy" || metrics[0].MetricName != "ECRImagePulls" || len(metrics[0].Dimensions) != 0 {
		t.Errorf("CloudWatch got %+v, want one pull without dimensions", metrics)
	}
	if n := ecr.Count(ecrtest.KindMetricPut); n != 1 {
		t.Errorf("%d calls of CloudWatch", n)
	}
}

// TestServeRefusesAWrongConfiguration: nothing starts, and every problem is listed.
func TestServeRefusesAWrongConfiguration(t *testing.T) {
	path := write(t, "dray.yaml", "log: {level: loud}\ncash: 1\n")
	code, _, stderr := runDray(t, []string{"XDG_CACHE_HOME=" + t.TempDir()}, "serve", "--config", path)
	if code != 1 || !strings.Contains(stderr, "cash") || !strings.Contains(stderr, "loud") {
		t.Errorf("code %d\n%s", code, stderr)
	}
}

// TestServeAddressInUse: a start that cannot listen everywhere answers nobody.
func TestServeAddressInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	for _, tc := range []struct{ address, admin, want string }{
		{"PORT=" + port, "DRAY_ADMIN_ADDRESS=off", "address already in use; set another address with listeners[0].address, DRAY_ADDRESS or PORT"},
		{"DRAY_ADDRESS=127.0.0.1:0", "DRAY_ADMIN_ADDRESS=127.0.0.1:" + port, "address already in use; set another address with admin.address or DRAY_ADMIN_ADDRESS"},
	} {
		code, _, stderr := runDray(t, []string{"XDG_CACHE_HOME=" + t.TempDir(), tc.address, tc.admin}, "serve")
		if code != 1 || !strings.Contains(stderr, tc.want) {
			t.Errorf("code %d\n%s", code, stderr)
		}
	}
}

// TestServeDirectoryInUse: a second dray on the directory of another says what to change.
func TestServeDirectoryInUse(t *testing.T) {
	s := startStack(t, t.TempDir())
	code, _, stderr := runDray(t, []string{"DRAY_CACHE_DIRECTORY=" + s.cfg.Cache.Directory, "DRAY_ADDRESS=127.0.0.1:0", "DRAY_ADMIN_ADDRESS=off"}, "serve")
	if code != 1 || !strings.HasPrefix(lastLine(stderr), "dray: cache: ") || !strings.Contains(stderr, "in use by another process; set another directory with cache.directory or DRAY_CACHE_DIRECTORY") {
		t.Errorf("code %d\n%s", code, stderr)
	}
}

func lastLine(text string) string {
	text = strings.TrimSuffix(text, "\n")
	return text[strings.LastIndexByte(text, '\n')+1:]
}

// TestStartIsOneLine: the first line of the log says what runs, and where its cache lies.
func TestStartIsOneLine(t *testing.T) {
	cfg, err := load("", []string{"ECR_REGISTRY=" + testRegistry, "DRAY_CACHE_MAX_BYTES=200GiB"})
	if err != nil {
		t.Fatal(err)
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	logStart(cfg, []string{"beware."}, slog.New(slog.NewTextHandler(&out, nil)))
	first, rest, _ := strings.Cut(out.String(), "\n")
	for _, want := range []string{"level=INFO msg=starting ", "version=" + program.Version(), "cache=" + filepath.Join(here, "data") + " ", "cache_max_bytes=200GiB", "upstreams=docker.io,ecr"} {
		if !strings.Contains(first, want) {
			t.Errorf("%q is not in %s", want, first)
		}
	}
	if !strings.Contains(rest, "level=WARN msg=beware.") || strings.Count(rest, "\n") != 1 {
		t.Errorf("then: %s", rest)
	}
}

// With too few descriptors dray does not start, and says what to do; with few it says how many
// connections it serves.
func TestFewOpenFiles(t *testing.T) {
	var former syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &former); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &former); err != nil {
			t.Error(err)
		}
	}()
	for _, test := range []struct {
		files uint64
		l     config.Listener
		want  string
	}{
		{50, config.Listener{}, "at most 50 files may be open, and dray needs 64 or more; raise"},
		{70, config.Listener{}, "dray serves 8 connections at a time; raise"},
		{264, config.Listener{}, "dray serves 50 connections at a time; raise"},
		{264, config.Listener{Send: config.SendSplice}, "dray serves 34 connections at a time; raise"},
		{264, config.Listener{Send: config.SendSplice, TLS: config.ServerTLS{Certificate: "cert.pem"}}, "dray serves 50 connections at a time; raise"},
	} {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: test.files, Max: former.Max}); err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		g := &graph{log: slog.New(slog.NewTextHandler(&log, nil)), metrics: prometheus.NewRegistry(), cfg: config.Config{Listeners: []config.Listener{test.l}}}
		err := g.buildConnections(t.Context())
		if text := fmt.Sprint(err, log.String()); !strings.Contains(text, test.want) {
			t.Errorf("with %d: %s", test.files, text)
		}
	}
}

// Without AWS credentials the log says so, in lines of its own format alone, and what to do about
// it.
func TestServeWithoutCredentials(t *testing.T) {
	metadata := httptest.NewServer(http.NotFoundHandler())
	defer metadata.Close()
	none := filepath.Join(t.TempDir(), "none")
	for name, value := range map[string]string{
		metadataEndpoint: metadata.URL, "AWS_EC2_METADATA_DISABLED": "", "AWS_CONFIG_FILE": none, "AWS_SHARED_CREDENTIALS_FILE": none,
		"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_PROFILE": "",
	} {
		t.Setenv(name, value)
	}
	port := freePort(t)
	at := "http://127.0.0.1:" + port
	s := runServe(t, []string{
		"DRAY_CACHE_DIRECTORY=" + t.TempDir(), "PORT=" + port, "DRAY_ADMIN_ADDRESS=off", "DRAY_LOG_FORMAT=json",
		"ECR_REGISTRY=123456789012.dkr.ecr.eu-west-1.amazonaws.com",
	}, &http.Client{}, at+"/v2/")
	resp, err := s.client.Get(at + "/v2/team/app/manifests/1")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	if resp.Body.Close(); resp.StatusCode != 503 || !strings.Contains(string(body), "has no AWS credentials; set AWS_PROFILE") {
		t.Errorf("%s: %s", resp.Status, body)
	}
	if code := s.end(); code != 0 {
		t.Errorf("ended with %d", code)
	}
	log := s.stderr.String()
	for _, want := range []string{"AWS SDK", "has no AWS credentials"} {
		if !strings.Contains(log, want) {
			t.Errorf("no line has %q", want)
		}
	}
	for line := range strings.Lines(log) {
		if !json.Valid([]byte(line)) {
			t.Errorf("a line of another format: %s", line)
		}
	}
}
