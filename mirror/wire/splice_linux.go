package wire

import (
	"cmp"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// pipeBytes is the size of a pipe's buffer, so one splice moves at most that many bytes. maxPipes
// bounds the pipes of a server. Linux gives a user without privileges 64 pipes of that size in all
// (pipe-user-pages-soft, pipe(7)), and other programs may need some of them.
const (
	pipeBytes = 1 << 20
	maxPipes  = 32
)

// PipeFiles bounds the file descriptors of the pipes of one [Server], including idle pipes, which
// stay open.
const PipeFiles = 2 * maxPipes

// pipes are a pool of pipes. splice(2) moves bytes without copying them through this process, but
// only from or to a pipe. So the bytes of a file pass through a pipe on their way to a connection.
type pipes struct {
	make func() (*pipe, error)

	mu     sync.Mutex // guards the fields below
	idle   []*pipe
	open   int // pipes that are idle or in use
	closed bool
	total  int64 // bytes that were sent through pipes
}

// pipe has two ends, and may have buffered bytes. It is empty while it is idle.
type pipe struct {
	read, write int
	buffered    int64
	call        spliceCall
}

// spliceCall has the arguments and results of a system call. A syscall.RawConn lends its file
// descriptor to a function, which makes the call. A new function for each call would have to be
// allocated, with the variables that it shares with its caller. So each pipe and each connection
// creates its functions once, and these share fields with their callers.
type spliceCall struct {
	n, moved int64
	more     int
	err      error
	from     func(fd uintptr)
	to       func(fd uintptr) bool
}

func newPipes() *pipes { return &pipes{make: makePipe} }

func makePipe() (*pipe, error) {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, os.NewSyscallError("pipe2", err)
	}
	p := &pipe{read: ends[0], write: ends[1]}
	p.call.from, p.call.to = p.fillFrom, p.drainTo
	if _, err := unix.FcntlInt(uintptr(p.write), unix.F_SETPIPE_SZ, pipeBytes); err != nil {
		p.close()
		return nil, os.NewSyscallError("fcntl", err)
	}
	return p, nil
}

func (p *pipe) close() {
	_ = unix.Close(p.read) // its bytes are not needed any more
	_ = unix.Close(p.write)
}

// get returns a pipe. It returns nil if maxPipes pipes are in use, no pipe can be made, or the pool
// is closed.
func (s *pipes) get() *pipe {
	s.mu.Lock()
	if n := len(s.idle); n > 0 {
		p := s.idle[n-1]
		s.idle = s.idle[:n-1]
		s.mu.Unlock()
		return p
	}
	if s.closed || s.open >= maxPipes {
		s.mu.Unlock()
		return nil
	}
	s.open++
	s.mu.Unlock()
	p, err := s.make()
	if err != nil {
		s.mu.Lock()
		s.open--
		s.mu.Unlock()
		return nil
	}
	return p
}

// put returns a pipe to the pool and counts the bytes sent through it. It closes a pipe that is not
// empty, because its bytes would be sent before the bytes of the next file.
func (s *pipes) put(p *pipe, sent int64) {
	s.mu.Lock()
	s.total += sent
	keep := p.buffered == 0 && !s.closed
	if keep {
		s.idle = append(s.idle, p)
	} else {
		s.open--
	}
	s.mu.Unlock()
	if !keep {
		p.close()
	}
}

// close closes the idle pipes. After that, put closes each pipe that comes back from use.
func (s *pipes) close() {
	s.mu.Lock()
	idle := s.idle
	s.idle, s.closed = nil, true
	s.open -= len(idle)
	s.mu.Unlock()
	for _, p := range idle {
		p.close()
	}
}

// through returns a listener whose connections send files by splice.
func (s *pipes) through(ln net.Listener) net.Listener { return splicingListener{ln, s} }

type splicingListener struct {
	net.Listener
	pipes *pipes
}

// Accept implements net.Listener.
func (l splicingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	tcp, ok := c.(tcpConn)
	if !ok {
		return c, nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return c, nil // the server finds the error, too
	}
	spliced := &splicingConn{tcpConn: tcp, raw: raw, pipes: l.pipes}
	spliced.send = spliced.sendHeld
	return spliced, nil
}

// tcpConn has the methods of a net.TCPConn that splicing needs, and the methods that net/http uses.
type tcpConn interface {
	net.Conn
	syscall.Conn
	io.ReaderFrom
	CloseWrite() error
	SetNoDelay(bool) error
}

// splicingConn is a connection that sends files by splice. Only one goroutine at a time may write
// to it.
type splicingConn struct {
	tcpConn
	raw     syscall.RawConn
	pipes   *pipes
	holding bool
	pending bool // the kernel waits for more bytes before it sends the bytes of the last write

	held    []byte // the bytes of a Write that sendHeld has yet to send
	heldErr error
	send    func(fd uintptr) bool // sendHeld; see spliceCall
}

var _ gatherer = (*splicingConn)(nil)

// NetConn returns the connection below.
func (c *splicingConn) NetConn() net.Conn { return c.tcpConn }

// Hold implements gatherer. net/http writes the header and the first bytes of a file before the
// rest is spliced. If these bytes are held back, the kernel sends them together with the rest. In a
// packet of their own, they would make the client wake up for a few bytes.
func (c *splicingConn) Hold() { c.holding = true }

// Release implements gatherer.
func (c *splicingConn) Release() error {
	c.holding = false
	if !c.pending {
		return nil
	}
	c.pending = false
	return c.SetNoDelay(true) // sends the waiting bytes (tcp(7), TCP_NODELAY)
}

// Write implements net.Conn.
func (c *splicingConn) Write(p []byte) (n int, err error) {
	if !c.holding {
		return c.tcpConn.Write(p)
	}
	c.held, c.heldErr = p, nil
	for len(c.held) > 0 && c.heldErr == nil {
		if err := c.raw.Write(c.send); err != nil {
			c.heldErr = err // the deadline has passed, or the connection is closed
		}
	}
	n, err = len(p)-len(c.held), c.heldErr
	c.held = nil
	return n, err
}

// sendHeld sends some of the held bytes. It returns false if it has to wait until the connection
// takes bytes again.
func (c *splicingConn) sendHeld(fd uintptr) bool {
	n, err := unix.SendmsgN(int(fd), c.held, nil, nil, unix.MSG_MORE|unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	switch {
	case err == nil:
		c.held, c.pending = c.held[n:], true
	case errors.Is(err, unix.EAGAIN):
		return false
	case !errors.Is(err, unix.EINTR):
		c.heldErr = os.NewSyscallError("sendmsg", err)
	}
	return true
}

// errNotSpliced says that no bytes were sent because the file system or the kernel does not support
// splice.
var errNotSpliced = errors.New("splice is not possible")

// ReadFrom implements io.ReaderFrom. It splices if r is a limited part of a file. It passes any
// other reader to net.TCPConn, and also a file if no pipe is free or splice is not possible.
func (c *splicingConn) ReadFrom(r io.Reader) (int64, error) {
	n, err := c.readFrom(r)
	if n > 0 {
		c.pending = false // the waiting bytes were sent together with these n bytes
	}
	return n, err
}

func (c *splicingConn) readFrom(r io.Reader) (int64, error) {
	l, ok := r.(*io.LimitedReader)
	if !ok || l.N <= 0 {
		return c.tcpConn.ReadFrom(r)
	}
	f, ok := l.R.(*os.File)
	if !ok {
		return c.tcpConn.ReadFrom(r)
	}
	p := c.pipes.get()
	if p == nil {
		return c.tcpConn.ReadFrom(r)
	}
	n, err := p.move(c.raw, f, l.N)
	c.pipes.put(p, n)
	l.N -= n
	if errors.Is(err, errNotSpliced) {
		return c.tcpConn.ReadFrom(r)
	}
	return n, err
}

// move sends the next n bytes of a file, or fewer if the file ends before, and returns the number
// of bytes sent. Bytes that are still in the pipe after an error are lost.
func (p *pipe) move(out syscall.RawConn, f *os.File, n int64) (sent int64, err error) {
	in, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	for sent < n && err == nil {
		if err = p.fill(in, n-sent); p.buffered == 0 {
			break // the end of the file, or an error
		}
		more := 0
		if sent+p.buffered < n {
			more = unix.SPLICE_F_MORE
		}
		for p.buffered > 0 && err == nil {
			var moved int64
			moved, err = p.drain(out, more)
			sent += moved
		}
	}
	if err != nil && sent == 0 && p.buffered == 0 && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS)) {
		err = errNotSpliced
	}
	return sent, err
}

// fill moves up to n bytes of a file into the empty pipe. At the end of the file, the pipe stays
// empty.
func (p *pipe) fill(in syscall.RawConn, n int64) error {
	p.call.n, p.call.err = min(n, pipeBytes), nil
	failed := in.Control(p.call.from)
	return cmp.Or(failed, p.call.err)
}

func (p *pipe) fillFrom(fd uintptr) {
	p.buffered, p.call.err = splice(int(fd), p.write, p.call.n, 0)
}

// drain moves buffered bytes to a connection. It waits until the connection takes some of them or
// its deadline passes, and returns how many it moved.
func (p *pipe) drain(out syscall.RawConn, more int) (int64, error) {
	p.call.more = more
	if failed := out.Write(p.call.to); failed != nil {
		return 0, failed
	}
	moved, err := p.call.moved, p.call.err
	if moved == 0 && err == nil {
		err = io.ErrUnexpectedEOF
	}
	p.buffered -= moved
	return moved, err
}

// drainTo returns false if drain has to wait.
func (p *pipe) drainTo(fd uintptr) bool {
	p.call.moved, p.call.err = spliceAtOnce(p.read, int(fd), p.buffered, p.call.more)
	return !errors.Is(p.call.err, unix.EAGAIN)
}

// splice moves bytes by splice(2). It may wait for the disk.
func splice(from, to int, n int64, flags int) (int64, error) {
	for {
		moved, err := unix.Splice(from, nil, to, nil, int(n), unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK|flags)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return max(moved, 0), os.NewSyscallError("splice", err)
	}
}

// spliceAtOnce moves bytes from a pipe to a connection. It never blocks, so it can bypass Go's
// scheduler. During a system call of more than about 20 µs, the scheduler would give the processor
// to another goroutine, and take it back afterwards. That would cost a tenth of the processor time.
func spliceAtOnce(from, to int, n int64, flags int) (int64, error) {
	for {
		moved, _, errno := unix.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(n), uintptr(unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK|flags))
		switch errno {
		case 0:
			return int64(moved), nil
		case unix.EINTR:
		default:
			return 0, os.NewSyscallError("splice", errno)
		}
	}
}
