package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"dray/mirror/admin/api"
	"dray/upstream/ecrtest"
	"dray/upstream/oci"
)

// warmAnswer is what dray warm prints with --json.
type warmAnswer struct {
	Images []struct {
		Image     string
		Platforms []string
		api.Warmth
		Error string
	}
	Problems []string
}

// warm runs dray warm against the stack, with a text on standard input.
func (s *stack) warm(stdin string, args ...string) (code int, stdout, stderr string) {
	s.Helper()
	var out, errs bytes.Buffer
	code = run(s.Context(), append([]string{"warm", "--admin", s.admin()}, args...), []string{"TAG=2"}, strings.NewReader(stdin), &out, &errs)
	return code, out.String(), errs.String()
}

// TestWarm: the images of arguments, standard input and files are held afterwards. When a client
// pulls them, no registry is asked for anything.
func TestWarm(t *testing.T) {
	s := startStack(t, t.TempDir())
	app := seed(t, s.ecr, "team/app", "1", 300<<10)
	alpine := seed(t, s.hub, "library/alpine", "latest", 200<<10)
	web := seed(t, s.hub, "team/web", "2", 1<<10)
	golang := seed(t, s.hub, "library/golang", "1.26", 2<<10)
	busybox := seed(t, s.hub, "library/busybox", "musl", 3<<10)
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	compose := file("compose.yaml", "services: {web: {image: 'team/web:${TAG}'}, base: {image: alpine}, here: {build: ., image: here}}\n")
	build := file("Dockerfile", "ARG GO=1.26\nFROM golang:$GO AS build\nCOPY --from=busybox:musl /bin/sh /bin/sh\nFROM build\n")

	code, stdout, stderr := s.warm("# nodes\nhub/alpine # the base\n", "ecr/team/app:1", "-", "-f", compose, "-f", build)
	if code != 0 || stderr != "" {
		t.Fatalf("%d %s", code, stderr)
	}
	for _, want := range []string{
		"ecr/team/app:1: held, 3 parts, ", "hub/alpine: held, ", "docker.io/team/web:2: held, ", "docker.io/library/alpine:latest: held, ",
		"docker.io/library/golang:1.26: held, ", "docker.io/library/busybox:musl: held, ", "6 of 6 images held; fetched ",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("%q is not in\n%s", want, stdout)
		}
	}
	s.ecr.ResetCounters()
	s.hub.ResetCounters()
	for at, image := range map[string]seeded{
		"/v2/team/app/manifests/1": app, "/v2/hub/alpine/manifests/latest": alpine, "/v2/hub/team/web/manifests/2": web,
		"/v2/hub/golang/manifests/1.26": golang, "/v2/hub/busybox/manifests/musl": busybox,
	} {
		s.want(200, "GET", at, nil, "Accept", strings.Join(oci.AnyManifest(), ", ")) // as containerd asks
		repo, _, _ := strings.Cut(at, "/manifests/")
		s.pull(repo, image.manifest.Digest.String(), image.manifest)
	}
	spent(t, s.ecr, map[ecrtest.Kind]int64{})
	spent(t, s.hub, map[ecrtest.Kind]int64{})
}

// TestWarmPlatform: of an index, the platform of the flag or of the file is fetched. --json tells
// that.
func TestWarmPlatform(t *testing.T) {
	s := startStack(t, t.TempDir())
	index := s.indexed("team/app", "1", "amd64", "arm64", "s390x")
	digests := func() (held []string) {
		for i, m := range index.Manifests {
			if _, ok := s.disk.Stat(m.Digest); ok {
				held = append(held, index.Manifests[i].Platform.Architecture)
			}
		}
		return held
	}
	ask := func(stdin string, args ...string) (code int, a warmAnswer) {
		code, stdout, stderr := s.warm(stdin, append(args, "--json")...)
		if err := json.Unmarshal([]byte(stdout), &a); err != nil {
			t.Fatalf("%v in %s %s", err, stdout, stderr)
		}
		return code, a
	}
	code, a := ask("", "team/app:1", "--platform", "arm64")
	if code != 0 || len(a.Images) != 1 || a.Images[0].Digest != index.Digest || a.Images[0].Parts != 4 || a.Images[0].HeldParts != 4 || a.Images[0].FetchedBytes == 0 ||
		a.Images[0].HeldBytes != a.Images[0].Bytes || a.Images[0].Name != "ecr/team/app:1" || a.Problems == nil {
		t.Errorf("%d %+v", code, a)
	}
	if held := digests(); len(held) != 1 || held[0] != "arm64" {
		t.Errorf("held: %s", held)
	}
	code, a = ask("FROM --platform=linux/s390x localhost/team/app:1\nFROM --platform=$TARGETPLATFORM localhost/team/app:1\n", "-f", "-", "--platform", "linux/arm64")
	if want := []string{"linux/arm64", "linux/s390x"}; code != 0 || len(a.Images) != 1 || !slices.Equal(a.Images[0].Platforms, want) || len(digests()) != 2 {
		t.Errorf("%d %+v", code, a)
	}
	code, a = ask("", "team/app:1", "--platform", "linux/ppc64le")
	if code != exitFailed || !strings.Contains(a.Images[0].Error, "no manifest for the platform linux/ppc64le; it has linux/amd64, linux/arm64, linux/s390x") {
		t.Errorf("%d %+v", code, a)
	}
	if code, a = ask("", "team/app:1", "--platform", "all"); code != 0 || a.Images[0].Parts != 10 || len(digests()) != 3 {
		t.Errorf("%d %+v", code, a)
	}
	if code, a = ask("", "team/app@"+index.Digest.String()); code != 0 || a.Images[0].FetchedBytes != 0 || a.Images[0].Platforms[0] != "linux/"+runtime.GOARCH {
		t.Errorf("%d %+v", code, a)
	}
}

// indexed brings an index of images for Linux to the fake ECR.
func (s *stack) indexed(repo, tag string, architectures ...string) *oci.Manifest {
	s.Helper()
	var entries []string
	for i, a := range architectures {
		image := seed(s, s.ecr, repo, tag+"-"+a, int64(i+1)<<10)
		entries = append(entries, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d,"platform":{"os":"linux","architecture":%q}}`,
			image.manifest.MediaType, image.manifest.Digest, len(image.manifest.Raw), a))
	}
	raw := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, oci.MediaTypeOCIIndex, strings.Join(entries, ","))
	index, err := oci.ParseManifest(oci.MediaTypeOCIIndex, raw)
	if err != nil {
		s.Fatal(err)
	}
	s.ecr.SeedManifest(repo, tag, index.MediaType, index.Digest, raw)
	return index
}

// TestWarmFailures: the images that can be held are, and the exit code and the messages say which
// are not, and why.
func TestWarmFailures(t *testing.T) {
	s := startStack(t, t.TempDir(), "min_free_bytes: 0", "min_free_bytes: 0, max_bytes: 8MiB")
	seed(t, s.ecr, "team/app", "1", 10<<10)
	seed(t, s.ecr, "team/large", "1", 20<<20)
	for name, tc := range map[string]struct {
		stdin  string
		args   []string
		code   int
		stdout string
		stderr []string
	}{
		"nothing named":                {"", nil, exitFailed, "", []string{"dray: no image is named\n"}},
		"an image is missing":          {"team/app:1\nteam/none:1\n", nil, exitFailed, "team/app:1: held, 3 parts", []string{"dray: team/none:1: name unknown: ", "dray: 1 of 2 images are not held as a whole\n"}},
		"a registry that dray has not": {"", []string{"ghcr.io/a/b"}, exitFailed, "", []string{`dray: ghcr.io/a/b: "ghcr.io" is not a name of dray`}},
		"a digest alone":               {"", []string{"sha256:" + strings.Repeat("0", 64)}, exitFailed, "", []string{"a digest without a repository cannot be fetched"}},
		"no reference":                 {"", []string{"Team/App"}, exitFailed, "", []string{"dray: Team/App: "}},
		"a line of a file":             {"services: {a: {image: 'a:${NONE}'}, b: {image: 'localhost/team/app:1'}}", nil, exitFailed, "localhost/team/app:1: held", []string{"dray: standard input: line 1: a:${NONE}: the variable NONE has no value", "dray: 1 problems with what the files name\n"}},
		"a platform of a file":         {"FROM --platform=/ a\n", nil, exitFailed, "", []string{"dray: standard input: line 1: platform / of docker.io/library/a:latest: "}},
		"no such file":                 {"", []string{"-f", "/dev/null/none"}, exitFailed, "", []string{"/dev/null/none"}},
		"a large file":                 {strings.Repeat("a/b:1\n", 2<<20), []string{"-f", "-"}, exitFailed, "", []string{"are no file that names images"}},
		"no platform":                  {"", []string{"team/app:1", "--platform", "linux/amd64/v8/x"}, exitUsage, "", []string{"see dray warm --help"}},
		"no build argument":            {"", []string{"team/app:1", "--build-arg", "x"}, exitUsage, "", []string{"--build-arg x: not of the form NAME=VALUE"}},
		"a cache too small":            {"", []string{"team/large:1"}, exitFailed, "", []string{"dray: team/large:1: ", "the cache did not keep all of the image"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := &stack{TB: t, graph: s.graph, adminURL: "http://" + s.admin()}
			code, stdout, stderr := s.warm(tc.stdin, tc.args...)
			if code != tc.code || !strings.Contains(stdout, tc.stdout) {
				t.Errorf("%d\n%s\n%s", code, stdout, stderr)
			}
			for _, want := range tc.stderr {
				if !strings.Contains(stderr, want) {
					t.Errorf("%q is not in\n%s", want, stderr)
				}
			}
		})
	}
}
