package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// need returns the path of a program, or skips. Daemons may be outside a user's PATH. The cache
// directory has programs taken out of Debian's packages, and clients built from the Go module
// proxy. The names of the latter contain the version.
func need(t testing.TB, command string) string {
	t.Helper()
	if path, err := exec.LookPath(command); err == nil {
		return path
	}
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin", filepath.Join(cacheDir(t), "bin")} {
		if path, err := exec.LookPath(filepath.Join(dir, command)); err == nil {
			return path
		}
	}
	return needBuilt(t, command)
}

// needBuilt is need for what is built from the Go module proxy, and may be on this machine in
// several versions.
func needBuilt(t testing.TB, command string) string {
	t.Helper()
	path := named(t, filepath.Join("bin", command+"-"), "")
	if path == "" {
		lacking(t, command+" is not installed in the version of .ci/env; make install-test-tools does that")
	}
	return path
}

// needLarge is needBuilt for a client that takes many minutes to build, and is built by make
// test-clients only.
func needLarge(t testing.TB, command string) string {
	t.Helper()
	if named(t, filepath.Join("bin", command+"-"), "") == "" && os.Getenv("DRAY_REQUIRE_CLIENTS") != "all" {
		t.Skip(command + " is not built in the version of .ci/env; make test-clients does that")
	}
	return needBuilt(t, command)
}

// toolVersion finds the versions in .ci/env.
var toolVersion = regexp.MustCompile(`(?m)^(?:export )?[A-Z_]+_VERSION=(\S+)`)

// named returns the path of a file in the cache directory whose name has a version of .ci/env
// between before and after, or "".
func named(t testing.TB, before, after string) string {
	t.Helper()
	for _, m := range toolVersion.FindAllSubmatch(read(t, filepath.Join("..", "..", ".ci", "env")), -1) {
		path := filepath.Join(cacheDir(t), before+string(m[1])+after)
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}

// TestVersionOfTools: of several versions on a machine, the tests use that of .ci/env.
func TestVersionOfTools(t *testing.T) {
	t.Setenv("DRAY_TEST_CACHE", t.TempDir())
	_, rest, _ := strings.Cut(string(read(t, "../../.ci/env")), "\nAXE_VERSION=")
	wanted := filepath.Join(cacheDir(t), "axe-core-"+strings.Fields(rest)[0], "axe.min.js")
	for _, path := range []string{wanted, filepath.Join(cacheDir(t), "axe-core-0.9.0", "axe.min.js"), filepath.Join(cacheDir(t), "axe-core-99.0.0", "axe.min.js")} {
		if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, path, nil)
	}
	if got := needAxe(t); got != wanted {
		t.Errorf("%s, want %s", got, wanted)
	}
}

// needRoot skips where daemons cannot be started, nor mount namespaces be made.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		lacking(t, "must run as root, to start a daemon in a mount namespace of its own")
	}
	if out, err := exec.Command(need(t, "unshare"), "--mount", "true").CombinedOutput(); err != nil {
		lacking(t, "may not make a mount namespace: "+string(out))
	}
}

// lacking ends the test: as skipped, or as failed where everything was to be there.
func lacking(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("DRAY_REQUIRE_CLIENTS") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// cacheDir holds what outlives a test run: tools and root file systems.
func cacheDir(t testing.TB) string {
	t.Helper()
	if dir := os.Getenv("DRAY_TEST_CACHE"); dir != "" {
		return dir
	}
	base, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(base, "dray-test")
}
