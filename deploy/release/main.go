package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// platform is a system and an architecture, as Go names them.
type platform struct{ os, arch string }

func (p platform) String() string { return p.os + "_" + p.arch }

// target is a program for a platform.
type target struct {
	platform
	source string // package
}

const (
	mirror = "./cmd/dray"
	remote = "./cmd/dray/remote" // only the subcommands that query a running mirror
)

// targets are the programs of a release.
var targets = []target{
	{platform{"linux", "amd64"}, mirror}, {platform{"linux", "arm64"}, mirror},
	{platform{"darwin", "amd64"}, remote}, {platform{"darwin", "arm64"}, remote},
	{platform{"windows", "amd64"}, remote}, {platform{"windows", "arm64"}, remote},
}

// environment returns the environment of the go command for a target. With GOPROXY=off, the go
// command uses only modules in the module cache.
func (t target) environment() []string {
	return append(os.Environ(), "CGO_ENABLED=0", "GOOS="+t.os, "GOARCH="+t.arch, "GOAMD64=v1", "GOARM64=v8.0",
		"GOFLAGS=-mod=readonly", "GOPROXY=off", "GOTOOLCHAIN=local", "GOEXPERIMENT=")
}

// mirrors returns the platforms for which a release has the mirror.
func mirrors() (all []platform) {
	for _, t := range targets {
		if t.source == mirror {
			all = append(all, t.platform)
		}
	}
	return all
}

// release is a version that is being built.
type release struct {
	version, revision     string
	published, maintainer string
	documented            string // the address that [release.document] replaces by r.published
	summary               string // a description of dray in one line
	at                    time.Time
	root, out             string
	authorities           []byte // the TLS authorities for the image
	programs              map[platform][]byte
	notices               []byte
	manual                map[string][]byte // pages by name
	completions           map[string][]byte // by shell
	documents             map[string][]byte // by name
	err                   error             // the errors of the method source
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func run() error {
	r := &release{programs: map[platform][]byte{}, manual: map[string][]byte{}, completions: map[string][]byte{}, documents: map[string][]byte{}}
	flag.StringVar(&r.root, "root", ".", "directory of the sources")
	flag.StringVar(&r.out, "out", "bin/release", "directory to write, which loses the files of an earlier release first")
	flag.StringVar(&r.version, "version", "", "version (default: by git describe)")
	flag.StringVar(&r.published, "published", "", "address of packages and images (default: that of the Makefile)")
	flag.StringVar(&r.maintainer, "maintainer", "", "name and mail address for packages")
	authorities := flag.String("authorities", "/etc/ssl/certs/ca-certificates.crt", "PEM file with the authorities that the image trusts")
	key := flag.String("key", "", "PEM file with the private key that signs; without it nothing is signed")
	flag.Parse()
	if err := r.prepare(*authorities); err != nil {
		return err
	}
	for _, step := range []func() error{r.build, r.describe, r.archives, r.packages, func() error { return r.images(mirrors()) }, r.chart, r.tell} {
		if err := step(); err != nil {
			return err
		}
	}
	return r.seal(*key)
}

// prepare completes the settings, reads the documents, and empties the output directory.
func (r *release) prepare(authorities string) error {
	makefile := string(r.source("Makefile"))
	published := regexp.MustCompile(`(?m)^PUBLISHED\s*\?=\s*(\S+)$`).FindStringSubmatch(makefile)
	if r.err != nil || published == nil {
		return errors.Join(r.err, errors.New("the Makefile does not set PUBLISHED"))
	}
	r.documented = published[1]
	r.published = cmp.Or(r.published, r.documented)
	r.maintainer = cmp.Or(r.maintainer, "The maintainers of dray <dray@"+r.published+">")
	r.summary = "Caching mirror for container registries that forwards pushes to Amazon ECR"
	var err error
	if r.authorities, err = os.ReadFile(authorities); err != nil {
		return fmt.Errorf("authorities: %w; give another file with -authorities", err)
	}
	if err := r.asOf(); err != nil {
		return err
	}
	for _, pages := range []string{"README.md", "docs/*.md", "docs/decisions/*.md", "deploy/README.md", "deploy/dray.yaml", "deploy/iam/*", "deploy/compose/*", "deploy/helm/rules.yaml", "deploy/helm/dashboard.json", "deploy/terraform/*"} {
		if err := r.document(pages); err != nil {
			return err
		}
	}
	return empty(r.out)
}

// ours matches the names of the files of a release.
var ours = regexp.MustCompile(`^(dray[_-].*\.(cdx\.json|schema\.json|zip|tar\.gz|deb|tar|tgz)|INSTALL\.md|SHA256SUMS(\.sig)?|dray\.pub)$`)

// empty makes an empty directory for the files of a release. It removes the files of an earlier
// release. If the directory has anything else, empty removes nothing and returns an error.
func empty(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.Type().IsRegular() || !ours.MatchString(e.Name()) {
			return fmt.Errorf("%s has %s, which is not a file of a release; give another directory with -out (make release RELEASE=DIR)", dir, e.Name())
		}
	}
	for _, e := range entries {
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// asOf finds the version, the commit and its time. SOURCE_DATE_EPOCH, in seconds, overrides the
// time (reproducible-builds.org).
func (r *release) asOf() error {
	git := func(args ...string) string {
		out, _ := exec.Command("git", append([]string{"-C", r.root}, args...)...).Output() // "" outside a git repository
		return strings.TrimSpace(string(out))
	}
	r.version = cmp.Or(r.version, git("describe", "--tags", "--always", "--dirty"), "unknown")
	r.revision = git("rev-parse", "HEAD")
	seconds := cmp.Or(os.Getenv("SOURCE_DATE_EPOCH"), git("log", "-1", "--format=%ct"))
	n, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return errors.New("the time of the sources is not known: set SOURCE_DATE_EPOCH, or build in a clone")
	}
	r.at = time.Unix(n, 0).UTC()
	return nil
}

// source reads a file of the sources. It stores an error in r.err.
func (r *release) source(name string) []byte {
	body, err := os.ReadFile(filepath.Join(r.root, name))
	r.err = errors.Join(r.err, err)
	return body
}

// document adds the documents that match a pattern. In their texts, it replaces the documented
// address by the address of this release.
func (r *release) document(pattern string) error {
	names, err := filepath.Glob(filepath.Join(r.root, pattern))
	if err != nil {
		return err
	}
	for _, name := range names {
		if info, err := os.Stat(name); err != nil || info.IsDir() {
			continue
		}
		name, err := filepath.Rel(r.root, name)
		if err != nil {
			return err
		}
		text := strings.ReplaceAll(string(r.source(name)), r.documented, r.published)
		r.documents[filepath.ToSlash(name)] = []byte(text)
	}
	return r.err
}

// build builds the programs of all platforms, and gets the manual and the completions from the
// mirror for this machine. It uses the modules that were downloaded before.
func (r *release) build() error {
	dir, err := os.MkdirTemp("", "dray-release-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for _, t := range targets {
		if err := r.compile(t, filepath.Join(dir, t.String())); err != nil {
			return err
		}
	}
	own := platform{"linux", runtime.GOARCH}
	if runtime.GOOS != own.os || r.programs[own] == nil {
		return fmt.Errorf("cannot run any of the programs on %s/%s to get their manual; build on Linux, amd64 or arm64", runtime.GOOS, runtime.GOARCH)
	}
	return r.ask(filepath.Join(dir, own.String()), dir)
}

func (r *release) compile(t target, to string) error {
	fmt.Println("building", t.source, "for", t)
	cmd := exec.Command("go", "build", "-tags", "grpcnotrace", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -buildid= -X dray/cmd/dray/program.version="+r.version, "-o", to, t.source)
	cmd.Dir, cmd.Env = r.root, t.environment()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s for %s: %w; go mod download gets missing modules\n%s", t.source, t, err, out)
	}
	body, err := os.ReadFile(to)
	r.programs[t.platform] = body
	return err
}

// ask gets the manual and the completions from a program.
func (r *release) ask(program, dir string) error {
	pages := filepath.Join(dir, "man")
	if out, err := exec.Command(program, "man", pages).CombinedOutput(); err != nil {
		return fmt.Errorf("manual: %w\n%s", err, out)
	}
	names, err := os.ReadDir(pages)
	if err != nil {
		return err
	}
	for _, e := range names {
		if r.manual[e.Name()], err = os.ReadFile(filepath.Join(pages, e.Name())); err != nil {
			return err
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if r.completions[shell], err = exec.Command(program, "completion", shell).Output(); err != nil {
			return fmt.Errorf("completion of %s: %w", shell, err)
		}
	}
	return nil
}

// describe gathers licences, and writes the bill of materials and the schema of the configuration.
func (r *release) describe() (err error) {
	if r.notices, err = r.thirdParties(); err != nil {
		return err
	}
	bill, err := materials(r.version, r.programs[mirrors()[0]])
	if err != nil {
		return err
	}
	return errors.Join(
		r.write(fmt.Sprintf("dray_%s.cdx.json", r.version), append(bill, '\n')),
		r.write(fmt.Sprintf("dray_%s.schema.json", r.version), r.source("cmd/dray/config/schema.json")))
}

// archives writes an archive for each platform.
func (r *release) archives() error {
	for p, program := range r.programs {
		files := tree{}
		files.add("LICENSE", r.source("LICENSE"))
		files.add("CHANGELOG.md", r.source("CHANGELOG.md"))
		files.add(noticesName, r.notices)
		for name, body := range r.documents {
			files.add(name, body)
		}
		name := fmt.Sprintf("dray_%s_%s", r.version, p)
		if p.os == "windows" {
			files.program("dray.exe", program)
			body, err := files.zip(r.at)
			if err := errors.Join(err, r.write(name+".zip", body)); err != nil {
				return err
			}
			continue
		}
		files.program("dray", program)
		if p.os == "linux" {
			r.extras(files)
		}
		plain, err := files.tar(name+"/", r.at)
		if err != nil {
			return err
		}
		body, err := zipped(plain)
		if err := errors.Join(err, r.write(name+".tar.gz", body)); err != nil {
			return err
		}
	}
	return r.err
}

// extras adds the manual, the completions and the files of systemd, for machines that run a mirror.
func (r *release) extras(files tree) {
	for name, body := range r.manual {
		files.add("man/"+name, body)
	}
	for shell, body := range r.completions {
		files.add("completions/dray."+shell, body)
	}
	for _, name := range []string{"deploy/systemd/dray.service", "deploy/systemd/dray.sysusers"} {
		files.add(name, r.source(name))
	}
}

func (r *release) packages() error {
	for _, p := range mirrors() {
		if err := r.deb(p); err != nil {
			return err
		}
	}
	return nil
}

// tell writes the release notes, which say how to install the release.
func (r *release) tell() error {
	notes, err := notesOf(string(r.documents["docs/install.md"]), r.version)
	if err != nil {
		return err
	}
	return r.write("INSTALL.md", []byte(notes))
}

// aboutVersion is the sentence of docs/install.md that release notes leave out.
const aboutVersion = " Replace `VERSION` below with the version, such as `1.2.0`."

// notesOf returns the page docs/install.md as the release notes of a version.
func notesOf(page, version string) (string, error) {
	before, after, found := strings.Cut(page, aboutVersion)
	if !found {
		return "", fmt.Errorf("docs/install.md lacks the sentence %q on one line", aboutVersion)
	}
	return strings.ReplaceAll(strings.ReplaceAll(before+after, "VERSION", version), "](../", "]("), nil
}

// seal writes the checksums and, if there is a key, signs them.
func (r *release) seal(key string) error {
	sums, err := checksums(r.out)
	if err != nil {
		return err
	}
	if err := r.write("SHA256SUMS", sums); err != nil {
		return err
	}
	if key == "" {
		fmt.Println("not signed: give a key by make release KEY=FILE")
		return nil
	}
	signature, public, err := sign(key, sums)
	if err != nil {
		return err
	}
	return errors.Join(r.write("SHA256SUMS.sig", signature), r.write("dray.pub", public))
}

// write writes a file of the release.
func (r *release) write(name string, body []byte) error {
	if r.err != nil {
		return r.err
	}
	fmt.Printf("%9d  %s\n", len(body), name)
	return os.WriteFile(filepath.Join(r.out, name), body, 0o644)
}
