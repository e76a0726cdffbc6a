// Package replace replaces files in one step, and keeps their mode and owner.
package replace

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// File replaces a file, or creates it, so that readers see either the old content or the new one.
// The new file has the mode and the owner in oldInfo. If oldInfo is nil, the new file has the given
// mode, and belongs to the user of this process. If path is a symbolic link, the link is replaced.
func File(path string, text []byte, oldInfo fs.FileInfo, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".dray-*") // with mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails after the file was renamed
	_, err = f.Write(text)
	if oldInfo != nil {
		mode = oldInfo.Mode().Perm()
		err = errors.Join(err, giveTo(f, oldInfo))
	}
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
