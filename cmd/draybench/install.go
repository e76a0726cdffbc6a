package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
)

// distributionVersion is the release of distribution, the registry with which dray is compared.
const distributionVersion = "v3.1.2"

// tools has the paths of dray and of the other programs that a run needs. The path of a missing
// program is "". The field Missing has a sentence about each missing program.
type tools struct {
	Dray, Distribution, Nginx string
	FakeECR                   string // the stand-in for Amazon ECR, built from this tree
	Redis, Gateway            string // redis-server, and versitygw, which serves a bucket
	Missing                   []string
}

// toolDirectory returns the directory of test tools, which the project's scripts use, too.
func toolDirectory() (string, error) {
	if dir := os.Getenv("DRAY_TEST_CACHE"); dir != "" {
		return filepath.Join(dir, "bin"), nil
	}
	cache, err := os.UserCacheDir()
	return filepath.Join(cache, "dray-test", "bin"), err
}

// findTools builds dray and fakeecr from this tree into the directory dir, and finds the other
// programs. If distribution or nginx is missing and install is true, findTools installs it into the
// directory of test tools.
func findTools(ctx context.Context, dir string, install bool) (tools, error) {
	t := tools{Dray: filepath.Join(dir, "dray")}
	build := []string{"build", "-tags", "grpcnotrace", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", t.Dray, "dray/cmd/dray"}
	if err := runCommand(ctx, "", []string{"CGO_ENABLED=0"}, "go", build...); err != nil {
		return t, err
	}
	t.FakeECR = filepath.Join(dir, "fakeecr")
	if err := runCommand(ctx, "", []string{"CGO_ENABLED=0"}, "go", "build", "-trimpath", "-buildvcs=false", "-o", t.FakeECR, "dray/cmd/fakeecr"); err != nil {
		return t, err
	}
	bin, err := toolDirectory()
	if err != nil {
		return t, err
	}
	if install {
		if err := os.MkdirAll(bin, 0o755); err != nil {
			return t, err
		}
	}
	t.Distribution = filepath.Join(bin, "registry-"+distributionVersion)
	if !executable(t.Distribution) {
		if err := installDistribution(ctx, install, t.Distribution); err != nil {
			t.Missing = append(t.Missing, fmt.Sprintf("distribution %s is left out: %v", distributionVersion, err))
			t.Distribution = ""
		}
	}
	if t.Nginx, err = findNginx(ctx, install, filepath.Join(bin, "nginx")); err != nil {
		t.Missing = append(t.Missing, fmt.Sprintf("nginx is left out: %v", err))
	}
	t.fleet(bin)
	return t, nil
}

// fleet finds the programs for the scenario "fleet".
func (t *tools) fleet(bin string) {
	if path, err := exec.LookPath("redis-server"); err == nil {
		t.Redis = path
	}
	if found, _ := filepath.Glob(filepath.Join(bin, "versitygw-v*")); len(found) > 0 {
		t.Gateway = slices.Max(found)
	}
	if t.Redis == "" || t.Gateway == "" {
		t.Missing = append(t.Missing, "the fleet is left out, wholly or in part: it needs redis-server, and versitygw, which make install-test-tools builds")
	}
}

func installDistribution(ctx context.Context, install bool, path string) error {
	if !install {
		return fmt.Errorf("%s is not there; -install builds it", path)
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), "registry")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	source := "github.com/distribution/distribution/v3/cmd/registry@" + distributionVersion
	if err := runCommand(ctx, dir, []string{"GOBIN=" + dir, "GOFLAGS="}, "go", "install", source); err != nil {
		return err
	}
	return os.Rename(filepath.Join(dir, "registry"), path)
}

// findNginx finds the nginx of the machine. If there is none and install is true, it takes the
// program out of Debian's package. It does not install the package, so no service starts.
func findNginx(ctx context.Context, install bool, own string) (string, error) {
	for _, path := range []string{"nginx", "/usr/sbin/nginx", "/usr/local/sbin/nginx", own} {
		if found, err := exec.LookPath(path); err == nil {
			return found, nil
		}
	}
	if !install {
		return "", fmt.Errorf("it is not installed; -install takes it out of Debian's package")
	}
	dir, err := os.MkdirTemp(filepath.Dir(own), "nginx")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	if err := runCommand(ctx, dir, nil, "sh", "-c", "apt-get download nginx && dpkg -x nginx_*.deb x"); err != nil {
		return "", err
	}
	program := filepath.Join(dir, "x", "usr", "sbin", "nginx")
	if err := runCommand(ctx, dir, nil, program, "-v"); err != nil {
		return "", err // a library is missing
	}
	return own, os.Rename(program, own)
}

func executable(path string) bool {
	_, err := exec.LookPath(path)
	return err == nil
}

// runCommand runs a command and returns its output in the error if it fails.
func runCommand(ctx context.Context, dir string, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(out))
	}
	return nil
}

func cpus() int { return runtime.NumCPU() }
