package directories

import (
	"io/fs"
	"os"
	"strings"
	"testing"
)

// TestPrepareAdvice: the advice is about the directory that has the path, or that was to be made
// below it.
func TestPrepareAdvice(t *testing.T) {
	for _, tc := range []struct {
		cache, state, path string
		want               bool // advice about the state
	}{
		{"/v/cache", "/v/state", "/v/state/queue", true},
		{"/v/cache", "/v/state", "/v/state", true},
		{"/v/cache", "/v/state", "/v/cache/content", false},
		{"/v/dray-cache", "/v/dray", "/v/dray-cache/content", false},
		{"/v/dray", "/v/dray-state", "/v/dray-state/queue", true},
		{"/v/dray/cache", "/v/dray", "/v/dray/cache/content", false},
		{"/v/dray/cache", "/v/dray", "/v/dray/cache", false},
		{"/v/dray/cache", "/v/dray", "/v/dray/queue", true},
		{"/v/dray", "/v/dray/state", "/v/dray/state", true},
		{"/v/dray", "/v/dray/state", "/v/dray/state/queue", true},
		{"/v/dray", "/v/dray/state", "/v/dray/content/blobs", false},
		{"/v/cache", "/srv/dray/state", "/srv", true}, // mkdir fails for a parent
		{"/v/cache", "/srv/state", "/v", false},
		{"data", "/srv/state", "data/content", false},
		{"/v/dray", "/v/dray", "/v/dray/queue", false},
	} {
		got := Directories{Cache: tc.cache, State: tc.state}.PrepareAdvice(&fs.PathError{Op: "mkdir", Path: tc.path, Err: fs.ErrPermission})
		if strings.Contains(got, "state.directory") != tc.want || strings.Contains(got, "cache.directory") == tc.want {
			t.Errorf("%+v: %s", tc, got)
		}
	}
}

// A cache directory of another user is told with both users.
func TestCacheAdvice(t *testing.T) {
	dir := t.TempDir()
	if text := (Directories{Cache: dir}).CacheAdvice(fs.ErrPermission); text != directorySetting {
		t.Errorf("its own directory: %s", text)
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can give a directory away")
	}
	if err := os.Chown(dir, 4711, -1); err != nil {
		t.Fatal(err)
	}
	if text := (Directories{Cache: dir}).CacheAdvice(fs.ErrPermission); !strings.Contains(text, "dray runs as user 0, and "+dir+" belongs to user 4711; run dray as that user") {
		t.Error(text)
	}
	if text := (Directories{Cache: dir}).CacheAdvice(fs.ErrExist); text != directorySetting {
		t.Errorf("another error: %s", text)
	}
}
