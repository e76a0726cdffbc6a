package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

var update = flag.Bool("update", false, "write what clients were found to do into docs/clients.md")

// built holds the binaries under test. It is written by TestMain alone, before any test runs.
var built struct{ dray, fakeecr string }

// building is held while a further dray is built beside those.
var building sync.Mutex

// drayAhead returns a dray whose protocol in a fleet is n numbers ahead. It is built once for all
// tests.
func drayAhead(t testing.TB, n int) string {
	t.Helper()
	building.Lock()
	defer building.Unlock()
	program := fmt.Sprintf("%s-ahead-%d", built.dray, n)
	if _, err := os.Stat(program); err == nil {
		return program
	}
	args := []string{"build", "-o", program, "-ldflags", ahead(n)}
	if raceEnabled {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, "dray/cmd/dray")...).CombinedOutput(); err != nil {
		t.Fatalf("build a dray of another version: %v\n%s", err, out)
	}
	return program
}

// ahead is the flag of the linker that moves the number of the protocol.
func ahead(n int) string { return fmt.Sprint("-X dray/cache/fleet.ahead=", n) }

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "dray-e2e-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	built.dray, built.fakeecr = filepath.Join(dir, "dray"), filepath.Join(dir, "fakeecr")
	args := []string{"build", "-o", dir}
	if raceEnabled {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "dray/cmd/dray", "dray/cmd/fakeecr")...)
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the binaries under test: %v\n%s", err, out)
		return 1
	}
	code := m.Run()
	if err := matrix.write(os.Getenv("DRAY_E2E_RESULTS")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	all := flag.Lookup("test.run").Value.String() == "" && flag.Lookup("test.skip").Value.String() == ""
	if err := matrix.checkTable("../../docs/clients.md", *update, all); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return max(code, 1)
	}
	return code
}
