package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "write what clients were found to do into docs/clients.md")

// built holds the binaries under test. It is written by TestMain alone, before any test runs.
var built struct{ dray, fakeecr string }

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
