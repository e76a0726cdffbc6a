package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/types"
	"go.yaml.in/yaml/v3"
)

// TestNginx pushes and pulls through nginx, with the lines that docs/proxies.md gives for nginx and
// for the listener behind it. Only addresses, the name of the host and paths of files differ.
func TestNginx(t *testing.T) {
	program, tool := need(t, "nginx"), need(t, "regctl")
	_, version, _ := strings.Cut(filepath.Base(tool), "-")
	page := read(t, "../../docs/proxies.md")
	lines := regexp.MustCompile("(?s)```nginx\n(.*?)```\n\nThe listener behind it has `(.*?)` and\n`(.*?)`").FindStringSubmatch(string(page))
	if lines == nil {
		t.Fatal("docs/proxies.md has no lines for nginx and for the listener behind it")
	}
	ip := nextIP()
	front := net.JoinHostPort(ip, "8443")
	s := newStack(t, stackOptions{configure: func(config map[string]any) {
		listener := config["listeners"].([]any)[1].(map[string]any)
		for _, line := range lines[2:] {
			if err := yaml.Unmarshal([]byte(strings.ReplaceAll(line, "registry.example.com", front)), &listener); err != nil {
				t.Fatal(err)
			}
		}
		delete(listener, "tls") // nginx speaks it
	}})
	certificate, key := makeCertificate(t, shortDir(t), ip)
	n := startNginx(t, program, front, replaceAll(t, lines[1], map[string]string{
		"127.0.0.1:5000": s.registryAddress(), "listen 443": "listen " + front, "registry.example.com": ip,
		"/etc/ssl/registry.pem": certificate, "/etc/ssl/registry.key": key,
	}))

	// Far more than the buffers of nginx and of its connections.
	img := randomImage(t, types.OCIManifestSchema1, 1, 24<<20)
	s.ecr.push(t, "nginx/pulled:1", img)
	env := environment("HOME="+s.dir, "REGCTL_CONFIG="+filepath.Join(s.dir, "regctl.json"))
	ca := read(t, certificate)
	do := func(t *testing.T, args ...string) {
		t.Helper()
		run(t, env, append([]string{tool}, args...)...)
	}
	do(t, "registry", "set", "--skip-check", "--cacert", string(ca), front)
	do(t, "registry", "login", "--skip-check", "--user", pusher, "--pass", password, front)
	layout := "ocidir://" + filepath.Join(s.dir, "layout") + ":1"
	row(t, "regctl", version, "pull through nginx", func(t *testing.T) {
		do(t, "image", "copy", front+"/nginx/pulled:1", layout)
		n.storedNothing(t)
	})
	row(t, "regctl", version, "push through nginx", func(t *testing.T) {
		do(t, "image", "copy", layout, front+"/nginx/pushed:1")
		if got, want := s.ecr.digest(t, "nginx/pushed:1"), digestOf(t, img); got != want {
			t.Errorf("ECR has %s, want %s", got, want)
		}
		n.storedNothing(t)
	})
}

// replaceAll replaces texts, each of which must be there.
func replaceAll(t *testing.T, text string, by map[string]string) string {
	t.Helper()
	for from, to := range by {
		if !strings.Contains(text, from) {
			t.Fatalf("no %q in:\n%s", from, text)
		}
		text = strings.ReplaceAll(text, from, to)
	}
	return text
}

// nginx is a running nginx.
type nginx struct{ errors string } // file

// startNginx runs nginx with lines of its http section until the test ends, and waits until it
// listens at front.
func startNginx(t *testing.T, program, front, lines string) nginx {
	t.Helper()
	dir, user := shortDir(t), ""
	if os.Geteuid() == 0 {
		user = "user root;" // another user could not enter the directory
	}
	n := nginx{filepath.Join(dir, "errors")}
	config := filepath.Join(dir, "nginx.conf")
	write(t, config, fmt.Appendf(nil, `daemon off; %[1]s
pid %[2]s/pid; error_log %[3]s warn;
events {}
http {
	access_log off;
	client_body_temp_path %[2]s/body; proxy_temp_path %[2]s/proxy;
	fastcgi_temp_path %[2]s/fastcgi; uwsgi_temp_path %[2]s/uwsgi; scgi_temp_path %[2]s/scgi;
%[4]s}
`, user, dir, n.errors, lines))
	p := start(t, "nginx", environment(), program, "-p", dir, "-c", config, "-e", n.errors)
	p.await(front, func(ctx context.Context) error {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", front)
		if err != nil {
			return err
		}
		return conn.Close()
	})
	return n
}

// storedNothing fails the test if nginx wrote to its log. It warns of each request and each answer
// that it stores in a file before it sends the content on.
func (n nginx) storedNothing(t *testing.T) {
	t.Helper()
	if text, err := os.ReadFile(n.errors); err != nil || len(text) > 0 {
		t.Errorf("nginx wrote to its log: %v\n%s", err, text)
	}
}
