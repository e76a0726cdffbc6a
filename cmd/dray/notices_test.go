package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestNoticesOfFiles: what files say is looked at beyond their being well-formed.
func TestNoticesOfFiles(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "privkey.pem")
	opts := certOptions{hosts: []string{"dray.example.com", "*.internal.example.com", "10.0.0.7"}, outCert: cert, outKey: key}
	if _, err := writeCertificate(opts, time.Now()); err != nil {
		t.Fatal(err)
	}
	covers := func(name string) []string {
		t.Helper()
		cfg, err := Load("", []string{"TLS_CERTIFICATE=" + cert, "TLS_PRIVATE_KEY=" + key, "REGISTRY=" + name})
		if err != nil {
			t.Fatal(err)
		}
		return cfg.Notices()
	}
	for _, name := range []string{"", "dray.example.com", "DRAY.example.com:5000", "https://a.internal.example.com", "10.0.0.7:444"} {
		if got := covers(name); len(got) > 0 {
			t.Errorf("REGISTRY=%s: %q", name, got)
		}
	}
	for name, host := range map[string]string{"mirror.example.com:5000": "mirror.example.com", "10.0.0.8": "10.0.0.8"} {
		want := []string{"listener :5000: its certificate is not for " + host + ", the name in external_url (REGISTRY), but for " +
			"dray.example.com, *.internal.example.com, 10.0.0.7; clients will not trust it."}
		if diff := cmp.Diff(want, covers(name)); diff != "" {
			t.Error(diff)
		}
	}

	for content, users := range map[string]bool{"": false, "\n# ci:secret\n  \n": false, "\nci:$2y$05$" + strings.Repeat("a", 53): true} {
		file := write(t, "htpasswd", content)
		cfg, err := Load(write(t, "dray.yaml", "listeners: [{auth: a}]\nauth: [{name: a, htpasswd: {file: "+file+"}}]"), nil)
		if err != nil {
			t.Fatal(err)
		}
		notices := strings.Join(cfg.Notices(), "\n")
		if strings.Contains(notices, "auth a: "+file+" holds no user") == users {
			t.Errorf("%q: %s", content, notices)
		}
	}
}

func TestUnknownVariablesAreNamed(t *testing.T) {
	cfg, err := Load(write(t, "dray.yaml", "upstreams: [{url: ghcr.io, credentials: {username: u, password_env: DRAY_GHCR_PASSWORD}}]"), []string{"DRAY_GHCR_PASSWORD=x"})
	if err != nil {
		t.Fatal(err)
	}
	for variable, want := range map[string]string{
		"DRAY_LOG_LEVL=debug":     "DRAY_LOG_LEVL: dray reads no such variable; is DRAY_LOG_LEVEL meant?",
		"DRAY_CACHE_MAXBYTES=1":   "DRAY_CACHE_MAXBYTES: dray reads no such variable; is DRAY_CACHE_MAX_BYTES meant?",
		"DRAY_CACHE_DIR=/x":       "DRAY_CACHE_DIR: dray reads no such variable; is DRAY_CACHE_DIRECTORY meant?",
		"DRAY_PORT=5001":          "DRAY_PORT: dray reads no such variable; is PORT meant?",
		"DRAY_TLS_CERTIFICATE=/x": "DRAY_TLS_CERTIFICATE: dray reads no such variable; is TLS_CERTIFICATE meant?",
		"DRAY_TEAM=a":             "DRAY_TEAM: dray reads no such variable; dray config reference lists those that it does read.",
		"DRAY_SERVICE_ACCOUNT=a":  "DRAY_SERVICE_ACCOUNT: dray reads no such variable; dray config reference lists those that it does read.",

		"DRAY_TEAM=": "", "PATH=/bin": "", "DRAYMAN=x": "", "DRAY_LOG_LEVEL=debug": "", "PORT=5001": "", "DRAY_GHCR_PASSWORD=x": "", "DRAY_TEST_CACHE=/x": "",
		// A Service called dray, with a port called https, and one called dray-admin.
		"DRAY_SERVICE_HOST=10.0.0.1": "", "DRAY_SERVICE_PORT=443": "", "DRAY_SERVICE_PORT_HTTPS=443": "", "DRAY_PORT=tcp://10.0.0.1:443": "",
		"DRAY_PORT_443_TCP=tcp://10.0.0.1:443": "", "DRAY_PORT_443_TCP_PROTO=tcp": "", "DRAY_PORT_443_TCP_PORT=443": "", "DRAY_PORT_443_TCP_ADDR=10.0.0.1": "",
		"DRAY_ADMIN_SERVICE_HOST=10.0.0.2": "", "DRAY_ADMIN_PORT=tcp://10.0.0.2:6060": "", "DRAY_ADMIN_PORT_6060_TCP_ADDR=10.0.0.2": "",
	} {
		if got := strings.Join(unknownVariables([]string{variable}, cfg), "\n"); got != want {
			t.Errorf("%s\n got %q\nwant %q", variable, got, want)
		}
	}
	if code, _, stderr := runDray(t, []string{"DRAY_LOG_LEVL=debug"}, "check"); code != 0 || !strings.Contains(stderr, "notice: DRAY_LOG_LEVL: ") {
		t.Errorf("check: code %d\n%s", code, stderr)
	}
}

// TestStartIsOneLine: the first line of the log says what runs, and where its cache lies.
func TestStartIsOneLine(t *testing.T) {
	cfg, err := Load("", []string{"ECR_REGISTRY=" + testRegistry, "DRAY_CACHE_MAX_BYTES=200GiB"})
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
	for _, want := range []string{"level=INFO msg=starting ", "version=" + buildVersion(), "cache=" + filepath.Join(here, "data") + " ", "cache_max_bytes=200GiB", "upstreams=docker.io,ecr"} {
		if !strings.Contains(first, want) {
			t.Errorf("%q is not in %s", want, first)
		}
	}
	if !strings.Contains(rest, "level=WARN msg=beware.") || strings.Count(rest, "\n") != 1 {
		t.Errorf("then: %s", rest)
	}
}
