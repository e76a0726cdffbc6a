package cache

import (
	"context"
	"errors"
	"fmt"
	"io"

	"dray/cache/disk"
)

// Errors of this package. Test for them with errors.Is. Open also returns errors of origins.
var (
	// ErrNotFound says that neither memory nor disk holds the blob.
	ErrNotFound = disk.ErrNotFound
	// ErrFull says that the disk has no room now.
	ErrFull = disk.ErrFull
	// ErrTooLarge says that the blob is larger than the cache, or longer than the caller allows.
	ErrTooLarge = disk.ErrTooLarge
	// ErrCorrupt says that the bytes do not have the expected digest.
	ErrCorrupt = disk.ErrCorrupt
	// ErrSize says that there were more or fewer bytes than announced.
	ErrSize = disk.ErrSize
	// ErrDigest says that a digest is malformed or of an unsupported algorithm.
	ErrDigest = disk.ErrDigest
	// ErrInUse says that Purge left a blob alone because it is open or pinned, or a push needs it.
	ErrInUse = disk.ErrInUse
	// ErrStalled says that an origin sent no bytes for Options.StallTimeout.
	ErrStalled = errors.New("origin makes no progress")
	// ErrAborted is the error that readers of an unfinished upload get if Abort was called without an
	// error.
	ErrAborted = errors.New("upload aborted")
	// ErrClosed says that the reader, upload or cache is closed.
	ErrClosed = errors.New("closed")
)

// RoomError is an ErrFull that says why there is no room.
type RoomError = disk.RoomError

// localError is a failure of the cache itself, and not of an origin. The reason reasonAgain is an
// exception.
type localError struct {
	reason string // a metric label
	err    error
}

func (e *localError) Error() string { return "cache " + e.reason + ": " + e.err.Error() }
func (e *localError) Unwrap() error { return e.err }

// reasonRead is the reason of a localError for bytes that could not be read from the cache.
const reasonRead = "read"

// reasonAgain is the reason of a localError that makes readers fetch the blob again. It means that
// the fetch got wrong bytes from one of the places that its origin may ask, such as the bucket or a
// member. The next fetch asks other places; see [Observer]. The cache itself has not failed, so no
// failure is counted.
const reasonAgain = "again"

// [local] turns an error of the disk into a localError with the given reason, which names the step
// that failed. ErrFull and ErrTooLarge have their own reasons.
func local(reason string, err error) *localError {
	switch {
	case errors.Is(err, ErrFull):
		reason = "full"
	case errors.Is(err, ErrTooLarge):
		reason = "too large"
	}
	return &localError{reason, err}
}

// noEOF turns io.EOF into io.ErrUnexpectedEOF. It is for reads before the end of the content.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// [stalled] adds ErrStalled to an error that the stall timeout caused.
func stalled(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), ErrStalled) && !errors.Is(err, ErrStalled) {
		return fmt.Errorf("%w: %w", ErrStalled, err)
	}
	return err
}
