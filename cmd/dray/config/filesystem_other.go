//go:build !unix

package config

import "errors"

// fileSystemSize always returns an error: the mirror does not run on these systems.
func fileSystemSize(string) (Bytes, error) { return 0, errors.ErrUnsupported }
