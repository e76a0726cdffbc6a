//go:build !linux

package disk

import "os"

// allocate does nothing: there is no portable way to do it.
func allocate(*os.File, int64) (done bool, err error) { return false, nil }

// datasync makes a file durable.
func datasync(f *os.File) error { return f.Sync() }

// readAside reads like all others do.
func readAside(f *os.File, p []byte, off int64) (int, error) { return f.ReadAt(p, off) }
