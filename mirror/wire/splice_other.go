//go:build !linux

package wire

import (
	"errors"
	"net"
	"os"
)

// PipeFiles bounds the file descriptors of the pipes of one [Server].
const PipeFiles = 0

// pipes do nothing, because only Linux has splice(2).
type pipes struct{}

func newPipes() *pipes { return &pipes{} }

func (*pipes) through(ln net.Listener) net.Listener { return ln }

func (*pipes) close() {}

// TrySplice returns the reason why files cannot be sent by splice.
func TrySplice(*os.File) error { return errors.New("only Linux has splice") }
