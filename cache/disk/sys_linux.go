package disk

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// allocate gives a file the blocks for n bytes without changing its length. It returns false and no
// error if the file system cannot do that.
func allocate(f *os.File, n int64) (done bool, err error) {
	err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, n)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, unix.EIO), errors.Is(err, unix.EROFS):
		return false, os.NewSyscallError("fallocate", err)
	default:
		return false, nil
	}
}

// openAgain opens an open file once more. It does so by the descriptor (proc_pid_fd(5)), because
// the name may change meanwhile.
func openAgain(f *os.File) (again *os.File, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	failed := raw.Control(func(fd uintptr) {
		again, err = os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
	})
	return again, errors.Join(failed, err)
}

// datasync makes durable the bytes of a file and the metadata that is needed to read them.
func datasync(f *os.File) error {
	return os.NewSyscallError("fdatasync", unix.Fdatasync(int(f.Fd())))
}

// dontCache is RWF_DONTCACHE of Linux 6.14 and later (preadv2(2)): the kernel drops the pages that
// this call brought into the page cache. Pages that were there before stay.
const dontCache = 0x80

// readUncached reads like f.ReadAt, but does not fill the page cache if the system can avoid that.
// Unlike f.ReadAt, it may read fewer bytes than len(p) without an error.
func readUncached(f *os.File, p []byte, off int64) (int, error) {
	n, err := unix.Preadv2(int(f.Fd()), [][]byte{p}, off, dontCache)
	switch {
	case err != nil:
		return f.ReadAt(p, off) // dontCache is not supported, or ReadAt returns the same error
	case n == 0:
		return 0, io.EOF
	default:
		return n, nil
	}
}

// systemDamage are the errors of a damaged file system (EUCLEAN, of ext4 and xfs), and of a disk
// that fails or has bad sectors (EREMOTEIO and ENODATA).
var systemDamage = []error{unix.EUCLEAN, unix.EREMOTEIO, unix.ENODATA}
