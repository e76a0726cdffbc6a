package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// releaseVersion is the version of the release that the tests make.
const releaseVersion = "1.2.3"

// publishedAt is the address that the release names.
const publishedAt = "packages.example.com"

// makeRelease copies sources into a directory, makes a release of them there, and returns where it
// is. The copy has no git, so the time is given.
func makeRelease(t *testing.T, from, dir string) string {
	t.Helper()
	sources, out := filepath.Join(dir, "sources"), filepath.Join(dir, "release")
	run(t, environment(), "mkdir", "-p", dir)
	run(t, environment(), "cp", "-a", from, sources)
	key := filepath.Join(dir, "key.pem")
	run(t, environment(), need(t, "openssl"), "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", key)
	run(t, environment(), "go", "-C", sources, "mod", "download") // the release downloads nothing, and needs modules of other systems
	cmd := exec.CommandContext(t.Context(), need(t, "make"), "-C", sources, "release", "VERSION="+releaseVersion, "PUBLISHED="+publishedAt, "KEY="+key, "RELEASE="+out)
	cmd.Env = environment("SOURCE_DATE_EPOCH=1700000000")
	if text, err := cmd.CombinedOutput(); err != nil { // run would give it five minutes, which a first build may exceed
		t.Fatalf("make release: %v\n%s", err, text)
	}
	return out
}

// copySources copies the files of the working tree that git knows or would add.
func copySources(t *testing.T, to string) {
	t.Helper()
	if err := os.MkdirAll(to, 0o755); err != nil {
		t.Fatal(err)
	}
	script := `cd ../.. && git ls-files -z --cached --others --exclude-standard | xargs -0 sh -c 'for f; do [ ! -e "$f" ] || cp --parents -P "$f" "$0"; done' "$1"`
	run(t, environment(), "/bin/sh", "-c", script, "sh", to)
}

// TestRelease makes a release twice, and uses what it has as docs/install.md says.
func TestRelease(t *testing.T) {
	needRoot(t)
	base := shortDir(t)
	sources := filepath.Join(base, "sources")
	copySources(t, sources)
	first := makeRelease(t, sources, filepath.Join(base, "a"))
	t.Run("the same bytes in another directory", func(t *testing.T) {
		second := makeRelease(t, sources, filepath.Join(base, "another/and/longer"))
		sameFilesIn(t, first, second)
	})
	t.Run("checksums, signature and bill of materials", func(t *testing.T) { checkRelease(t, first) })
	t.Run("package", func(t *testing.T) { checkPackage(t, filepath.Join(first, "dray_"+releaseVersion+"_amd64.deb")) })
	t.Run("first pull", func(t *testing.T) { checkFirstPull(t, filepath.Join(first, "dray_"+releaseVersion+"_amd64.deb")) })
	t.Run("image", func(t *testing.T) {
		checkReleasedImage(t, filepath.Join(first, "dray_"+releaseVersion+"_image_amd64.tar"))
	})
	t.Run("image for registries", func(t *testing.T) {
		archive := "oci-archive:" + filepath.Join(first, "dray_"+releaseVersion+"_image.tar")
		if out := run(t, environment(), need(t, "skopeo"), "inspect", "--raw", archive); !strings.Contains(out, `"architecture":"amd64"`) || !strings.Contains(out, `"architecture":"arm64"`) {
			t.Errorf("the index is %s", out)
		}
		run(t, environment(), need(t, "skopeo"), "copy", "--all", archive, "dir:"+filepath.Join(base, "copied")) // reads and verifies every blob
	})
}

// sameFilesIn compares two directories, but for what depends on the key.
func sameFilesIn(t *testing.T, a, b string) {
	t.Helper()
	entries, err := os.ReadDir(a)
	if err != nil || len(entries) < 15 {
		t.Fatalf("%d files, %v", len(entries), err)
	}
	for _, e := range entries {
		if e.Name() == "SHA256SUMS.sig" || e.Name() == "dray.pub" {
			continue
		}
		one := read(t, filepath.Join(a, e.Name()))
		if two, err := os.ReadFile(filepath.Join(b, e.Name())); err != nil || !bytes.Equal(one, two) {
			t.Errorf("%s differs, %v", e.Name(), err)
		}
	}
}

// checkRelease verifies a release as docs/install.md says.
func checkRelease(t *testing.T, dir string) {
	page := read(t, "../../docs/install.md")
	_, section, _ := strings.Cut(string(page), "\n## Check what you downloaded\n")
	_, steps, found := strings.Cut(section, "\n```console\n")
	steps, _, end := strings.Cut(steps, "\n```")
	if !found || !end {
		t.Fatal("docs/install.md does not say how to check a release")
	}
	for line := range strings.Lines(steps) {
		if command, ok := strings.CutPrefix(strings.TrimSpace(line), "$ "); ok {
			run(t, environment(), "/bin/sh", "-c", "cd "+dir+" && "+command)
		}
	}
	if err := os.Remove(filepath.Join(dir, "SHA256SUMS.bin")); err != nil {
		t.Fatal(err)
	}
	text := read(t, filepath.Join(dir, "dray_"+releaseVersion+".cdx.json"))
	var bill struct {
		BOMFormat    string
		SerialNumber string
		Metadata     struct {
			Timestamp string
			Component struct{ Name, Version string }
		}
		Components []struct{ Name, Version, PURL string }
	}
	if err := json.Unmarshal(text, &bill); err != nil || bill.BOMFormat != "CycloneDX" || bill.SerialNumber+bill.Metadata.Timestamp != "" ||
		bill.Metadata.Component.Version != releaseVersion || len(bill.Components) < 40 {
		t.Errorf("the bill of materials is %+v, %v", bill, err)
	}
	notes, err := os.ReadFile(filepath.Join(dir, "INSTALL.md"))
	if err != nil || !strings.Contains(string(notes), publishedAt+"/dray:"+releaseVersion) || strings.Contains(string(notes), "get.dray") || strings.Contains(string(notes), "VERSION") {
		t.Errorf("the notes do not name the address or the version: %v\n%s", err, notes)
	}
}

// checkReleasedImage loads the image into Docker and runs it as docs/install.md says.
func checkReleasedImage(t *testing.T, archive string) {
	const ip = "192.0.2.1"
	cert, _ := makeCertificate(t, shortDir(t), drayName)
	m := machineAt(t, ip, cert)
	tool := staticBusybox(t)
	m.inside = newNetwork(t, tool, ip).inside
	d := startDocker(t, m, "--bip=198.51.100.1/24")
	d.run(t, "load", "--input", archive)
	image := publishedAt + "/dray:" + releaseVersion
	common := []string{"run", "-d", "--health-interval=1s", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"}
	d.run(t, append(common, "--name", "dray", "-e", "DRAY_ADDRESS=:5000", "-p", "127.0.0.1:5000:5000", "-v", "dray-cache:/cache", image)...)
	d.process.await("health of the container", func(context.Context) error {
		if out := d.run(t, "inspect", "--format", "{{.State.Health.Status}} {{.Config.User}} {{index .Config.Labels \"org.opencontainers.image.version\"}}", "dray"); out != "healthy 65532:65532 "+releaseVersion {
			return errors.New(out)
		}
		return nil
	})
	if out := m.run(t, tool, "wget", "-q", "-O", "-", "http://127.0.0.1:5000/v2/"); !strings.Contains(out, "{}") {
		t.Errorf("through the published port: %q", out)
	}
	d.run(t, "stop", "--time", "20", "dray")
	if out := d.run(t, "inspect", "--format", "{{.State.ExitCode}}", "dray"); out != "0" {
		t.Errorf("the container ended with %s", out)
	}
	d.run(t, append(common, "--name", "alone", image)...)
	d.process.await("notice of the container", func(context.Context) error {
		if out := d.run(t, "logs", "alone"); !strings.Contains(out, "ports that are published with -p do not lead there") {
			return errors.New(out)
		}
		return nil
	})
	d.run(t, "rm", "--force", "alone", "dray")
}
