package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// loader makes clients that need little CPU: the kernel discards all but small bodies, and over TLS
// the clients decrypt only the beginning of a body. So they count the bytes, but do not verify
// them.
type loader struct {
	trust *tls.Config
	sink  []byte       // only its length matters; nothing is written into it
	bytes atomic.Int64 // bytes of bodies; over TLS, mostly of cipher text
	done  atomic.Int64 // number of complete answers
}

func newLoader(trust *tls.Config) *loader { return &loader{trust: trust, sink: make([]byte, 1<<20)} }

// answer has the times until the first byte and until the end of the body. Both begin when the
// client dials or, on an open connection, when it sends the request.
type answer struct {
	First, Whole time.Duration
	Bytes        int64
}

// client sends one request after another, and reuses its connection where it can.
type client struct {
	loader  *loader
	address string
	secure  bool
	extra   string // additional header lines, each with its line end
	tcp     *net.TCPConn
	stream  io.ReadWriter // tcp, or TLS on it
	reader  *bufio.Reader
	release func() bool
}

func (l *loader) client(address string, secure bool) *client {
	return &client{loader: l, address: address, secure: secure}
}

func (c *client) close() {
	if c.tcp != nil {
		c.release()
		_ = c.tcp.Close() // the client has read everything that it wants
		c.tcp = nil
	}
}

func (c *client) dial(ctx context.Context) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", c.address)
	if err != nil {
		return err
	}
	tcp := conn.(*net.TCPConn)
	c.tcp, c.stream = tcp, tcp
	c.release = context.AfterFunc(ctx, func() { _ = tcp.Close() })
	if c.secure {
		over := tls.Client(c.tcp, c.loader.trust)
		if err := over.HandshakeContext(ctx); err != nil {
			c.close()
			return err
		}
		c.stream = over
	}
	if c.reader == nil {
		c.reader = bufio.NewReaderSize(c.stream, 8<<10)
	} else {
		c.reader.Reset(c.stream)
	}
	return nil
}

// get fetches a path and discards the body. byteRange, such as "bytes=0-9", is optional.
func (c *client) get(ctx context.Context, path, byteRange string) (answer, error) {
	a, err := c.exchange(ctx, path, byteRange)
	if err != nil {
		c.close()
		if ctx.Err() != nil {
			return a, ctx.Err()
		}
		return a, fmt.Errorf("GET %s from %s: %w", path, c.address, err)
	}
	if c.secure { // the cipher text was discarded, so the TLS state is lost
		c.close()
	}
	c.loader.done.Add(1)
	return a, nil
}

func (c *client) exchange(ctx context.Context, path, byteRange string) (answer, error) {
	start := time.Now()
	if c.tcp == nil {
		if err := c.dial(ctx); err != nil {
			return answer{}, err
		}
	}
	request := make([]byte, 0, 512)
	request = fmt.Appendf(request, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: draybench\r\nAccept: %s\r\n", path, c.address, manifestType)
	if byteRange != "" {
		request = fmt.Appendf(request, "Range: %s\r\n", byteRange)
	}
	if c.secure {
		request = append(request, "Connection: close\r\n"...)
	}
	request = append(request, c.extra...)
	if _, err := c.stream.Write(append(request, "\r\n"...)); err != nil {
		return answer{}, err
	}
	status, length, closes, err := c.header()
	if err != nil {
		return answer{}, err
	}
	if want := map[bool]int{false: 200, true: 206}[byteRange != ""]; status != want {
		return answer{}, fmt.Errorf("status %d instead of %d", status, want)
	}
	a := answer{Bytes: length}
	if err := c.body(length, func() { a.First = time.Since(start) }); err != nil {
		return a, err
	}
	a.Whole = time.Since(start)
	if closes {
		c.close()
	}
	return a, nil
}

var (
	headerLength = []byte("content-length:")
	headerClose  = []byte("connection: close")
)

// header reads the header of an answer. It supports only the parts of HTTP that the servers
// here use.
func (c *client) header() (status int, length int64, closes bool, err error) {
	length = -1
	for first := true; ; first = false {
		line, err := c.reader.ReadSlice('\n')
		if err != nil {
			return 0, 0, false, err
		}
		line = bytes.TrimRight(line, "\r\n")
		switch {
		case first:
			if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) {
				return 0, 0, false, fmt.Errorf("answer begins with %q", line)
			}
			if status, err = strconv.Atoi(string(line[9:12])); err != nil {
				return 0, 0, false, err
			}
		case len(line) == 0:
			if length < 0 {
				return status, 0, false, fmt.Errorf("status %d without a length", status)
			}
			return status, length, closes, nil
		case len(line) > len(headerLength) && bytes.EqualFold(line[:len(headerLength)], headerLength):
			if length, err = strconv.ParseInt(string(bytes.TrimSpace(line[len(headerLength):])), 10, 64); err != nil {
				return 0, 0, false, err
			}
		case bytes.EqualFold(line, headerClose):
			closes = true
		}
	}
}

// tlsSlack bounds the bytes of a body that the TLS layer may have read without returning them: a
// record of 16 KiB, and cipher text of the records after it.
const tlsSlack = 64 << 10

// body discards the body of an answer. It calls onFirst as soon as a byte has arrived.
func (c *client) body(length int64, onFirst func()) error {
	if length == 0 {
		onFirst()
		return nil
	}
	// Over TLS, Peek decrypts the beginning of the body. Otherwise, it brings a small body into the
	// buffer, which takes one system call instead of two.
	if c.secure || c.reader.Buffered() == 0 && length <= 4<<10 {
		if _, err := c.reader.Peek(1); err != nil {
			return err
		}
	}
	buffered, err := c.reader.Discard(int(min(length, int64(c.reader.Buffered()))))
	if err != nil {
		return err
	}
	if buffered > 0 {
		onFirst()
	}
	c.loader.bytes.Add(int64(buffered))
	if c.secure {
		rest, err := c.discard(1<<62, func() {})
		if errors.Is(err, io.ErrUnexpectedEOF) && int64(buffered)+rest+tlsSlack >= length {
			return nil
		}
		return errors.Join(err, fmt.Errorf("%d of %d bytes", int64(buffered)+rest, length))
	}
	for left := length - int64(buffered); left > 0; {
		if left <= 4<<10 && buffered == 0 {
			n, err := io.CopyN(io.Discard, c.reader, left)
			c.loader.bytes.Add(n)
			return err
		}
		if buffered > 0 {
			onFirst = func() {}
		}
		n, err := c.discard(left, onFirst)
		if err != nil {
			return fmt.Errorf("%d of %d bytes: %w", length-left+n, length, err)
		}
		left -= n
	}
	return nil
}

// discard makes the kernel drop n bytes (tcp(7), MSG_TRUNC). It returns io.ErrUnexpectedEOF if the
// connection ends before that.
func (c *client) discard(n int64, first func()) (int64, error) {
	raw, err := c.tcp.SyscallConn()
	if err != nil {
		return 0, err
	}
	var dropped int64
	var failure error
	err = raw.Read(func(fd uintptr) bool {
		for dropped < n {
			size := min(n-dropped, int64(len(c.loader.sink)))
			got, _, errno := syscall.Syscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&c.loader.sink[0])), uintptr(size),
				syscall.MSG_TRUNC|syscall.MSG_DONTWAIT, 0, 0)
			switch {
			case errno == syscall.EAGAIN:
				return false
			case errno == syscall.EINTR:
				continue
			case errno != 0:
				failure = errno
				return true
			case got == 0:
				failure = io.ErrUnexpectedEOF
				return true
			}
			if dropped == 0 {
				first()
			}
			dropped += int64(got)
			c.loader.bytes.Add(int64(got))
		}
		return true
	})
	return dropped, errors.Join(err, failure)
}
