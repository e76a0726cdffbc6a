package replace

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestFile: a new file has the mode that was given, and one that replaces another has the mode and
// the owner of that one. Nothing else is left in the directory.
func TestFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := File(path, []byte("one"), nil, 0o640); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o640 {
		t.Fatalf("a new file: %v, %v", info, err)
	}
	owner := os.Geteuid()
	if owner == 0 { // who may give files away
		owner = 1234
	}
	if err := errors.Join(os.Chown(path, owner, -1), os.Chmod(path, 0o604)); err != nil {
		t.Fatal(err)
	}
	old, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := File(path, []byte("two"), old, 0o640); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o604 || int(info.Sys().(*syscall.Stat_t).Uid) != owner || os.SameFile(old, info) {
		t.Errorf("the file that replaces another: %v, %v", info, err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "two" {
		t.Errorf("%q, %v", text, err)
	}
	if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o755)); err != nil {
		t.Fatal(err)
	}
	if File(path, nil, nil, 0o640) == nil {
		t.Error("a directory was replaced")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("files are left: %v, %v", left, err)
	}
}
