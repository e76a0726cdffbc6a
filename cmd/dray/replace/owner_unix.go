//go:build unix

package replace

import (
	"io/fs"
	"os"
	"syscall"
)

// giveTo sets the user and the group of f to those of the file that f replaces.
func giveTo(f *os.File, oldInfo fs.FileInfo) error {
	stat, ok := oldInfo.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	return f.Chown(int(stat.Uid), int(stat.Gid))
}
