package directories

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const directorySetting = "set another directory with cache.directory or DRAY_CACHE_DIRECTORY"

// CacheAdvice says what to do about an error of the cache directory. If dray lacks a permission
// because the directory belongs to another user, the advice names that user and the user of dray.
func (d Directories) CacheAdvice(err error) string {
	info, failed := os.Stat(d.Cache)
	if failed != nil || !errors.Is(err, fs.ErrPermission) {
		return directorySetting
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(owner.Uid) == os.Geteuid() {
		return directorySetting
	}
	return fmt.Sprintf("dray runs as user %d, and %s belongs to user %d; run dray as that user, or %s", os.Geteuid(), d.Cache, owner.Uid, directorySetting)
}

// PrepareAdvice says what to do if Prepare cannot create or write the directories. For any other
// error it returns "", because the text of that error has the advice.
func (d Directories) PrepareAdvice(err error) string {
	failed, ok := errors.AsType[*fs.PathError](err)
	switch {
	case !ok:
		return ""
	case distance(d.State, failed.Path) < distance(d.Cache, failed.Path):
		return "; set another directory with state.directory or DRAY_STATE_DIRECTORY"
	}
	return "; " + d.CacheAdvice(err)
}

// distance counts the steps from a directory to a path, up or down. An error is about the directory
// that is nearer to the path in the error. This also holds if one directory is in the other one, or
// if mkdir has failed for a parent of the directory.
func distance(dir, path string) int {
	rel, err := filepath.Rel(dir, path)
	switch {
	case err != nil: // only one of them is absolute
		return math.MaxInt
	case rel == ".":
		return 0
	}
	return 1 + strings.Count(rel, "/")
}
