package wire

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// The bounds of pipes: one holds what is sent of a file at once. Users without
// privileges get 64 pipes of that size in all (pipe-user-pages-soft, pipe(7)), and
// others than dray may want some.
const (
	pipeBytes = 1 << 20
	maxPipes  = 32
)

// pipes are what files go through on their way to a connection, without passing
// through this process: splice(2) takes a pipe at one of its ends.
type pipes struct {
	make func() (*pipe, error)

	mu     sync.Mutex // guards below
	idle   []*pipe
	open   int // idle and in use
	closed bool
	spent  int64 // bytes that went through
}

// pipe has two ends, and holds bytes that were not taken out yet. It is empty while it is idle.
type pipe struct {
	read, write int
	holds       int64
}

func newPipes() *pipes { return &pipes{make: makePipe} }

func makePipe() (*pipe, error) {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, os.NewSyscallError("pipe2", err)
	}
	p := &pipe{read: ends[0], write: ends[1]}
	if _, err := unix.FcntlInt(uintptr(p.write), unix.F_SETPIPE_SZ, pipeBytes); err != nil {
		p.close()
		return nil, os.NewSyscallError("fcntl", err)
	}
	return p, nil
}

func (p *pipe) close() {
	_ = unix.Close(p.read) // nothing in it is wanted any more
	_ = unix.Close(p.write)
}

// take returns a pipe, or nil when all are in use or none can be made.
func (s *pipes) take() *pipe {
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

// give takes a pipe back through which so many bytes went. One that is not empty would mix two
// files, and is closed.
func (s *pipes) give(p *pipe, sent int64) {
	s.mu.Lock()
	s.spent += sent
	keep := p.holds == 0 && !s.closed
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

// close ends the pipes that are idle; those in use end when they are given back.
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

// through returns a listener whose connections take files by splice.
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
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return c, nil
	}
	return &splicing{TCPConn: tcp, pipes: l.pipes}, nil
}

// splicing is a connection that net/http writes files to, one goroutine at a time.
type splicing struct {
	*net.TCPConn
	pipes   *pipes
	holding bool
	held    bool // the kernel waits for more before it sends what was written last
}

var _ gatherer = (*splicing)(nil)

// Hold implements gatherer. What net/http writes before a file, the header and the file's first
// bytes, is to leave together with what is spliced after it: alone it would be a packet, and wake
// the client, for next to nothing.
func (c *splicing) Hold() { c.holding = true }

// Release implements gatherer.
func (c *splicing) Release() error {
	c.holding = false
	if !c.held {
		return nil
	}
	c.held = false
	return c.SetNoDelay(true) // which sends what waits (tcp(7), TCP_NODELAY)
}

// Write implements net.Conn.
func (c *splicing) Write(p []byte) (n int, err error) {
	if !c.holding {
		return c.TCPConn.Write(p)
	}
	out, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	for n < len(p) && err == nil {
		var sent int
		failed := out.Write(func(fd uintptr) bool {
			sent, err = unix.SendmsgN(int(fd), p[n:], nil, nil, unix.MSG_MORE|unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
			return !errors.Is(err, unix.EAGAIN)
		})
		if failed != nil {
			return n, failed // a deadline, or the end of the connection
		}
		if errors.Is(err, unix.EINTR) {
			err = nil
			continue
		}
		if err != nil {
			return n, os.NewSyscallError("sendmsg", err)
		}
		n, c.held = n+sent, true
	}
	return n, err
}

// errNotSpliced says that nothing was sent, because the file system or the kernel does not splice.
var errNotSpliced = errors.New("cannot be spliced")

// ReadFrom implements io.ReaderFrom. What it cannot splice goes the way of a net.TCPConn.
func (c *splicing) ReadFrom(r io.Reader) (int64, error) {
	n, err := c.readFrom(r)
	if n > 0 {
		c.held = false // it left with this
	}
	return n, err
}

func (c *splicing) readFrom(r io.Reader) (int64, error) {
	l, ok := r.(*io.LimitedReader)
	if !ok || l.N <= 0 {
		return c.TCPConn.ReadFrom(r)
	}
	f, ok := l.R.(*os.File)
	if !ok {
		return c.TCPConn.ReadFrom(r)
	}
	p := c.pipes.take()
	if p == nil {
		return c.TCPConn.ReadFrom(r)
	}
	n, err := p.move(c.TCPConn, f, l.N)
	c.pipes.give(p, n)
	l.N -= n
	if errors.Is(err, errNotSpliced) {
		return c.TCPConn.ReadFrom(r)
	}
	return n, err
}

// move sends up to n bytes of a file from where it is, or all up to its end, and returns how many
// it sent. What the pipe still holds after a failure is lost.
func (p *pipe) move(to *net.TCPConn, f *os.File, n int64) (sent int64, err error) {
	out, err := to.SyscallConn()
	if err != nil {
		return 0, err
	}
	in, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	for sent < n && err == nil {
		if err = p.fill(in, n-sent); p.holds == 0 {
			break // the end of the file, or a failure
		}
		more := 0
		if sent+p.holds < n {
			more = unix.SPLICE_F_MORE
		}
		for p.holds > 0 && err == nil {
			var moved int64
			moved, err = p.drain(out, more)
			sent += moved
		}
	}
	if err != nil && sent == 0 && p.holds == 0 && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS)) {
		err = errNotSpliced
	}
	return sent, err
}

// fill moves up to n bytes of a file into the empty pipe; none at the end of the file.
func (p *pipe) fill(in syscall.RawConn, n int64) (err error) {
	failed := in.Control(func(fd uintptr) {
		p.holds, err = splice(int(fd), p.write, min(n, pipeBytes), 0)
	})
	return errors.Join(failed, err)
}

// drain moves what the pipe holds to a connection, waiting for it as long as its deadline allows,
// and returns how many bytes it took at once.
func (p *pipe) drain(out syscall.RawConn, more int) (moved int64, err error) {
	failed := out.Write(func(fd uintptr) bool {
		moved, err = spliceAtOnce(p.read, int(fd), p.holds, more)
		return !errors.Is(err, unix.EAGAIN)
	})
	if failed != nil {
		return 0, failed
	}
	if moved == 0 && err == nil {
		err = io.ErrUnexpectedEOF
	}
	p.holds -= moved
	return moved, err
}

// splice may have to wait for the disk.
func splice(from, to int, n int64, flags int) (int64, error) {
	for {
		moved, err := unix.Splice(from, nil, to, nil, int(n), unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK|flags)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return max(moved, 0), os.NewSyscallError("splice", err)
	}
}

// spliceAtOnce is splice from memory to a connection. It never waits, and so does not tell Go's
// scheduler, which would hand on the processor and take it back for each call that takes longer
// than some 20 µs: a tenth of the processor time.
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
