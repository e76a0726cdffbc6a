//go:build unix

package config

import "syscall"

// fileSystemSize returns the size of the file system that a directory is on.
func fileSystemSize(dir string) (Bytes, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return Bytes(s.Blocks) * Bytes(s.Bsize), nil
}
