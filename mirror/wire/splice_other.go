//go:build !linux

package wire

import (
	"errors"
	"net"
	"os"
)

// PipeFiles is the most files that the pipes of one [Server] take.
const PipeFiles = 0

// pipes do nothing, because only Linux has splice(2).
type pipes struct{}

func newPipes() *pipes { return &pipes{} }

func (*pipes) through(ln net.Listener) net.Listener { return ln }

func (*pipes) close() {}

// TrySplice returns why files cannot be sent by splice.
func TrySplice(*os.File) error { return errors.New("only Linux has splice") }
