package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/mirror/queue"
)

var at = time.Unix(1_700_000_000, 0).UTC()

func command(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skip(name + " is not installed")
	}
	out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	return string(out), err
}

// TestDebVersions: dpkg orders versions as their commits are ordered.
func TestDebVersions(t *testing.T) {
	ordered := []string{
		debVersion("0abc123", at), debVersion("9abc123-dirty", at.Add(time.Hour)),
		debVersion("v1.2.0-rc.1", at), debVersion("v1.2.0-rc.1-dirty", at), debVersion("v1.2.0-rc.1-4-gabc1234", at), debVersion("v1.2.0-rc.2", at),
		debVersion("v1.2.0", at), debVersion("v1.2.0-dirty", at), debVersion("v1.2.0-4-gabc1234", at), debVersion("v1.2.0-4-gabc1234-dirty", at), debVersion("v1.2.0-11-gabc1234-dirty", at), debVersion("v1.10.0", at),
	}
	for i, older := range ordered[:len(ordered)-1] {
		if out, err := command(t, "dpkg", "--compare-versions", older, "lt", ordered[i+1]); err != nil || out != "" {
			t.Errorf("%s is not before %s: %v %s", older, ordered[i+1], err, out)
		}
	}
}

func TestDeb(t *testing.T) {
	files := tree{}
	files.program("usr/bin/dray", bytes.Repeat([]byte("x"), 3000))
	files.add(conffile, []byte("cache: {}\n"))
	control := "Package: dray\nVersion: 1.2.0\nArchitecture: amd64\nMaintainer: A <a@example.com>\nDescription: a mirror\n"
	body, err := deb(control, map[string][]byte{"postrm": []byte("#!/bin/sh\n")}, []string{conffile}, files, at)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "dray.deb")
	if err := os.WriteFile(file, body, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ option, want string }{
		{"--info", "Installed-Size: 3"}, {"--info", "postrm"}, {"--contents", "-rwxr-xr-x 0/0"}, {"--contents", "./usr/bin/dray"}, {"--contents", "drwxr-xr-x 0/0"},
	} {
		if out, err := command(t, "dpkg-deb", c.option, file); err != nil || !strings.Contains(out, c.want) {
			t.Errorf("dpkg-deb %s: %v\n%s", c.option, err, out)
		}
	}
	if out, err := command(t, "dpkg-deb", "--info", file, "conffiles"); err != nil || out != "/etc/dray/dray.yaml\n" {
		t.Errorf("conffiles: %q, %v", out, err)
	}
	if out, err := command(t, "dpkg-deb", "--info", file, "md5sums"); err != nil || strings.Contains(out, "dray.yaml") || !strings.Contains(out, "usr/bin/dray") {
		t.Errorf("md5sums: %q, %v", out, err)
	}
}

// TestEmpty: the files of an earlier release go, and a directory with anything else stays as it is.
func TestEmpty(t *testing.T) {
	for _, tc := range []struct {
		name string
		ours bool
	}{
		{"SHA256SUMS", true}, {"dray_v1.2.0_linux_amd64.tar.gz", true}, {"dray-1.2.0.tgz", true}, {"dray_1.2.0_image.tar", true}, {"dray_1.2.0.schema.json", true},
		{"README.md", false}, {"dray", false}, {"dray_1.2.0_amd64.deb.txt", false}, {"release.pem", false}, {"dray_1.2.0.zip/file", false},
	} {
		out := t.TempDir()
		file := filepath.Join(out, tc.name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(filepath.Join(out, "INSTALL.md"), nil, 0o600), os.WriteFile(file, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
		err := empty(out)
		entries, failed := os.ReadDir(out)
		if failed != nil || (err == nil) != tc.ours || tc.ours && len(entries) != 0 || !tc.ours && len(entries) != 2 {
			t.Errorf("%s: %v; left: %v, %v", tc.name, err, entries, failed)
		}
	}
	out := filepath.Join(t.TempDir(), "new", "release")
	if err := empty(out); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(out); err != nil || len(entries) != 0 {
		t.Errorf("a new directory: %v, %v", entries, err)
	}
}

// TestWaiting: the maintainer scripts read the journal of the queue as dray does.
func TestWaiting(t *testing.T) {
	dir := t.TempDir()
	script, err := os.ReadFile("../debian/waiting")
	if err != nil {
		t.Fatal(err)
	}
	count := func() string {
		t.Helper()
		text := strings.NewReplacer("/var/lib/dray", dir, "/var/cache/dray", filepath.Join(dir, "none")).Replace(string(script))
		out, err := command(t, "sh", "-c", "set -e\n"+text+"\nwaiting")
		if err != nil {
			t.Fatal(err, out)
		}
		return strings.TrimSpace(out)
	}
	if got := count(); got != "0" {
		t.Errorf("%s pushes wait without a queue", got)
	}
	q, err := queue.Open(t.Context(), queue.Options{
		Directory: filepath.Join(dir, "queue"), Hold: func(context.Context, digest.Digest) (func(), error) { return func() {}, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	for i := range 12 {
		manifest := []byte{byte(i)}
		push := queue.Push{
			Upstream: "ecr", Repository: "team/app", Reference: "v" + string(rune('a'+i)), Digest: digest.FromBytes(manifest), Manifest: manifest,
			User: "x\n00000000 {\"op\":\"done\",\"id\":1}\n", // what a client sends cannot look like a record
		}
		if err := q.Add(t.Context(), push); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []uint64{1, 11} {
		if _, err := q.Drop(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	if got := count(); got != "10" {
		t.Errorf("%s pushes wait, want 10", got)
	}
	for _, e := range q.List() {
		if _, err := q.Drop(t.Context(), e.ID); err != nil {
			t.Fatal(err)
		}
	}
	if got := count(); got != "0" {
		t.Errorf("%s pushes wait after all are dropped", got)
	}
}

// TestScripts: the shell and dpkg understand the maintainer scripts.
func TestScripts(t *testing.T) {
	for _, name := range []string{"postinst", "prerm", "postrm", "waiting"} {
		if out, err := command(t, "sh", "-n", "../debian/"+name); err != nil {
			t.Errorf("%s: %v %s", name, err, out)
		}
	}
}

// keyFile writes a private key as PEM.
func keyFile(t *testing.T, kind string, der []byte, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSign(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	good := keyFile(t, "PRIVATE KEY", pkcs8, err)
	sec1, err := x509.MarshalECPrivateKey(key)
	older := keyFile(t, "EC PRIVATE KEY", sec1, err)
	body := []byte("0123  file\n")
	for _, file := range []string{good, older} {
		signature, public, err := sign(file, body)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		for name, text := range map[string][]byte{"SHA256SUMS": body, "SHA256SUMS.sig": signature, "dray.pub": public} {
			if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		verify := "cd " + dir + " && base64 -d SHA256SUMS.sig > SHA256SUMS.bin && openssl dgst -sha256 -verify dray.pub -signature SHA256SUMS.bin SHA256SUMS"
		if out, err := command(t, "sh", "-c", "command -v openssl >/dev/null || exit 0; "+verify); err != nil || out != "" && out != "Verified OK\n" {
			t.Errorf("%v %s", err, out)
		}
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := x509.MarshalPKCS8PrivateKey(private)
	for name, file := range map[string]string{"not one for ECDSA": keyFile(t, "PRIVATE KEY", other, err), "no private key": keyFile(t, "PUBLIC KEY", nil, nil), "no such file": filepath.Join(t.TempDir(), "none")} {
		if _, _, err := sign(file, body); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestPublishedAddress: the documents name no other address than the Makefile.
func TestPublishedAddress(t *testing.T) {
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	address := regexp.MustCompile(`(?m)^PUBLISHED\s*\?=\s*(\S+)$`).FindStringSubmatch(string(makefile))
	if address == nil {
		t.Fatal("the Makefile does not set PUBLISHED")
	}
	host, _, _ := strings.Cut(address[1], "/")
	for _, file := range []string{"README.md", "docs/install.md", "deploy/helm/values.yaml", "deploy/compose/compose.yaml"} {
		text, err := os.ReadFile("../../" + file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), address[1]) {
			t.Errorf("%s does not say where dray is published", file)
		}
		for _, found := range regexp.MustCompile(`get\.[a-z.]*dray[a-z.]*`).FindAllString(string(text), -1) {
			if strings.TrimRight(found, ".") != host {
				t.Errorf("%s names %s, and the Makefile %s", file, found, host)
			}
		}
	}
}

// TestFilesAreExplained: docs/install.md explains each file that a release has.
func TestFilesAreExplained(t *testing.T) {
	page, err := os.ReadFile("../../docs/install.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"_amd64.deb", "_linux_amd64.tar.gz", "_darwin_*.tar.gz", "_windows_*.zip", "_image.tar", "_image_amd64.tar", "dray-VERSION.tgz", ".cdx.json", ".schema.json", "SHA256SUMS.sig", "dray.pub"} {
		if !strings.Contains(string(page), want) {
			t.Errorf("docs/install.md does not explain %s", want)
		}
	}
}

// TestChart: the chart of a release names its version and its image.
func TestChart(t *testing.T) {
	for version, want := range map[string]string{"1.2.0": "1.2.0", "v1.2.0-rc.1": "1.2.0-rc.1", "v1.2.0-4-gabc1234-dirty": "1.2.0-4-gabc1234-dirty",
		"0123abc": "0.0.0-g0123abc", "unknown": "0.0.0-gunknown", "1.02.0": "0.0.0-g1-02-0"} {
		r := &release{root: "../..", out: t.TempDir(), version: version, documented: "get.dray.example", published: "registry.example.com/all", at: at}
		if err := r.chart(); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(r.out, "dray-"+want+".tgz")
		read := func(name string) string {
			out, err := command(t, "tar", "-xzOf", file, "dray/"+name)
			if err != nil {
				t.Fatalf("%s: %v %s", version, err, out)
			}
			return out
		}
		if text := read("Chart.yaml"); !strings.Contains(text, "\nversion: "+want+"\n") || !strings.Contains(text, "\nappVersion: \""+version+"\"\n") {
			t.Errorf("%s: %s", version, text)
		}
		if text := read("values.yaml"); !strings.Contains(text, "repository: registry.example.com/all/dray\n") || strings.Contains(text, "get.dray") {
			t.Errorf("%s: the image is not that of the release", version)
		}
		read("templates/_pod.tpl")
	}
}

func TestTree(t *testing.T) {
	files := tree{}
	files.add("a/b/c", nil)
	files["a/tmp"] = file{mode: os.ModeDir | os.ModeSticky | 0o777}
	if got := files.names(); !slices.Equal(got, []string{"a/", "a/b/", "a/b/c", "a/tmp/"}) {
		t.Errorf("%q", got)
	}
	one, err := files.tar("", at)
	if err != nil {
		t.Fatal(err)
	}
	two, err := files.tar("", at)
	if err != nil || !bytes.Equal(one, two) {
		t.Error("two archives of the same files differ")
	}
}

// TestNotes: the release notes name the version, and nothing says that the reader must do that.
func TestNotes(t *testing.T) {
	page, err := os.ReadFile("../../docs/install.md")
	if err != nil {
		t.Fatal(err)
	}
	notes, err := notesOf(string(page), "7.8.9")
	if err != nil || strings.Contains(notes, "VERSION") || strings.Contains(notes, "Replace `7.8.9`") || !strings.Contains(notes, "dray_7.8.9_amd64.deb") {
		t.Errorf("%v\n%.500s", err, notes)
	}
	if _, err := notesOf("another page", "7.8.9"); err == nil {
		t.Error("a page without the sentence about the version was accepted")
	}
}
