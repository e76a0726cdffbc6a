package imagelist

import (
	"slices"
	"strings"
	"testing"

	"github.com/distribution/reference"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const hex = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// cases are files, what they name, and the beginnings of the problems with them.
var cases = []struct {
	name     string
	text     string
	options  Options
	want     []Image
	problems []string
}{
	{name: "empty", text: "\n  \n# nothing\n"},
	{
		name: "a list", text: "# for the nodes\nalpine\n\n  ecr/team/app:1  # ours\nghcr.io/a/b@sha256:" + hex + "\r\nalpine\n",
		want: []Image{{"alpine", "", 2}, {"ecr/team/app:1", "", 4}, {"ghcr.io/a/b@sha256:" + hex, "", 5}},
	},
	{name: "a list of one", text: "localhost:5000/a:1", want: []Image{{"localhost:5000/a:1", "", 1}}},
	{name: "a list of short names", text: "a\nb\n", want: []Image{{"a", "", 1}, {"b", "", 2}}},
	{
		name: "Compose",
		text: `name: shop
services:
  db: {image: "postgres:17", platform: linux/amd64}
  web:
    image: ${REGISTRY:-docker.io}/team/web:${TAG}
  cache: &cache
    image: redis
  second: *cache
  built:
    build: .
    image: team/built
  pulled:
    build: ~
    image: team/pulled:1
  nothing:
    image:
`,
		options: Options{Environment: []string{"TAG=7", "HOME=/root"}},
		want: []Image{
			{"docker.io/library/postgres:17", "linux/amd64", 3}, {"docker.io/team/web:7", "", 5}, {"docker.io/library/redis:latest", "", 7},
			{"docker.io/team/pulled:1", "", 14},
		},
	},
	{
		name: "Compose without its variables", text: "services: {a: {image: \"app:${TAG}\"}, b: {image: \"b:$TAG\"}, c: {image: \"c:${TAG:?no tag}\"}, d: {image: d}}",
		want:     []Image{{"docker.io/library/d:latest", "", 1}},
		problems: []string{"line 1: app:${TAG}: the variable TAG has no value; set it in the environment: TAG=VALUE", "line 1: b:$TAG: the variable TAG", "line 1: "},
	},
	{
		name: "Kubernetes, several documents",
		text: `apiVersion: v1
kind: Pod
spec:
  initContainers: [{name: a, image: busybox:1.37}]
  containers:
  - {name: b, image: "registry.k8s.io/pause:3.10@sha256:` + hex + `"}
  - {name: c, image: quay.io/x/y}
  volumes:
  - {name: data, image: {reference: "ghcr.io/models/m:1", pullPolicy: Always}}
---
# empty
---
kind: List
items:
- kind: CronJob
  spec: {jobTemplate: {spec: {template: {spec: {containers: [{image: busybox:1.37}, {image: busybox}]}}}}}
`,
		want: []Image{
			{"docker.io/library/busybox:1.37", "", 4}, {"registry.k8s.io/pause@sha256:" + hex, "", 6}, {"quay.io/x/y:latest", "", 7},
			{"ghcr.io/models/m:1", "", 9}, {"docker.io/library/busybox:latest", "", 16},
		},
	},
	{
		name: "JSON of kubectl", text: `{"kind": "Pod", "spec": {"containers": [{"image": "nginx:1"}]}}`,
		want: []Image{{"docker.io/library/nginx:1", "", 1}},
	},
	{
		name:     "Helm values",
		text:     "image: {registry: quay.io, repository: a/b, tag: v1}\nside: {image: {repository: c, digest: 'sha256:" + hex + "'}}\nother: {image: {repository: d, tag: ''}}\nodd: {image: {width: 3}}\n",
		want:     []Image{{"quay.io/a/b:v1", "", 1}, {"docker.io/library/c@sha256:" + hex, "", 2}},
		problems: []string{`line 3: image "d": it has no tag here`},
	},
	{name: "GitLab CI", text: "job: {image: {name: golang:1.26, entrypoint: ['']}}", want: []Image{{"docker.io/library/golang:1.26", "", 1}}},
	{name: "anchor for an image", text: "x: &i alpine:3\ny: {image: *i}\n", want: []Image{{"docker.io/library/alpine:3", "", 1}}},
	{name: "template of Helm", text: "spec: {image: '{{ .Values.image }}:1'}", problems: []string{`line 1: "{{ .Values.image }}:1" is a template`}},
	{name: "YAML without images", text: "- alpine\n- nginx\n", problems: []string{"line 1: this YAML has no image key"}},
	{name: "not YAML", text: "a: b\n c: [\n", problems: []string{"line 2: neither a list"}},
	{name: "broken after an image", text: "image: a\n---\n]", want: []Image{{"docker.io/library/a:latest", "", 1}}, problems: []string{"line 2: neither a list"}},
	{name: "not a reference", text: "image: Not/A/Name", problems: []string{`line 1: image "Not/A/Name": `}},
	{name: "a bomb of aliases", text: "a: &a [{image: x}]\nb: &b [*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b]\nd: [*c,*c,*c,*c]\n", want: []Image{{"docker.io/library/x:latest", "", 1}}},
	{
		name: "Dockerfile",
		text: `# syntax=docker/dockerfile:1.20
# the versions
ARG GO=1.26 BASE="gcr.io/distroless/static"
ARG UNUSED
from --platform=$BUILDPLATFORM golang:${GO}-alpine \
  # of the tools
  AS Build
ARG GO=9
RUN --mount=type=bind,from=busybox:musl,target=/b --mount=type=cache,target=/c <<EOF
FROM nothing
EOF
FROM build AS test
FROM scratch AS empty
COPY --from=build /a /a
COPY --from=0 /a /a
COPY --from=ghcr.io/tools/x:1 /x /x
FROM ${BASE}:${TAG:-latest}@sha256:` + hex + `
FROM --platform=linux/s390x alpine
`,
		options: Options{Targets: []string{"linux/arm64"}, Host: "linux/amd64"},
		want: []Image{
			{"docker.io/docker/dockerfile:1.20", "linux/amd64", 1}, {"docker.io/library/golang:1.26-alpine", "linux/amd64", 5}, {"docker.io/library/busybox:musl", "linux/arm64", 9},
			{"ghcr.io/tools/x:1", "linux/arm64", 16}, {"gcr.io/distroless/static@sha256:" + hex, "linux/arm64", 17},
			{"docker.io/library/alpine:latest", "linux/s390x", 18},
		},
	},
	{
		name:    "a stage for each architecture",
		text:    "FROM a AS base-amd64\nFROM b AS base-arm64\nFROM base-${TARGETARCH}\nFROM c:${TARGETOS}\n",
		options: Options{Targets: []string{"linux/amd64", "linux/arm64"}, Host: "linux/amd64"},
		want: []Image{
			{"docker.io/library/a:latest", "linux/amd64", 1}, {"docker.io/library/b:latest", "linux/amd64", 2}, {"docker.io/library/c:linux", "linux/amd64", 4},
			{"docker.io/library/a:latest", "linux/arm64", 1}, {"docker.io/library/b:latest", "linux/arm64", 2}, {"docker.io/library/c:linux", "linux/arm64", 4},
		},
	},
	{name: "all platforms", text: "FROM alpine:3\n", options: Options{Host: "linux/amd64"}, want: []Image{{"docker.io/library/alpine:3", "", 1}}},
	{
		name: "build arguments", text: "ARG V=1\nARG W\nFROM a:$V\nFROM b:$W\n", options: Options{Arguments: map[string]string{"V": "2", "W": "3"}},
		want: []Image{{"docker.io/library/a:2", "", 3}, {"docker.io/library/b:3", "", 4}},
	},
	{
		name: "an argument without a value", text: "ARG V\nFROM a:$V AS x\nFROM x\n", problems: []string{"line 2: a:$V: the variable V has no value; set --build-arg V=VALUE"},
	},
	{
		name: "another escape", text: "# escape=`\nFROM a `\n AS b\nCOPY C:\\x C:\\\nFROM c\n", options: Options{Targets: []string{"windows/amd64"}},
		want: []Image{{"docker.io/library/a:latest", "windows/amd64", 2}, {"docker.io/library/c:latest", "windows/amd64", 5}},
	},
	{name: "FROM of another form", text: "FROM a b\n", problems: []string{"line 1: FROM is not of the form"}},
	{name: "no instruction", text: "FROM a\n<<EOF\n", want: []Image{{"docker.io/library/a:latest", "", 1}}},
	{name: "here-document without an end", text: "FROM a\nRUN <<EOF\nx\n", problems: []string{"line 2: "}},
	{name: "a bomb of arguments", text: bomb(), problems: []string{"line 1", "line 3", "line 5"}},
}

func bomb() string {
	return "ARG A=" + strings.Repeat("x", 5000) + "\nARG B=" + strings.Repeat("y", 3000) + "\nARG C=$B$B\n\nFROM a:$C\n"
}

func TestRead(t *testing.T) {
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			images, problems := Read([]byte(tc.text), tc.options)
			if diff := cmp.Diff(tc.want, images, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			ok := len(problems) == len(tc.problems)
			for i := range problems {
				ok = ok && strings.HasPrefix(problems[i].Error(), tc.problems[i])
			}
			if !ok {
				t.Errorf("problems: %q", problems)
			}
		})
	}
}

// FuzzRead: whatever a file has, each image that is not of a list has a whole name, each line is in
// the file, and nothing is named twice.
func FuzzRead(f *testing.F) {
	for _, tc := range cases {
		f.Add([]byte(tc.text), "linux/arm64")
	}
	f.Fuzz(func(t *testing.T, text []byte, target string) {
		images, problems := Read(text, Options{Targets: []string{target}, Host: "linux/amd64", Environment: []string{"TAG=1"}})
		lines := strings.Count(string(text), "\n") + 1
		fromList := kindOf([]byte(strings.TrimPrefix(string(text), "\xef\xbb\xbf"))) == list
		seen := map[Image]bool{}
		for _, i := range images {
			if i.Line < 1 || i.Line > lines {
				t.Errorf("%+v in a file of %d lines", i, lines)
			}
			named, err := reference.ParseDockerRef(i.Name)
			if !fromList && (err != nil || named.String() != i.Name) || i.Name == "" {
				t.Errorf("%+v is not a whole name: %v", i, err)
			}
			if i.Line = 0; seen[i] {
				t.Errorf("%+v twice", i)
			}
			seen[i] = true
		}
		if slices.ContainsFunc(problems, func(err error) bool { return !strings.HasPrefix(err.Error(), "line ") }) {
			t.Errorf("%q", problems)
		}
	})
}
