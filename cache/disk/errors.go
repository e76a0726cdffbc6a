package disk

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// Errors of this package. Test for them with errors.Is.
var (
	// ErrNotFound says that the directory does not hold a sound copy of the blob.
	ErrNotFound = errors.New("blob not found")
	// ErrFull says that there is no room now. There may be room later.
	ErrFull = errors.New("no space left")
	// ErrTooLarge says that the blob would not fit even if everything else were evicted.
	ErrTooLarge = errors.New("larger than the cache")
	// ErrCorrupt says that the bytes do not have the expected digest.
	ErrCorrupt = errors.New("digest mismatch")
	// ErrSize says that there were more or fewer bytes than announced.
	ErrSize = errors.New("length mismatch")
	// ErrInUse says that [Dir.Purge] did not remove the blob, because the blob is in use. The
	// [Unless] of the call says which uses count.
	ErrInUse = errors.New("blob is in use")
	// ErrLocked says that another process, or another Dir of this process, uses the directory.
	ErrLocked = errors.New("directory is in use by another process")
	// ErrDigest says that a digest is malformed or of an algorithm other than sha256 and sha512.
	ErrDigest = errors.New("unsupported digest")
)

// RoomError is an ErrFull. It says why a blob would not fit even after the eviction of all blobs
// that may be evicted. The numbers are in bytes.
type RoomError struct {
	// Quota is Options.MaxBytes if blobs that must stay use it up. Otherwise it is 0, and the disk is
	// full.
	Quota int64
	// Free is the free space of the file system, and MinFree is Options.MinFreeBytes.
	Free, MinFree int64
}

func (e *RoomError) Error() string {
	if e.Quota > 0 {
		return fmt.Sprintf("the cache is full: cache.max_bytes is %d, and what it holds must stay", e.Quota)
	}
	return fmt.Sprintf("the disk of the cache has %d bytes free, cache.min_free_bytes keeps %d free, and nothing else can be evicted", e.Free, e.MinFree)
}

func (e *RoomError) Unwrap() error { return ErrFull }

// isFull reports whether an error means that the file system, or a quota of the file system, is
// full.
func isFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// asFull wraps ENOSPC and EDQUOT of the file system in ErrFull.
func asFull(err error) error {
	if isFull(err) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}

// Damaged reports whether an error of reading a blob means that its file is damaged. Other errors
// mean that the process or the machine lacks something, such as descriptors.
func Damaged(err error) bool {
	// Such an error means that the file is shorter than it was, that its device or its checksums
	// fail, or that a file server no longer has the file.
	for _, damage := range append([]error{io.ErrUnexpectedEOF, unix.EIO, unix.EBADMSG, unix.ESTALE, unix.ENXIO}, systemDamage...) {
		if errors.Is(err, damage) {
			return true
		}
	}
	return false
}
