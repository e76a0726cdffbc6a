package main

import (
	"os"
	"path/filepath"
	"testing"

	"dray/upstream/ecrtest"
)

// replace puts a file in the place of another, as Kubernetes does.
func replace(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// TestPasswordIsReadAgain has an operator put a refused password right, in the middle of the pause
// after its refusal.
func TestPasswordIsReadAgain(t *testing.T) {
	for _, basic := range []bool{true, false} {
		path := filepath.Join(t.TempDir(), "password")
		replace(t, path, "wrong\n")
		s := startDialect(t, ecrtest.Dialect{Basic: basic, Private: []string{"team/app"}}, &recording{}, asUserOf(path)...)
		seed(t, s.hub, "team/app", "v1", 100)
		s.want(503, "GET", "/hub/v2/team/app/manifests/v1", nil)
		s.want(503, "GET", "/hub/v2/team/app/manifests/v1", nil)
		replace(t, path, "") // is being written
		s.want(503, "GET", "/hub/v2/team/app/manifests/v1", nil)
		replace(t, path, "right\n")
		s.want(200, "GET", "/hub/v2/team/app/manifests/v1", nil)
	}
}
