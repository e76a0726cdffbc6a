//go:build !unix

package config

import "errors"

// fileSystemSize always returns an error: no mirror runs on these systems.
func fileSystemSize(string) (Bytes, error) { return 0, errors.ErrUnsupported }
