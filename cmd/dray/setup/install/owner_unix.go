//go:build unix

package install

import (
	"io/fs"
	"os"
	"syscall"
)

// giveTo gives a file to the owner of the file that it replaces.
func giveTo(f *os.File, replaced fs.FileInfo) error {
	if replaced == nil {
		return nil
	}
	stat, ok := replaced.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	return f.Chown(int(stat.Uid), int(stat.Gid))
}
