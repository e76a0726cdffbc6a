package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dray/cmd/dray/config"
)

var update = flag.Bool("update", false, "write golden files anew")

// runDray runs the program and returns its exit code and what it wrote.
func runDray(t *testing.T, environ []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, environ, strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

// golden compares got with a file, or writes the file with -update.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s is not current (go test ./cmd/dray -update writes it anew):\n%s", path, diff)
	}
}

func TestUsage(t *testing.T) {
	for _, tc := range []struct {
		args   []string
		code   int
		stdout string
		stderr string
	}{
		{args: nil, code: 0, stdout: "Available Commands:"},
		{args: []string{"--help"}, code: 0, stdout: "Available Commands:"},
		{args: []string{"version"}, code: 0, stdout: "dray "},
		{args: []string{"--version"}, code: 0, stdout: "dray version "},
		{args: []string{"bogus"}, code: 2, stderr: `unknown command "bogus"; see dray --help`},
		{args: []string{"sevre"}, code: 2, stderr: `unknown command "sevre", did you mean serve?; see dray --help`},
		{args: []string{"check", "me"}, code: 2, stderr: `dray check takes no argument, got "me"`},
		{args: []string{"evict"}, code: 2, stderr: "dray: set --dry-run, or --bytes to the number of bytes to free; see dray evict --help\n"},
		{args: []string{"purge"}, code: 2, stderr: "dray: name an image or a digest, or set --repository; see dray purge --help\n"},
		{args: []string{"queue", "drop"}, code: 2, stderr: "see dray queue drop --help\n"},
		{args: []string{"pin", "--bogus"}, code: 2, stderr: "dray: unknown flag: --bogus; see dray pin --help\n"},
		{args: []string{"check", "--bogus"}, code: 2, stderr: "unknown flag: --bogus"},
		{args: []string{"check", "--config", "/nowhere/dray.yaml"}, code: 1, stderr: "open /nowhere/dray.yaml: no such file"},
	} {
		code, stdout, stderr := runDray(t, nil, tc.args...)
		if code != tc.code || !strings.Contains(stdout, tc.stdout) || !strings.Contains(stderr, tc.stderr) {
			t.Errorf("%q: code %d\nstdout %s\nstderr %s", tc.args, code, stdout, stderr)
		}
	}
}

// fullConfiguration is testdata/full.yaml with files that exist, and what puts their names back.
func fullConfiguration(t *testing.T) (text string, back *strings.Replacer) {
	t.Helper()
	password := write(t, "password", "from-a-file\n")
	htpasswd := write(t, "htpasswd", "ci:$2y$05$"+strings.Repeat("a", 53)+"\n")
	cert, key := keyPair(t)
	fleetSecret := write(t, "fleet", "from-a-file-of-the-fleet-with-32-characters\n")
	names := strings.NewReplacer("$FLEET_SECRET", fleetSecret, "$PASSWORD_FILE", password, "$HTPASSWD", htpasswd, "$CERT", cert, "$KEY", key)
	return names.Replace(read(t, "testdata/full.yaml")),
		strings.NewReplacer(fleetSecret, "$FLEET_SECRET", password, "$PASSWORD_FILE", htpasswd, "$HTPASSWD", cert, "$CERT", key, "$KEY")
}

func TestCheckPrintsEffectiveConfiguration(t *testing.T) {
	text, back := fullConfiguration(t)
	path := write(t, "dray.yaml", text)
	environ := []string{"QUAY_PASSWORD=from-the-environment", "DRAY_METADATA_PASSWORD=redis-secret", "DRAY_CONFIG=" + path}

	code, stdout, stderr := runDray(t, environ, "check")
	if code != 0 {
		t.Fatalf("code %d\n%s", code, stderr)
	}
	for _, secret := range []string{"from-a-file", "from-the-environment", "redis-secret", "in-the-url"} {
		if strings.Contains(stdout+stderr, secret) {
			t.Errorf("%s is printed", secret)
		}
	}
	if n := strings.Count(stdout, "[redacted]"); n != 3 {
		t.Errorf("%d redacted secrets, want 3", n)
	}
	golden(t, "testdata/full.golden.yaml", back.Replace(stdout))
	golden(t, "testdata/full.notices", stderr)
}

// TestCheckPrintsNoTokens: whatever services and scanners get, dray check does not print it, in a
// configuration that is right or wrong.
func TestCheckPrintsNoTokens(t *testing.T) {
	const services = `
notifications:
  - {url: "https://events.example/hooks/S3CR?key=S3CR", headers: {Authorization: "Bearer S3CR", X-Custom: S3CR}}
checks:
  - name: s
    webhooks: [{name: w, mode: warn, url: "https://S3CR@judge.example/S3CR"}]
    exec: [{name: e, mode: warn, command: [/bin/true, --token, S3CR], environment: ["HARMLESS=S3CR"]}]
`
	file := write(t, "secrets", "S3CR\n") // no header, no variable and no URL
	for name, tc := range map[string]struct {
		text string
		code int
	}{
		"right":           {services, 0},
		"no scheme":       {strings.ReplaceAll(services, "https://", ""), 1},
		"no URL":          {strings.ReplaceAll(services, "https://", "https:// "), 1},
		"no variable":     {strings.ReplaceAll(services, "HARMLESS=", ""), 1},
		"no header":       {strings.ReplaceAll(services, "headers:", "headers_file: "+file+", headers:"), 1},
		"no header name":  {strings.ReplaceAll(services, "X-Custom:", "X Custom:"), 1},
		"no URL in it":    {strings.ReplaceAll(services, `url: "https://S3CR@judge.example/S3CR"`, "url_file: "+file), 1},
		"nothing set in":  {strings.ReplaceAll(services, "environment:", "environment_file: "+file+", environment:"), 1},
		"unknown key":     {services + "unknown: S3CR\n", 1},
		"not an upstream": {services + "upstreams: [{url: \"https://S3CR:S3CR@registry.example\"}, {url: \"https://S3CR:S3CR@regi stry.example\"}]\n", 1},
	} {
		code, stdout, stderr := runDray(t, nil, "check", "--config", write(t, "dray.yaml", tc.text))
		if (code != 0) != (tc.code != 0) || strings.Contains(stdout+stderr, "S3CR") {
			t.Errorf("%s: code %d\n%s%s", name, code, stdout, stderr)
		}
		if code == 0 && (!strings.Contains(stdout, "HARMLESS=[redacted]") || !strings.Contains(stdout, "X-Custom: '[redacted]'")) {
			t.Errorf("%s: the names are not printed:\n%s", name, stdout)
		}
	}
}

// TestCheckedConfigurationIsAFile: the output of check, but for the secrets, is a file with the
// same meaning.
func TestCheckedConfigurationIsAFile(t *testing.T) {
	cert, key := keyPair(t)
	first, err := load("", []string{"TLS_CERTIFICATE=" + cert, "TLS_PRIVATE_KEY=" + key, "ECR_REGISTRY=" + testRegistry, "REGISTRY=r.example.com", "PORT=444", "REGION=r"})
	if err != nil {
		t.Fatal(err)
	}
	var printed strings.Builder
	if err := first.Print(&printed); err != nil {
		t.Fatal(err)
	}
	second, err := load(write(t, "dray.yaml", printed.String()), nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, second); diff != "" {
		t.Error(diff)
	}
}

func TestCheckListsAllProblems(t *testing.T) {
	path := write(t, "dray.yaml", "log: {level: loud}\ncash: 1\n")
	code, stdout, stderr := runDray(t, []string{"PORT=x"}, "check", "-c", path)
	if code != 1 || stdout != "" || strings.Count(stderr, "\n") != 3 {
		t.Errorf("code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

func TestConfigPages(t *testing.T) {
	for page, want := range map[string]string{"reference": config.Reference, "example": config.Example} {
		if code, stdout, stderr := runDray(t, nil, "config", page); code != 0 || stdout != want {
			t.Errorf("%s: code %d\nstdout %s\nstderr %s", page, code, stdout, stderr)
		}
	}
}

func TestCert(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	args := []string{"cert", "--host", "dray.example.com:5000", "--host", "127.0.0.1", "--out-cert", cert, "--out-key", key}
	if code, _, stderr := runDray(t, nil, args...); code != 0 {
		t.Fatal(stderr)
	}
	if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key: %v, %v", info.Mode(), err)
	}
	before, _ := os.ReadFile(key)
	if code, _, stderr := runDray(t, nil, args...); code != 1 || !strings.HasPrefix(stderr, "dray: ") || !strings.Contains(stderr, "exists; use --force to overwrite it") {
		t.Errorf("second run: code %d, %s", code, stderr)
	}
	if after, _ := os.ReadFile(key); !bytes.Equal(before, after) {
		t.Error("the key was replaced without --force")
	}
	if err := os.Chmod(key, 0o666); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := runDray(t, nil, append(args, "--force")...); code != 0 {
		t.Fatal(stderr)
	}
	if info, _ := os.Stat(key); info.Mode().Perm() != 0o600 {
		t.Errorf("the replaced key kept the mode %v", info.Mode())
	}
	serveWith(t, cert, key)
}

// serveWith serves with the certificate and connects as a client that trusts only the certificate
// file.
func serveWith(t *testing.T, cert, key string) {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0) // clients here leave right after the handshake
	server.StartTLS()
	defer server.Close()
	pem, _ := os.ReadFile(cert)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	for _, name := range []string{"dray.example.com", "127.0.0.1"} {
		conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", server.Listener.Addr().String(), &tls.Config{RootCAs: pool, ServerName: name})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		conn.Close()
	}
	if left := time.Until(pair.Leaf.NotAfter); left < 364*24*time.Hour || left > 367*24*time.Hour {
		t.Errorf("valid for %v", left)
	}
}

func TestCertRefusesWrongHosts(t *testing.T) {
	for _, host := range []string{"https://x", "x/y", "a b", ""} {
		dir := t.TempDir()
		code, _, stderr := runDray(t, nil, "cert", "--host", host, "--out-cert", dir+"/c", "--out-key", dir+"/k")
		if code != 1 || !strings.Contains(stderr, "is not a host name or an IP address") {
			t.Errorf("%q: code %d, %s", host, code, stderr)
		}
		if left, _ := os.ReadDir(dir); len(left) != 0 {
			t.Errorf("%q: files were left behind", host)
		}
	}
}

// TestUnusedMethodsAreDropped: the linker leaves unused methods out only as long as nothing
// reachable looks methods up by a name it cannot know, as text/template does. With one such call
// the binary grows by about 12 MiB. The tag takes such a call out of gRPC, of which dray uses the
// generated types for traces alone.
func TestUnusedMethodsAreDropped(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "dray")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-tags=grpcnotrace", "-ldflags=-dumpdep -X dray/cmd/dray/program.version=1.2.3", "-o", binary, ".")
	graph, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, graph)
	}
	found := false
	for line := range strings.Lines(string(graph)) {
		if strings.Contains(line, "<ReflectMethod>") {
			t.Errorf("looks methods up by name: %s", line)
		}
		found = found || strings.Contains(line, "main.main")
	}
	if !found {
		t.Error("the linker printed no graph")
	}
	if out, err := exec.CommandContext(t.Context(), binary, "version").Output(); err != nil || !strings.HasPrefix(string(out), "dray 1.2.3 ") {
		t.Errorf("version: %q, %v", out, err)
	}
}

func TestCheckNamesUnknownVariables(t *testing.T) {
	if code, _, stderr := runDray(t, []string{"DRAY_LOG_LEVL=debug"}, "check"); code != 0 || !strings.Contains(stderr, "notice: DRAY_LOG_LEVL: ") {
		t.Errorf("check: code %d\n%s", code, stderr)
	}
}

// TestExitCodesAreDocumented: the table of docs/operating.md is that of the help.
func TestExitCodesAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	_, help, _ := runDray(t, nil, "--help")
	_, list, _ := strings.Cut(help, "\nExit codes:\n")
	list, _, _ = strings.Cut(list, "\n\n")
	lines := strings.Split(list, "\n")
	if len(lines) != exitRejected+1 {
		t.Errorf("the help explains the exit codes %q", lines)
	}
	for _, line := range lines {
		code, meaning, _ := strings.Cut(strings.TrimSpace(line), "  ")
		if !strings.Contains(string(page), "| "+code+" | "+meaning+" |\n") {
			t.Errorf("code %s, %s, is not in docs/operating.md", code, meaning)
		}
	}
}
