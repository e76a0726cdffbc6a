// Package clamd scans the files of a layer with a ClamAV daemon.
//
// dray sends the files one by one, as it reads them from the layer. If dray sent a layer as one
// stream, clamd would scan it only up to StreamMaxLength, and report nothing useful about the rest.
// There is one connection for each layer.
//
// The package uses these parts of the protocol in clamd(8): z-commands, IDSESSION and INSTREAM.
package clamd

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// Errors of a session; test for them with errors.Is.
var (
	// ErrTooLarge means that a file is longer than clamd's StreamMaxLength.
	ErrTooLarge = errors.New("larger than clamd's StreamMaxLength")
	// ErrProtocol means that clamd sent a reply that its manual does not list.
	ErrProtocol = errors.New("unexpected answer from clamd")
)

// maxReply is the maximum length of a reply in bytes. A reply is one line, and its longest part
// is the name of a signature.
const maxReply = 4 << 10

// session is one connection, on which one goroutine sends one file after another.
type session struct {
	conn         net.Conn
	in           *bufio.Reader
	out          *bufio.Writer
	timeout      time.Duration // bounds each write and each reply
	stopWatching func() bool

	// mu guards endCause. It also prevents extend from replacing the deadline that is set when ctx
	// ends.
	mu       sync.Mutex
	endCause error // context.Cause of ctx; nil until ctx ends
}

// dial opens a session. The end of ctx interrupts the session.
func dial(ctx context.Context, network, address string, timeout time.Duration) (*session, error) {
	d := net.Dialer{Timeout: timeout}
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("clamd: %w", err)
	}
	s := &session{conn: conn, in: bufio.NewReaderSize(conn, maxReply), out: bufio.NewWriterSize(conn, 64<<10), timeout: timeout}
	s.stopWatching = context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.endCause = context.Cause(ctx)
		_ = conn.SetDeadline(time.Unix(1, 0))
	})
	if _, err := s.out.WriteString("zIDSESSION\x00"); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *session) close() error {
	s.stopWatching()
	return s.conn.Close()
}

// extend sets the connection's deadline to d from now. After the end of ctx, it returns the cause
// of that end. It then does not change the deadline, which dial has set to a past time to interrupt
// the connection.
func (s *session) extend(d time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.endCause != nil {
		return wrap("end", s.endCause)
	}
	return s.conn.SetDeadline(time.Now().Add(d))
}

// begin starts the transfer of a file.
func (s *session) begin() error {
	_, err := s.out.WriteString("zINSTREAM\x00")
	return wrap("send", err)
}

// send sends a piece of the file. It skips an empty piece, which would end the file.
func (s *session) send(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	var length [4]byte
	binary.BigEndian.PutUint32(length[:], uint32(len(p)))
	if err := s.extend(s.timeout); err != nil {
		return err
	}
	if _, err := s.out.Write(length[:]); err != nil {
		return s.hungUp(err)
	}
	if _, err := s.out.Write(p); err != nil {
		return s.hungUp(err)
	}
	return nil
}

// end ends the file and returns the name of the signature that matches the file, or "".
func (s *session) end() (string, error) {
	if err := s.extend(s.timeout); err != nil {
		return "", err
	}
	if _, err := s.out.Write(make([]byte, 4)); err != nil {
		return "", s.hungUp(err)
	}
	if err := s.out.Flush(); err != nil {
		return "", s.hungUp(err)
	}
	return s.answer()
}

// hungUp returns the error for a write that failed with err. If ctx has ended, it returns the cause
// of that end. If clamd closed the connection because the file is too large, hungUp returns
// ErrTooLarge. In all other cases, it wraps err.
func (s *session) hungUp(err error) error {
	if ended := s.extend(time.Second); ended != nil {
		return ended
	}
	if _, why := s.answer(); errors.Is(why, ErrTooLarge) {
		return why
	}
	return wrap("send", err)
}

// answer reads "1: stream: OK", "2: stream: NAME FOUND" or an error.
func (s *session) answer() (string, error) {
	line, err := s.in.ReadSlice(0)
	if err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return "", wrap("read", err)
	}
	text := strings.TrimRight(string(line), "\x00\n")
	_, text, _ = strings.Cut(text, ": ") // cuts the number of the command
	switch {
	case text == "stream: OK":
		return "", nil
	case strings.HasPrefix(text, "stream: ") && strings.HasSuffix(text, " FOUND"):
		return strings.TrimSuffix(strings.TrimPrefix(text, "stream: "), " FOUND"), nil
	case strings.Contains(string(line), "size limit exceeded"):
		return "", ErrTooLarge
	}
	return "", fmt.Errorf("%w: %.200q", ErrProtocol, line)
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("clamd: %s: %w", what, err)
}
