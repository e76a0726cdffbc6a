package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const testRegistry = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"

// write puts a file into a new directory and returns its path.
func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// keyPair makes a certificate as dray cert does and returns the two paths.
func keyPair(t *testing.T) (cert, key string) {
	t.Helper()
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	if code, _, stderr := runDray(t, nil, "cert", "--host", "localhost", "--out-cert", cert, "--out-key", key); code != exitOK {
		t.Fatal(stderr)
	}
	return cert, key
}

// TestProblemsOfParts: problems that only the configured packages can find are reported like the
// others.
func TestProblemsOfParts(t *testing.T) {
	path := write(t, "dray.yaml", `upstreams:
- url: 123456789012.dkr.ecr.eu-west-1.amazonaws.com
  push: true
  create_repositories: {tag_mutability_except: ["a b"], lifecycle_policy: /policy}
- url: quay.io
  limits:
    rates: {PutImage: 10}
checks:
- name: strict
  names: {mode: enforce, repositories: ["("]}
  metadata: {mode: warn}
notifications: [{url: nowhere}]
auth:
- name: users
  htpasswd: {file: /nowhere/htpasswd}
metadata: {url: "http://h"}
`)
	_, err := load(path, nil)
	if err == nil {
		t.Fatal("no problem found")
	}
	want := []string{
		`dray.yaml:4: upstreams[0].create_repositories.tag_mutability_except: "a b" is not a pattern of tags; use letters, digits, '.', '_', '-' and at most 2 times '*'`,
		"dray.yaml:4: upstreams[0].create_repositories.lifecycle_policy: open /policy: no such file or directory",
		`dray.yaml:7: upstreams[1].limits.rates: "PutImage" is not an operation; known operations: manifest_get, manifest_head, manifest_put, ` +
			"blob_get, blob_head, upload_start, upload_part, upload_end, list, delete",
		`dray.yaml:9: checks[0]: names: "(" is not a regular expression: error parsing regexp: missing closing ): ` + "`(`",
		"dray.yaml:9: checks[0]: metadata: no requirement is set",
		"dray.yaml:12: notifications[0].url: is not an http or https URL",
		"dray.yaml:16: metadata.url: open metadata in redis: not a redis URL: redis: invalid URL scheme: http",
		"dray.yaml:15: auth[0].htpasswd.file: htpasswd: stat /nowhere/htpasswd: no such file or directory",
	}
	if diff := cmp.Diff(want, strings.Split(err.Error(), "\n")); diff != "" {
		t.Error(diff)
	}
	path = write(t, "dray.yaml", `upstreams:
- {name: a, url: "https://a.example.com"}
- {name: b, url: "https://b.example.com", prefixes: [a]}
listeners: [{upstreams: [b, a]}]
`)
	if _, err := load(path, nil); err == nil || !strings.Contains(err.Error(), "listeners[0].upstreams: repositories would have ambiguous names in the rules of auth: ") {
		t.Errorf("got %v", err)
	}
}
