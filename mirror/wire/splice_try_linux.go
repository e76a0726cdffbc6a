package wire

import (
	"os"

	"golang.org/x/sys/unix"
)

// TrySplice moves a byte of a file into a pipe of the kind that a [Server] uses. It returns an
// error if that is not possible. The file must not be empty.
func TrySplice(f *os.File) error {
	p, err := makePipe()
	if err != nil {
		return err
	}
	defer p.close()
	offset := int64(0)
	_, err = unix.Splice(int(f.Fd()), &offset, p.write, nil, 1, unix.SPLICE_F_NONBLOCK)
	return os.NewSyscallError("splice", err)
}
