package wire

import (
	"os"
	"testing"
)

func TestTrySplice(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("dray"); err != nil {
		t.Fatal(err)
	}
	if err := TrySplice(f); err != nil {
		t.Errorf("a file of the directory for temporary files: %v", err)
	}
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := TrySplice(dir); err == nil {
		t.Error("a directory can be spliced")
	}
}
