package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"dray/upstream/ecrtest"
)

// inArchive returns the files of an archive by name, those that are compressed without compression.
func inArchive(t *testing.T, archive string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	zip, err := gzip.NewReader(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	in := tar.NewReader(zip)
	for {
		h, err := in.Next()
		if err != nil {
			break
		}
		var from io.Reader = in
		if strings.HasSuffix(h.Name, ".gz") {
			if from, err = gzip.NewReader(in); err != nil {
				t.Fatal(err)
			}
		}
		body, err := io.ReadAll(from)
		if err != nil {
			t.Fatal(err)
		}
		files[strings.TrimPrefix(h.Name, "dray-debug/")] = string(body)
	}
	return files
}

// TestDebugBundle: the archive of a dray that has been used has what a maintainer needs, and none
// of the secrets that dray was given.
func TestDebugBundle(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	secrets := []string{"hub-word-8f3a1c", "admin-word-77e0b2", "hook-word-5d41f9", "client-word-c0ffee", "aws-word-1b9d"}
	token := file("token", secrets[1]+"\n")
	hashed, err := bcrypt.GenerateFromPassword([]byte(secrets[3]), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	users := file("htpasswd", "annabel:"+string(hashed)+"\n")
	s := startBefore(t, ecrtest.Start(t, ecrtest.Options{}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()}), filepath.Join(dir, "cache"),
		"{name: main,", "{name: main, auth: people,",
		"  default_namespace: library\n", "  default_namespace: library\n  credentials: {username: robot, password_file: "+file("hub", secrets[0])+"}\n",
		"cache:", "auth: [{name: people, htpasswd: {file: "+users+"}, rules: [{users: [annabel], repositories: ['*'], actions: [pull]}]}]\n"+
			"admin: {token_file: "+token+"}\nnotifications: [{url: 'http://127.0.0.1:1/"+secrets[2]+"', headers: {X-Key: "+secrets[2]+"}}]\ncache:")
	setenv(t, "AWS_SECRET_ACCESS_KEY", secrets[4])
	seed(s, s.ecr, "team/app", "v1", 1000)
	s.want(200, "GET", "/v2/team/app/manifests/v1", nil, "Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("annabel:"+secrets[3])))

	archive := filepath.Join(dir, "bundle.tar.gz")
	code, stdout, stderr := runDray(t, []string{"AWS_SECRET_ACCESS_KEY=" + secrets[4], "AWS_REGION=eu-west-1"}, "debug", "bundle", "--config", s.path, "--admin", s.admin(), "--token-file", token, "--output", archive)
	if code != exitOK || strings.TrimSpace(stdout) != archive {
		t.Fatalf("%d %s%s", code, stdout, stderr)
	}
	files := inArchive(t, archive)
	for name, want := range map[string]string{
		"README.txt": "What dray debug bundle collected", "version.json": `"version"`, "configuration.yaml": "name: people", "environment.txt": "AWS_REGION=eu-west-1", "doctor.json": `"registry.hub.credentials"`,
		"machine.txt": "/proc/self/limits", "disk.json": `"cache.format"`, "metrics.txt": "dray_image_pulls_total", "readyz.json": `"upstream ecr"`, "live.json": `"user": "user-1"`, "queue.json": `"pushes"`,
		"goroutines.txt": "goroutine profile: total", "heap.pb.gz": "alloc_space",
	} {
		if !strings.Contains(files[name], want) {
			t.Errorf("%s does not have %q: %.300s", name, want, files[name])
		}
	}
	if !strings.Contains(files["README.txt"], "fleet.json") || files["fleet.json"] != "" || !strings.Contains(stderr, "not there: fleet.json") {
		t.Errorf("a dray without a fleet: %s%s", files["README.txt"], stderr)
	}
	for name, body := range files {
		for _, secret := range append(secrets, string(hashed), "annabel") {
			for _, form := range []string{secret, base64.StdEncoding.EncodeToString([]byte(secret)), base64.StdEncoding.EncodeToString([]byte("annabel:" + secret)), base64.StdEncoding.EncodeToString([]byte("robot:" + secret))} {
				if strings.Contains(body, form) || strings.Contains(stderr, form) {
					t.Errorf("%s has %q", name, secret)
				}
			}
		}
	}
}
