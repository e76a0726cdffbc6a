package bundle

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/spf13/cobra"

	"dray/cmd/dray/config"
	"dray/cmd/dray/ctl"
	"dray/cmd/dray/doctor"
)

// mark is in every secret of these tests.
const mark = "S3CR3T"

// secretive writes a configuration with a secret in every place that takes one, and returns it with
// the environment and all secrets.
func secretive(t *testing.T) (path string, environ, secrets []string) {
	t.Helper()
	dir := t.TempDir()
	secret := func(place string) string {
		s := mark + "/" + place + "+" + strings.Repeat("x", 12)
		secrets = append(secrets, s)
		return s
	}
	plain := func(place string) string { // for URLs
		s := mark + place + strings.Repeat("x", 12)
		secrets = append(secrets, s)
		return s
	}
	file := func(name, text string) string {
		at := filepath.Join(dir, name)
		if err := os.WriteFile(at, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return at
	}
	token := plain("path")
	text := fmt.Sprintf(`
listeners: [{name: main, address: "127.0.0.1:0", upstreams: [hub, quay.io], auth: people}]
upstreams:
- {name: hub, url: docker.io, push: true, checks: [gate], credentials: {username: robot, password_file: %q}}
- {url: quay.io, credentials: {username: robot, password_env: QUAY_WORD}}
auth: [{name: people, htpasswd: {file: %q}, rules: [{users: [annabel, "*"], repositories: ["*"], actions: [pull]}]}]
admin: {token_file: %q}
metadata: {url: "redis://facts:%s@127.0.0.1:1/0"}
fleet: {address: "127.0.0.1:0", advertise: "127.0.0.1:1", secret_file: %q}
notifications:
- {url: "https://events.example.com/hooks/%s?token=%s", headers: {X-Key: %q, Authorization: "Bearer %s"}, headers_file: %q, secret_file: %q}
- {url_file: %q}
traces: {endpoint: "http://127.0.0.1:1", headers_file: %q}
checks:
- name: gate
  exec: [{name: scan, mode: enforce, command: [/bin/true, --token, %q, "-p%s", "--url=https://user:%s@scan.example.com/"], environment: ["SCAN_WORD=%s"], environment_file: %q}]
cache: {directory: %q}
`,
		file("hub", secret("password_file")+"\n"), file("htpasswd", "annabel:$2y$05$"+(mark + strings.Repeat("a", 53))[:53]+"\n"), file("token", secret("admin-token")+"\n"),
		plain("redis"), file("fleet.key", secret("fleet-of-several-members")), token, plain("query"), secret("header"), secret("bearer"),
		file("headers", "Authorization: Bearer "+secret("headers_file")+"\n"), file("hmac", secret("hmac")), file("url", "https://events.example.com/"+plain("url_file")+"\n"),
		file("otel", "Authorization: Basic "+secret("traces")+"\n"), secret("flag"), plain("joined"), plain("userinfo"), secret("variable"), file("env", "MORE="+secret("environment_file")+"\n"), filepath.Join(dir, "cache"))
	if err := os.Mkdir(filepath.Join(dir, "cache"), 0o700); err != nil {
		t.Fatal(err)
	}
	environ = []string{
		"QUAY_WORD=" + secret("password_env"), "AWS_SECRET_ACCESS_KEY=" + secret("aws"), "AWS_SESSION_TOKEN=" + secret("session"), "DRAY_METADATA_PASSWORD=" + secret("metadata"),
		"HTTPS_PROXY=http://user:" + plain("proxy") + "@127.0.0.1:3128", "OTEL_EXPORTER_OTLP_HEADERS=Authorization=" + secret("otlp"), "AWS_REGION=eu-west-1", "HOME=/home/" + mark,
		"QUOTED_PASSWORD=" + secret("quotes\"and\\more<&"), "REDIS_URL=unix://facts:" + plain("socket") + "@/run/redis.sock",
		"AWS_WEB_IDENTITY_TOKEN_FILE=" + file("web", secret("web-identity")),
	}
	return file("dray.yaml", text), environ, secrets
}

// unpacked reads an archive.
func unpacked(t *testing.T, archive []byte) map[string]string {
	t.Helper()
	zip, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for in := tar.NewReader(zip); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return files
		} else if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		files[strings.TrimPrefix(h.Name, "dray-debug/")] = string(body)
	}
}

// bundled runs the subcommand, with what a running dray says.
func bundled(t *testing.T, path string, environ []string, said string, pages ctl.Pages, args ...string) (files map[string]string, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := bundleCommand(Options{
		Stdout: &out, Stderr: &errs, Environ: environ, Load: func() (config.Config, error) { return config.Load(path, environ) },
		Doctor: func(context.Context, string, time.Duration) doctor.Report {
			return doctor.Report{Findings: []doctor.Finding{{Text: said}}}
		},
		Running: func(cmd *cobra.Command, do func(context.Context, ctl.Pages) error) *cobra.Command {
			cmd.RunE = func(cmd *cobra.Command, _ []string) error { return do(cmd.Context(), pages) }
			return cmd
		},
	})
	cmd.SetArgs(append(args, "--output", "-"))
	cmd.SetContext(t.Context())
	if err := cmd.Execute(); err != nil {
		t.Fatal(err)
	}
	return unpacked(t, out.Bytes()), errs.String()
}

// TestNoSecrets: whatever is collected repeats every secret, in all the forms that texts have, and
// none is in the archive.
func TestNoSecrets(t *testing.T) {
	path, environ, secrets := secretive(t)
	if cfg, err := config.Load(path, environ); err != nil || cfg.Upstreams[0].Credentials.Password == "" {
		t.Fatalf("the configuration of this test is not used: %v", err)
	}
	said := "https://s3.example.com/x?X-Amz-Date=1&X-Amz-Credential=S3CR3TA&X-Amz-Security-Token=S3CR3TB&X-Amz-Signature=S3CR3TC\n" +
		"Authorization: Bearer abcdefgh.ijklmnop\nhttps://someone:unknown@example.com/ AKIAIOSFODNN7EXAMPLE\n"
	for _, s := range secrets {
		said += fmt.Sprintf("it is %s, %q, %s\n", s, s, base64.StdEncoding.EncodeToString([]byte(s)))
	}
	files, _ := bundled(t, path, environ, said, func(_ context.Context, path string) ([]byte, error) {
		switch path {
		case "/api/v1/live":
			return fmt.Appendf(nil, `{"pulls":[{"client":"192.0.2.7","user":"annabel","agent":"docker/29 annabel","repository":"a","error":%q},{"client":"2001:db8::7","error":"read tcp [2001:db8::1]:443->[2001:db8::7]:9: reset"}],"pushes":[{"client":"192.0.2.7","error":"read tcp 127.0.0.1:5000->192.0.2.8:9999: reset"},{"client":"192.0.2.8"}]}`, said+"annabel at 192.0.2.7:4711"), nil
		case "/api/v1/queue":
			return fmt.Appendf(nil, `{"pushes":[{"id":1,"user":"annabel","error":%q}]}`, said+"annabel at 192.0.2.8"), nil
		case "/debug/pprof/heap":
			return []byte("compressed"), nil
		case "/api/v1/fleet":
			return nil, errors.New(said)
		}
		return []byte(said), nil
	})
	for _, name := range []string{"README.txt", "version.json", "configuration.yaml", "environment.txt", "doctor.json", "machine.txt", "disk.json", "metrics.txt", "readyz.json", "live.json", "queue.json", "goroutines.txt", "heap.pb.gz"} {
		body := files[name]
		if len(body) < 10 {
			t.Errorf("%s is missing: %q", name, body)
		}
		for _, s := range append(secrets, mark, "abcdefgh.ijklmnop", "someone", "unknown@", "AKIAIOSFODNN7EXAMPLE", "annabel", "192.0.2.", "db8::7") {
			for _, form := range []string{s, base64.StdEncoding.EncodeToString([]byte(s)), strings.ReplaceAll(s, "/", "%2F")} {
				if at := strings.Index(body, form); at >= 0 {
					t.Errorf("%s has %s: %.120q", name, s, body[max(0, at-40):])
				}
			}
		}
	}
	if _, there := files["fleet.json"]; there || !strings.Contains(files["README.txt"], "Not there:") {
		t.Errorf("%s", files["README.txt"])
	}
	for name, want := range map[string]string{
		"configuration.yaml": "username: robot", "environment.txt": "AWS_REGION=eu-west-1\nAWS_SECRET_ACCESS_KEY is set", "doctor.json": "[redacted]", "live.json": `"client": "client-1"`, "queue.json": `"user": "user-1"`,
		"disk.json": filepath.Base(filepath.Dir(path)), "machine.txt": "processors: ", "version.json": `"go": "go1`,
	} {
		if !strings.Contains(files[name], want) {
			t.Errorf("%s does not have %q: %.600s", name, want, files[name])
		}
	}
	if !strings.Contains(files["configuration.yaml"], "user-1") || strings.Count(files["live.json"], `"client": "client-1"`) != 2 {
		t.Errorf("one client has several numbers: %s%s", files["configuration.yaml"], files["live.json"])
	}
}

// TestPaths: variables that name a path are no secrets, whatever their names have in them.
func TestPaths(t *testing.T) {
	s := newScrubber(config.Config{}, []string{"PWD=/srv/dray", "OLDPWD=/srv/other", "SSH_AUTH_SOCK=/run/agent", "XAUTHORITY=/home/ann/.Xauthority", "AWS_SECRET_ACCESS_KEY=/S3CR3T/key"})
	const text = "/srv/dray/cache /srv/other/cache /run/agent.1 /home/ann/.Xauthority"
	if got := string(s.clean([]byte(text + " /S3CR3T/key"))); got != text+" [redacted]" {
		t.Error(got)
	}
}

// TestQueries: a secret in a query is removed, although dray has not seen it before.
func TestQueries(t *testing.T) {
	s := newScrubber(config.Config{}, nil)
	for _, name := range []string{
		"access_token", "api_key", "apiKey", "client_secret", "client%5Fsecret", "passwd", "pwd", "auth", "sig", "key2", "X-Amz-Credential", "X-Amz-Security-Token", "X-Amz-Signature",
	} {
		for _, before := range []string{"?", "?a=1&", `?a=1\u0026`, "?a=1&amp;", "#"} {
			text := "Get \"https://h/p" + before + name + "="
			if got := string(s.clean([]byte(text + "S3CR3T&b=2\": refused"))); got != text+redacted+"&b=2\": refused" {
				t.Error(got)
			}
		}
	}
	const harmless = "https://h/v2/_catalog?last=a&n=2&digest=sha256:ab&scope=repository:a:pull&list-type=2&prefix=design"
	if got := string(s.clean([]byte(harmless))); got != harmless {
		t.Error(got)
	}
}

// TestWithoutARunningDray: an archive is made in any case, and says what it lacks.
func TestWithoutARunningDray(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "dray.yaml")
	if err := os.WriteFile(path, []byte("upstreams: [{url: 'https://robot:"+mark+"@registry.example.com'}]\nadmin: {token: "+mark+"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	asked := 0
	files, stderr := bundled(t, path, nil, "fine", func(context.Context, string) ([]byte, error) {
		asked++
		return nil, fmt.Errorf("%w: refused", ctl.ErrUnreachable)
	}, "--clients")
	if asked != 1 {
		t.Errorf("a dray that cannot be reached was asked %d times", asked)
	}
	if strings.Contains(files["README.txt"]+stderr, mark) || !strings.Contains(files["README.txt"], "configuration.yaml   dray.yaml:") || !strings.Contains(stderr, "not there: heap.pb.gz") {
		t.Errorf("%s%s", files["README.txt"], stderr)
	}
	if files["doctor.json"] == "" || files["disk.json"] == "" || files["configuration.yaml"] != "" {
		t.Errorf("%v", files)
	}
}

// TestClientsOnDemand: with the flag, clients have their names.
func TestClientsOnDemand(t *testing.T) {
	const live = `{"pulls":[{"client":"192.0.2.7","user":"annabel"}],"pushes":[]}`
	files, _ := bundled(t, "", nil, "fine", func(_ context.Context, path string) ([]byte, error) {
		if path == "/api/v1/live" {
			return []byte(live), nil
		}
		return []byte("fine"), nil
	}, "--clients")
	if files["live.json"] != live {
		t.Errorf("%s", files["live.json"])
	}
}

// TestRunningFirst: a running dray is asked before anything looks at the disk, which may hang.
func TestRunningFirst(t *testing.T) {
	var order []string
	cmd := bundleCommand(Options{
		Stdout: io.Discard, Stderr: io.Discard, Load: func() (config.Config, error) { return config.Config{}, nil },
		Doctor: func(context.Context, string, time.Duration) doctor.Report {
			order = append(order, "doctor")
			return doctor.Report{}
		},
		Running: func(cmd *cobra.Command, do func(context.Context, ctl.Pages) error) *cobra.Command {
			cmd.RunE = func(cmd *cobra.Command, _ []string) error {
				return do(cmd.Context(), func(_ context.Context, path string) ([]byte, error) {
					order = append(order, path)
					return nil, nil
				})
			}
			return cmd
		},
	})
	cmd.SetArgs([]string{"--output", "-"})
	cmd.SetContext(t.Context())
	if err := cmd.Execute(); err != nil || len(order) != 8 || order[7] != "doctor" {
		t.Errorf("%v %v", order, err)
	}
}

func TestMachine(t *testing.T) {
	text := string(machine(fstest.MapFS{"proc/sys/kernel/osrelease": {Data: []byte("6.1.0-13-amd64\n")}, "proc/self/limits": {Data: []byte("Max open files  1024\n")}}))
	for _, want := range []string{"/proc/sys/kernel/osrelease:\n6.1.0-13-amd64\n", "Max open files  1024", "/proc/loadavg: open proc/loadavg"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in %s", want, text)
		}
	}
}

func TestDirectories(t *testing.T) {
	dir := t.TempDir()
	for name, n := range map[string]int{"content/a/1": 10, "content/b/2": 20, "cache.format": 3} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, n), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	all := directories(t.Context(), count, dir, dir, filepath.Join(dir, "none"))
	if len(all) != 2 || *all[0].Entries["content"] != (size{2, 30}) || *all[0].Entries["cache.format"] != (size{1, 3}) || all[1].Error == "" {
		t.Errorf("%+v", all)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if all := directories(ended, count, dir); !all[0].Incomplete {
		t.Errorf("%+v", all)
	}
	answers := make(chan directory)
	hangs := func(context.Context, string) directory { return <-answers }
	if all := directories(ended, hangs, dir); !all[0].Incomplete || all[0].Path != dir || all[0].Error == "" {
		t.Errorf("a disk that hangs: %+v", all)
	}
	answers <- directory{} // ends the count
}

// TestOutput: the archive is a new file that only its owner can read.
func TestOutput(t *testing.T) {
	t.Chdir(t.TempDir())
	var out bytes.Buffer
	o := Options{Stdout: &out, Stderr: io.Discard}
	b := &bundle{scrub: newScrubber(config.Config{}, nil)}
	if err := o.write(b, ""); err != nil {
		t.Fatal(err)
	}
	name := strings.TrimSpace(out.String())
	info, err := os.Stat(name)
	if err != nil || info.Mode().Perm() != 0o600 || !strings.HasSuffix(name, ".tar.gz") {
		t.Errorf("%q %v %v", name, info, err)
	}
	if err := o.write(b, name); err == nil || !strings.Contains(err.Error(), "--output") {
		t.Errorf("an existing file: %v", err)
	}
}
