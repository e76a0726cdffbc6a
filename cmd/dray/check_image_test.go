package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"dray/cmd/dray/program"
	"dray/mirror/pipeline"
)

// madeOf is an image of uncompressed layers, made by a library that somebody else wrote.
func madeOf(t *testing.T, labels map[string]string, layers ...[]byte) v1.Image {
	t.Helper()
	img, err := mutate.Config(empty.Image, v1.Config{Labels: labels})
	for _, l := range layers {
		if err == nil {
			img, err = mutate.AppendLayers(img, static.NewLayer(l, types.OCIUncompressedLayer))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// policyConfig has checks of several kinds.
func policyConfig(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dray.yaml")
	text := `
cache: {directory: ` + t.TempDir() + `}
upstreams:
- {name: ecr, url: 123456789012.dkr.ecr.eu-west-1.amazonaws.com, push: true, checks: [team, others]}
checks:
- name: team
  repositories: ["team/*"]
  secrets: {mode: enforce}
  rules:
    mode: enforce
    rules:
    - {name: owner, each: manifest, expression: 'manifest.?config.?config.?Labels.?owner.hasValue()', message: nobody owns the image, fix: set the label owner}
- name: others
  rules: {mode: enforce, rules: [{name: never, expression: 'false'}]}
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCheckImage(t *testing.T) {
	config, dir := policyConfig(t), t.TempDir()
	key := "AK" + "IAQ7PZ3XK2MLWN5VYT"
	bad := madeOf(t, nil, tarOf(t, "etc/motd", "hello"), tarOf(t, "app/env.sh", "export K="+key))
	good := madeOf(t, map[string]string{"owner": "core"}, tarOf(t, "etc/motd", "hello"))
	write := func(img v1.Image, file string) {
		t.Helper()
		tag, err := name.NewTag("app:1")
		if err != nil {
			t.Fatal(err)
		}
		if err := tarball.WriteToFile(filepath.Join(dir, file+".tar"), tag, img); err != nil {
			t.Fatal(err)
		}
		l, err := layout.Write(filepath.Join(dir, file), empty.Index)
		if err == nil {
			err = l.AppendImage(img, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "1"}))
		}
		if err != nil {
			t.Fatal(err)
		}
		archive, err := os.Create(filepath.Join(dir, file+".oci.tar"))
		if err != nil {
			t.Fatal(err)
		}
		defer archive.Close()
		w := tar.NewWriter(archive)
		if err := w.AddFS(os.DirFS(filepath.Join(dir, file))); err != nil || w.Close() != nil {
			t.Fatal(err)
		}
	}
	write(bad, "bad")
	write(good, "good")
	for _, name := range []string{"good.tar", "bad.tar"} {
		plain, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name+".gz"), gzipOf(t, plain), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "cut.gz"), gzipOf(t, make([]byte, 1<<20))[:100], 0o600); err != nil {
		t.Fatal(err)
	}
	at := func(s string) string { return strings.ReplaceAll(s, "DIR", dir) }
	for _, c := range []struct {
		args string
		code int
		says []string
	}{
		{"oci:DIR/good --as ecr/team/app:1", exitOK, []string{"team/app:1", "would pass", "the checks team"}},
		{"oci:DIR/good:1 --as ecr/team/app:1", exitOK, nil},
		{"docker-archive:DIR/good.tar --as ecr/team/app:1", exitOK, nil},
		{"docker-archive:DIR/good.oci.tar --as ecr/team/app:1", exitOK, nil},
		{"oci-archive:DIR/good.oci.tar --as ecr/team/app:1", exitOK, nil},
		{"docker-archive:DIR/good.tar.gz --as ecr/team/app:1", exitOK, nil},
		{"docker-archive:DIR/bad.tar.gz --checks team", exitRejected, []string{"secrets/aws-access-key"}},
		{"docker-archive:DIR/cut.gz --checks team", exitFailed, []string{"is not an image archive"}},
		{"oci:DIR/bad --checks team", exitRejected, []string{"would be rejected by the checks team", "secrets/aws-access-key", "layer 2 of 2, /app/env.sh", "rules/owner", "what to do   set the label owner"}},
		{"docker-archive:DIR/bad.tar --checks team", exitRejected, []string{"secrets/aws-access-key", "layer 2 of 2, /app/env.sh"}},
		{"oci:DIR/good --as ecr/sandbox/app:1", exitRejected, []string{"the checks others", "rules/never"}},
		{"oci:DIR/good:2 --checks team", exitFailed, []string{`an image with the name "2"; there are 1`}},
		{"docker-archive:DIR/good.tar:1 --as ecr/team/app:1", exitOK, nil},
		{"docker-archive:DIR/good.tar:app:1 --as ecr/team/app:1", exitOK, nil},
		{"docker-archive:DIR/good.oci.tar:1 --checks team", exitOK, []string{"the image:1 "}},
		{"docker-archive:DIR/good.tar:app:2 --checks team", exitFailed, []string{`an image with the name "app:2"`, "app:1"}},

		{"oci:DIR/nothing --checks team", exitFailed, []string{"nothing"}},
		{"oci:DIR/good --checks nobody", exitFailed, []string{`has no checks named "nobody"`}},
		{"oci:DIR/good", exitFailed, []string{"--as"}},
		{"oci:DIR/good --as elsewhere.example.com/app:1", exitFailed, []string{"is not a name of dray or of one of its upstreams"}},
		{"docker-archive:DIR/good --checks team", exitFailed, nil},
		{"DIR/good.tar --checks team", exitFailed, []string{"write docker-archive:/"}},
		{"DIR/good --checks team", exitFailed, []string{"write oci:/"}},
		{"", exitUsage, nil},
	} {
		t.Run(c.args, func(t *testing.T) {
			var out, errs bytes.Buffer
			code := run(t.Context(), append([]string{"check-image", "--config", config}, strings.Fields(at(c.args))...), nil, nil, &out, &errs)
			text := out.String() + errs.String()
			if code != c.code {
				t.Errorf("exit code %d, want %d\n%s", code, c.code, text)
			}
			for _, want := range c.says {
				if !strings.Contains(text, want) {
					t.Errorf("%q is not in\n%s", want, text)
				}
			}
			if strings.Contains(text, key) {
				t.Error("the secret is told")
			}
		})
	}
	var out bytes.Buffer
	run(t.Context(), []string{"check-image", "--config", config, "--json", "--checks", "team", "oci:" + dir + "/bad"}, nil, nil, &out, &out)
	var r pipeline.Report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil || r.Pass || len(r.Findings) != 2 || r.Findings[0].Fingerprint == "" {
		t.Errorf("report %s: %v", out.Bytes(), err)
	}
}

// A document that check-image prints is a fixture for policy test.
func TestPolicyTest(t *testing.T) {
	config, dir := policyConfig(t), t.TempDir()
	l, err := layout.Write(filepath.Join(dir, "bad"), empty.Index)
	if err == nil {
		err = l.AppendImage(madeOf(t, nil, tarOf(t, "a", "b"), tarOf(t, "k", "AK"+"IAQ7PZ3XK2MLWN5VYT")))
	}
	if err != nil {
		t.Fatal(err)
	}
	var view bytes.Buffer
	if code := run(t.Context(), []string{"check-image", "--config", config, "--view", "--as", "ecr/team/app:1", "oci:" + dir + "/bad"}, nil, nil, &view, &view); code != exitOK {
		t.Fatal(view.String())
	}
	file := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	file("bad.json", view.String())
	for _, c := range []struct {
		tests string
		code  int
		says  []string
	}{
		{"- {name: a, image: bad.json, findings: [rules/owner]}\n- {name: b, image: 'oci:bad', as: 'ecr/team/app:1', findings: [rules/owner, secrets/aws-access-key]}", exitOK, []string{"ok ", "2 passed, 0 failed"}},
		{"- {image: DIR/bad.json, findings: [rules/owner]}\n- {image: 'oci:DIR/bad', as: 'ecr/team/app:1', findings: [rules/owner, secrets/aws-access-key]}", exitOK, []string{"2 passed, 0 failed"}},
		{"- {name: a, image: bad.json}", exitRejected, []string{"FAIL", "found, but not expected: rules/owner: nobody owns the image", "0 passed, 1 failed"}},
		{"- {image: bad.json, findings: [rules/owner, rules/other]}", exitRejected, []string{"test 1", "expected, but not found: rules/other"}},
		{"- {image: bad.json, as: 'ecr/sandbox/app:1', findings: [rules/never]}", exitOK, nil},
		{"- {image: missing.json}", exitFailed, []string{"missing.json"}},
		{"- {image: 'bad.json', nonsense: 1}", exitFailed, []string{"tests.yaml:2: tests[0].nonsense: unknown key; known keys: as, findings, image, name"}},
		{"- {image: [a]}", exitFailed, []string{"tests.yaml:2: tests[0].image: must be a string"}},
		{"- image: a\n\tas: b", exitFailed, []string{"tests.yaml:3: ", "spaces"}},
		{"- {image: empty.json}", exitFailed, []string{"no manifests"}},
		{"  []", exitFailed, []string{"no tests in the file"}},
	} {
		file("empty.json", "{}")
		path := file("tests.yaml", "tests:\n"+strings.ReplaceAll(c.tests, "DIR", dir)+"\n")
		var out bytes.Buffer
		code := run(t.Context(), []string{"policy", "test", "--config", config, path}, nil, nil, &out, &out)
		if code != c.code {
			t.Errorf("%s: exit code %d, want %d\n%s", c.tests, code, c.code, out.String())
		}
		for _, want := range c.says {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s: %q is not in\n%s", c.tests, want, out.String())
			}
		}
	}
}

// check-image gives the same verdict on an image in a registry as a push would.
func TestCheckImageInRegistry(t *testing.T) {
	s := startStack(t, t.TempDir(), checked("  repositories: ['other/*']\n  rules: {mode: enforce, rules: [{name: owner, expression: 'false', message: nobody owns the image}]}")...)
	s.ecr.CreateRepository("team/app")
	if r := s.pushImage("team/app", "v1", newImage(t, plainConfig, gzipOf(t, tarOf(t, "a", "b")))); r.StatusCode != 201 {
		t.Fatalf("%s %s", r.Status, r.body)
	}
	var out bytes.Buffer
	o, err := openRemote(t.Context(), s.cfg, "ecr/team/app:v1")
	if err != nil {
		t.Fatal(err)
	}
	o.close()
	if err := (imageCheck{checks: "gate"}).run(t.Context(), s.cfg, "ecr/team/app:v1", &out); err != program.ErrRejected || !strings.Contains(out.String(), "nobody owns the image") {
		t.Error(fmt.Sprint(err), out.String())
	}
}
