// Package clamd has the files of a layer looked at by a ClamAV daemon.
//
// The files are sent one by one, as the walk over the layer comes to them, because clamd takes a
// whole layer as one stream only up to its StreamMaxLength and says of what lies behind it nothing
// useful. One connection serves a layer.
//
// The protocol is that of clamd(8): z-commands, IDSESSION and INSTREAM.
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
	// ErrTooLarge says that clamd is not configured to take so long a file (StreamMaxLength).
	ErrTooLarge = errors.New("larger than clamd's StreamMaxLength")
	// ErrProtocol says that clamd answered something else than its manual says.
	ErrProtocol = errors.New("unexpected answer of clamd")
)

// maxReply is the longest answer that is read, in bytes: they are lines with the name of a
// signature.
const maxReply = 4 << 10

// session is one connection, used for one file after the other by one goroutine.
type session struct {
	conn    net.Conn
	in      *bufio.Reader
	out     *bufio.Writer
	timeout time.Duration // of one piece sent, and of an answer
	unhook  func() bool

	mu    sync.Mutex // guards ended, and orders the end of ctx and new deadlines
	ended error      // the cause of ctx's end
}

// dial opens a session, which ends with ctx.
func dial(ctx context.Context, network, address string, timeout time.Duration) (*session, error) {
	d := net.Dialer{Timeout: timeout}
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("clamd: %w", err)
	}
	s := &session{conn: conn, in: bufio.NewReaderSize(conn, maxReply), out: bufio.NewWriterSize(conn, 64<<10), timeout: timeout}
	s.unhook = context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.ended = context.Cause(ctx)
		_ = conn.SetDeadline(time.Unix(1, 0))
	})
	if _, err := s.out.WriteString("zIDSESSION\x00"); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *session) close() error {
	s.unhook()
	return s.conn.Close()
}

// allow gives what follows on the connection so much time, or returns the reason why ctx has ended:
// the deadline that this has set stays.
func (s *session) allow(d time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended != nil {
		return wrap("end", s.ended)
	}
	return s.conn.SetDeadline(time.Now().Add(d))
}

// begin starts a file.
func (s *session) begin() error {
	_, err := s.out.WriteString("zINSTREAM\x00")
	return wrap("send", err)
}

// send sends a piece of the file. An empty one would end it.
func (s *session) send(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	var length [4]byte
	binary.BigEndian.PutUint32(length[:], uint32(len(p)))
	if err := s.allow(s.timeout); err != nil {
		return err
	}
	if _, err := s.out.Write(length[:]); err != nil {
		return s.refused(err)
	}
	if _, err := s.out.Write(p); err != nil {
		return s.refused(err)
	}
	return nil
}

// end ends the file and returns the name of the signature that it has, or "".
func (s *session) end() (string, error) {
	if err := s.allow(s.timeout); err != nil {
		return "", err
	}
	if _, err := s.out.Write(make([]byte, 4)); err != nil {
		return "", s.refused(err)
	}
	if err := s.out.Flush(); err != nil {
		return "", s.refused(err)
	}
	return s.answer()
}

// refused looks for the reason why clamd hung up amid a file.
func (s *session) refused(err error) error {
	if ended := s.allow(time.Second); ended != nil {
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
	_, text, _ = strings.Cut(text, ": ") // the number of the command
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
