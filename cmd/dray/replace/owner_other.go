//go:build !unix

package replace

import (
	"io/fs"
	"os"
)

// giveTo does nothing, because the system has no owners like those of Unix.
func giveTo(*os.File, fs.FileInfo) error { return nil }
