//go:build !linux

package doctor

import "errors"

// space is the room in a file system.
type space struct {
	free             int64
	files, freeFiles uint64
	kind             string // empty for what counts as a local disk
}

func spaceOf(string) (space, error) { return space{}, errors.ErrUnsupported }
