package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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
// another version.
func needBuilt(t testing.TB, command string) string {
	t.Helper()
	versions, _ := filepath.Glob(filepath.Join(cacheDir(t), "bin", command+"-v*"))
	if len(versions) > 0 {
		return slices.Max(versions)
	}
	lacking(t, command+" is not installed; make install-test-tools does that")
	return ""
}

// needLarge is needBuilt for a client that takes many minutes to build, and is built by make
// test-clients only.
func needLarge(t testing.TB, command string) string {
	t.Helper()
	versions, _ := filepath.Glob(filepath.Join(cacheDir(t), "bin", command+"-v*"))
	if len(versions) == 0 && os.Getenv("DRAY_REQUIRE_CLIENTS") != "all" {
		t.Skip(command + " is not built; make test-clients does that")
	}
	return needBuilt(t, command)
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
