package backup

import (
	"bytes"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"

	"dray/cache/disk"
	"dray/cmd/dray/directories"
)

// pin pins images, each as the blob of its digest.
func pin(t *testing.T, d directories.Directories, digests map[string]string) {
	t.Helper()
	if err := d.Prepare(slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	dir := open(t, d)
	defer dir.Close()
	for name, text := range digests {
		if err := dir.SetPin(t.Context(), name, []digest.Digest{digest.FromString(text)}); err != nil {
			t.Fatal(err)
		}
	}
}

func open(t *testing.T, d directories.Directories) *disk.Dir {
	t.Helper()
	dir, err := disk.Open(disk.Options{Path: d.Content(), Pins: d.Pins(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestRestoreKeepsPins: a restore adds the pins of the backup to those that exist.
func TestRestoreKeepsPins(t *testing.T) {
	for _, state := range []string{"cache", "state"} {
		root := t.TempDir()
		at := func(name string) directories.Directories {
			return directories.Directories{Cache: filepath.Join(root, name, "cache"), State: filepath.Join(root, name, state)}
		}
		pin(t, at("old"), map[string]string{"saved": "s", "both": "of the backup"})
		pin(t, at("new"), map[string]string{"mine": "m", "both": "of the machine"})
		var file bytes.Buffer
		if _, err := Write(at("old"), &file); err != nil {
			t.Fatal(err)
		}
		if sum, err := Restore(t.Context(), at("new"), &file, slog.New(slog.DiscardHandler)); err != nil || sum.Files != 2 {
			t.Fatalf("%+v, %v", sum, err)
		}
		dir := open(t, at("new"))
		var names []string
		for _, p := range dir.Pins() {
			names = append(names, p.Name)
			if p.Name == "both" && !slices.Equal(p.Blobs, []digest.Digest{digest.FromString("of the backup")}) {
				t.Errorf("the pin has %v", p.Blobs)
			}
		}
		if err := dir.Close(); err != nil {
			t.Error(err)
		}
		if want := []string{"both", "mine", "saved"}; !slices.Equal(names, want) {
			t.Errorf("with the state in %s: pins %q, want %q", state, names, want)
		}
	}
}
