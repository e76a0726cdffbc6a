package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dray/mirror/admin/api"
	"dray/upstream/ecrtest"
)

// TestBackup saves what a running dray has and restores it into empty directories: nothing is lost
// that exists nowhere else, and another dray forwards the pushes.
func TestBackup(t *testing.T) {
	f, dir := newFormer(t), t.TempDir()
	unpack(t, dir)
	ecr, hub := f.registries(t)
	ecr.AddFault(ecrtest.Fault{Close: true, Count: 1 << 30})
	s := startBefore(t, ecr, hub, dir, formerEdits...)
	file := filepath.Join(t.TempDir(), "backup.tar")
	if code, _, stderr := runDray(t, nil, "backup", file, "--config", s.file(dir, formerEdits...)); code != 0 {
		t.Fatal(stderr)
	}
	s.stop()

	fresh, state := t.TempDir(), filepath.Join(t.TempDir(), "state")
	edits := append(slices.Clone(formerEdits), "listeners: [{", "state: {directory: '"+state+"'}\nlisteners: [{")
	config := s.file(fresh, edits...)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func([]byte) []byte{
		"cut":     func(b []byte) []byte { return b[:len(b)/2] },
		"changed": func(b []byte) []byte { return bytes.Replace(b, layerOf(3, 5000)[100:140], make([]byte, 40), 1) },
		"other":   func([]byte) []byte { return []byte("none") },
	} {
		bad := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(bad, damage(bytes.Clone(whole)), 0o600); err != nil {
			t.Fatal(err)
		}
		if code, _, stderr := runDray(t, nil, "restore", bad, "--config", config); code != exitFailed {
			t.Errorf("%s: code %d\n%s", name, code, stderr)
		}
	}
	if code, _, stderr := runDray(t, nil, "restore", file, "--config", config); code != 0 {
		t.Fatal(stderr)
	}
	if code, _, stderr := runDray(t, nil, "restore", file, "--config", config); code != exitFailed || !strings.Contains(stderr, "would mix them with others") {
		t.Errorf("once more: code %d\n%s", code, stderr)
	}
	s = startBefore(t, ecr, hub, fresh, edits...)
	if got := s.pending(); !slices.Equal(got, f.everythingWaits()) {
		t.Errorf("the queue has %q", got)
	}
	if pins := operated[api.Items[api.Pin]](s, "pin").Items; len(pins) != 2 {
		t.Errorf("the pins are %+v", pins)
	}
	s.served("own/team/app", "v1", f.hosted, layerOf(3, 5000))
	ecr.ClearFaults()
	s.flush()
	f.image(s, "team/a", "v1", f.second)
	if code, _, stderr := runDray(t, nil, "restore", file, "--config", config); code != exitFailed {
		t.Errorf("into the directories of a running dray: code %d\n%s", code, stderr)
	}
	s.stop()
}
