package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

// TestMain runs the command itself when a test starts this binary as fakeecr.
func TestMain(m *testing.M) {
	if os.Getenv("RUN_FAKEECR") == "1" {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

// fakeecr starts the command as a process and reads its line. stop ends it by SIGTERM and returns
// how it exited.
func fakeecr(t *testing.T, args ...string) (addr ready, stop func() error) {
	t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), os.Args[0], args...) // the clean-up ends it
	cmd.Env = append(os.Environ(), "RUN_FAKEECR=1", "TMPDIR="+t.TempDir())
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		t.Fatalf("no line: %v, %v", err, cmd.Wait())
	}
	if err := json.Unmarshal(line, &addr); err != nil {
		t.Fatalf("%v in %s", err, line)
	}
	stopped := false
	stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			return err
		}
		return cmd.Wait()
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("exit: %v", err)
		}
	})
	return addr, stop
}

// getAt fetches under the name of a host.
func getAt(t *testing.T, host, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	return fetch(t, req)
}

// fetch sends a request over a connection of its own.
func fetch(t *testing.T, req *http.Request) (int, string) {
	t.Helper()
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// get fetches, with the user in the URL if there is one.
func get(t *testing.T, method, url, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if u := req.URL.User; u != nil {
		password, _ := u.Password()
		req.SetBasicAuth(u.Username(), password)
	}
	return fetch(t, req)
}

func TestProcess(t *testing.T) {
	data, file := filepath.Join(t.TempDir(), "data"), filepath.Join(t.TempDir(), "ready.json")
	addr, stop := fakeecr(t, "--account", "210987654321", "--region", "us-east-1", "--data", data, "--ready-file", file,
		"--seed", "team/app:v1=3x5000", "--repository", "team/empty", "--switches", `{"invalidTokenStatus":403}`, "--creation-delay", "5s", "--more", "123456789012/eu-west-1")
	if !strings.HasPrefix(addr.Host, "210987654321.dkr.ecr.us-east-1.amazonaws.com:") || addr.Personality != "ecr" || len(addr.Images["team/app:v1"]) != 71 {
		t.Errorf("%+v", addr)
	}
	var again ready
	written, err := os.ReadFile(file)
	if err != nil || json.Unmarshal(written, &again) != nil || again.Registry != addr.Registry || again.PID != addr.PID {
		t.Errorf("ready file: %s, %v", written, err)
	}
	if status, body := get(t, "GET", addr.Registry+"/v2/", ""); status != 401 || body != "Not Authorized\n" {
		t.Errorf("by address: %d %s", status, body)
	}
	if status, body := get(t, "GET", strings.Replace(addr.Registry, "http://", "http://AWS:x@", 1)+"/v2/", ""); status != 403 {
		t.Errorf("switch: %d %s", status, body)
	}
	for host, want := range map[string]int{"123456789012.dkr.ecr.eu-west-1.amazonaws.com": 401, "123456789012.dkr.ecr.us-east-1.amazonaws.com": 400} {
		if status, body := getAt(t, host, addr.Registry+"/v2/"); status != want {
			t.Errorf("%s: %d %s", host, status, body)
		}
	}
	if status, body := get(t, "GET", addr.Control+"/switches", ""); status != 200 || !strings.Contains(body, `"creationDelay":5000000000`) {
		t.Errorf("switches: %d %s", status, body)
	}
	if status, body := get(t, "GET", addr.Control+"/images", ""); status != 200 || !strings.Contains(body, addr.Images["team/app:v1"]) {
		t.Errorf("control: %d %s", status, body)
	}
	blobs, err := filepath.Glob(filepath.Join(data, "blobs", "*"))
	if err != nil || len(blobs) != 4 {
		t.Errorf("blobs in --data: %v, %v", blobs, err)
	}
	// A request that stalls does not keep the process from ending.
	get(t, "POST", addr.Control+"/faults", `{"kinds":["base"],"latency":"1h","count":-1}`)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, addr.Registry+"/v2/", nil)
	if err != nil {
		t.Fatal(err)
	}
	stalled := make(chan error, 1)
	go func() {
		tr := &http.Transport{DisableKeepAlives: true}
		resp, err := tr.RoundTrip(req)
		if err == nil {
			err = resp.Body.Close()
		}
		stalled <- err
	}()
	if err := stop(); err != nil {
		t.Errorf("exit: %v", err)
	}
	<-stalled
}

func TestPublic(t *testing.T) {
	addr, _ := fakeecr(t, "--public", "--seed", "docker/library/alpine:3")
	if addr.Personality != "ecr-public" {
		t.Errorf("%+v", addr)
	}
	if status, body := get(t, "GET", addr.Registry+"/v2/docker/library/alpine/manifests/3", ""); status != 401 || len(body) != 58 {
		t.Errorf("without a token: %d %q", status, body)
	}
	if status, body := get(t, "GET", addr.Registry+"/token/?service=public.ecr.aws&scope=aws", ""); status != 200 || !strings.Contains(body, `"token":`) {
		t.Errorf("anonymous token: %d %s", status, body)
	}
}

func TestHubWithTLS(t *testing.T) {
	ca := filepath.Join(t.TempDir(), "ca.pem")
	addr, _ := fakeecr(t, "--hub", "--tls", "--ca-file", ca, "--hub-user", "me:secret", "--hub-push-needs-user")
	if addr.Personality != "hub" || !strings.HasPrefix(addr.Registry, "https://127.0.0.1:") || addr.CA != ca {
		t.Errorf("%+v", addr)
	}
	text, err := os.ReadFile(ca)
	if err != nil || !bytes.HasPrefix(text, []byte("-----BEGIN CERTIFICATE-----")) {
		t.Errorf("%s, %v", text, err)
	}
}

func TestBadFlags(t *testing.T) {
	for _, args := range [][]string{{"--nonsense"}, {"extra"}, {"--seed", "x"}, {"--seed", "a:b=0x1"}, {"--seed", "UPPER:x"}, {"--switches", `{"no":1}`}, {"--pull-through", "x"}, {"--more", "x"}, {"--hub", "--public"}, {"--hub", "--env"}, {"--hub", "/bin/true"}, {"--public", "--env"}, {"--more", "1/eu-west-1"}, {"--creation-delay", "soon"},
		{"--hub-user", "x"}, {"--account", "1"}, {"--tls-cert", "/nonexistent"}, {"--registry", "256.0.0.1:1"}, {"--ready-file", "/nonexistent/x"}} {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := run(ctx, args, io.Discard, io.Discard); err == nil {
			t.Errorf("%q: accepted", args)
		}
	}
	if err := run(t.Context(), []string{"--help"}, io.Discard, io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("--help: %v", err)
	}
}

// TestCommandIsTold: a command gets one SIGTERM when the process gets one, and its end is that of
// the process.
func TestCommandIsTold(t *testing.T) {
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), os.Args[0], "/bin/sh", "-c", `trap 'echo told; exit 0' TERM; echo ready; while :; do sleep 0.1; done`)
	cmd.Env = append(os.Environ(), "RUN_FAKEECR=1", "TMPDIR="+t.TempDir())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	if line, err := lines.ReadString('\n'); line != "ready\n" {
		t.Errorf("%q, %v", line, err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if rest, err := io.ReadAll(lines); string(rest) != "told\n" {
		t.Errorf("%q, %v", rest, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// TestCommandIsEnded: a command that SIGTERM ends is no failure if the process got a signal. Any
// other failure of the command is one.
func TestCommandIsEnded(t *testing.T) {
	for script, want := range map[string]string{"echo; exec sleep 1000": "", "trap 'exit 3' TERM; echo; while :; do sleep 0.1; done": "/bin/sh: exit status 3"} {
		ctx, cancel := context.WithCancel(t.Context())
		out, in := io.Pipe()
		go func() {
			_, _ = bufio.NewReader(out).ReadString('\n') // it runs
			cancel()
		}()
		if err := run(ctx, []string{"/bin/sh", "-c", script}, in, t.Output()); want == "" && err != nil || want != "" && (err == nil || err.Error() != want) {
			t.Errorf("%s: %v, want %q", script, err, want)
		}
		cancel()
	}
}

// TestEnvironment prints what dray needs to use the stand-in, and --tls covers the object store.
func TestEnvironment(t *testing.T) {
	ca, pair := filepath.Join(t.TempDir(), "it's ca.pem"), writePair(t)
	for _, test := range []struct {
		args []string
		want []string
	}{
		{nil, []string{"export ECR_REGISTRY='http://123456789012.dkr.ecr.eu-west-1.amazonaws.com'", "export DRAY_ECR_ADDRESS='127.0.0.1:", "export AWS_ENDPOINT_URL_ECR='http://127.0.0.1:"}},
		{[]string{"--tls", "--ca-file", ca}, []string{"export ECR_REGISTRY='123456789012.", `it'\''s ca.pem'`}},
		{[]string{"--tls-cert", pair, "--tls-key", pair}, []string{"export ECR_REGISTRY='123456789012."}},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		var out bytes.Buffer
		cancel()
		if err := run(ctx, append(test.args, "--env"), &out, io.Discard); err != nil {
			t.Fatal(err)
		}
		for _, want := range test.want {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%q prints no %q:\n%s", test.args, want, out.String())
			}
		}
	}
	for _, args := range [][]string{nil, {"--ca-file", ca}} {
		var out bytes.Buffer
		if err := run(t.Context(), append(args, "/bin/sh", "-c", `cat "$DRAY_ECR_CA_FILE" && echo "$ECR_REGISTRY" && kill -TERM $$`), &out, io.Discard); err == nil || !strings.Contains(err.Error(), "/bin/sh: signal") {
			t.Errorf("%q: a command that is killed: %v", args, err)
		}
		if got := out.String(); !strings.HasPrefix(got, "-----BEGIN CERTIFICATE-----") || !strings.HasSuffix(got, "\n123456789012.dkr.ecr.eu-west-1.amazonaws.com\n") {
			t.Errorf("%q: a command gets %s", args, got)
		}
	}
	if addr, _ := fakeecr(t, "--tls", "--ca-file", ca); !strings.HasPrefix(addr.Objects, "https://") {
		t.Errorf("the objects are at %s", addr.Objects)
	}
}

// writePair writes a file with a certificate and its key.
func writePair(t *testing.T) string {
	t.Helper()
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	pair := s.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "pair.pem")
	text := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
