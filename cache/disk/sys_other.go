//go:build !linux

package disk

import (
	"errors"
	"os"
)

// allocate does nothing, because there is no portable way to allocate blocks.
func allocate(*os.File, int64) (done bool, err error) { return false, nil }

// openAgain returns errors.ErrUnsupported, because there is no portable way to open a file by its
// descriptor.
func openAgain(*os.File) (*os.File, error) { return nil, errors.ErrUnsupported }

// datasync makes a file durable.
func datasync(f *os.File) error { return f.Sync() }

func readUncached(f *os.File, p []byte, off int64) (int, error) { return f.ReadAt(p, off) }

// systemDamage is empty here: only the list for Linux names errors of the system that mean damage;
// see [Damaged].
var systemDamage []error
