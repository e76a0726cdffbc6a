//go:build !unix

package install

import (
	"io/fs"
	"os"
)

// giveTo does nothing, because package os shows no owner of files here.
func giveTo(*os.File, fs.FileInfo) error { return nil }
