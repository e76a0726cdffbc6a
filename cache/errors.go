package cache

import (
	"errors"
	"io"

	"dray/cache/disk"
)

// Errors of this package beside those of an origin; test for them with errors.Is.
var (
	// ErrNotFound says that neither memory nor disk holds the blob.
	ErrNotFound = disk.ErrNotFound
	// ErrFull says that the disk has no room now.
	ErrFull = disk.ErrFull
	// ErrTooLarge says that the blob could never be held, or is longer than the caller allows.
	ErrTooLarge = disk.ErrTooLarge
	// ErrCorrupt says that the bytes given do not have the digest they should have.
	ErrCorrupt = disk.ErrCorrupt
	// ErrSize says that there were more or fewer bytes than announced.
	ErrSize = disk.ErrSize
	// ErrDigest says that a digest is malformed or of an algorithm that is not supported.
	ErrDigest = disk.ErrDigest
	// ErrInUse says that a blob is open or pinned, and was left alone for that.
	ErrInUse = disk.ErrInUse
	// ErrStalled says that an origin gave nothing for Options.StallTimeout.
	ErrStalled = errors.New("origin makes no progress")
	// ErrAborted is what followers of an upload get that was given up without a reason.
	ErrAborted = errors.New("upload aborted")
	// ErrClosed says that the reader, upload or cache is closed.
	ErrClosed = errors.New("closed")
)

// localError is a failure of the cache itself, never of an origin.
type localError struct {
	reason string // a metric label
	err    error
}

func (e *localError) Error() string { return "cache " + e.reason + ": " + e.err.Error() }
func (e *localError) Unwrap() error { return e.err }

// reasonRead is the reason of a localError that a reader met by itself.
const reasonRead = "read"

// local makes an error of the disk a localError; reason is what was being done.
func local(reason string, err error) *localError {
	switch {
	case errors.Is(err, ErrFull):
		reason = "full"
	case errors.Is(err, ErrTooLarge):
		reason = "too large"
	}
	return &localError{reason, err}
}

// noEOF makes the end of a file that should be longer an error.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
