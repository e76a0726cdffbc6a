package wire

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// An unrecovered panic is an error in the log. Messages of net/http about clients that leave are
// logged for debugging only.
func TestServerLog(t *testing.T) {
	var log bytes.Buffer
	s, err := NewServer(ServerOptions{
		Name: "admin", Address: "127.0.0.1:0", Logger: slog.New(slog.NewTextHandler(&log, nil)),
		Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("a nil in it") }),
	})
	if err != nil {
		t.Fatal(err)
	}
	s.server.ErrorLog.Print("http: TLS handshake error from 127.0.0.1:1: EOF")
	if log.Len() > 0 {
		t.Errorf("noise: %s", log.String())
	}
	ours, theirs := net.Pipe()
	defer ours.Close()
	served := make(chan error, 1)
	go func() { served <- s.server.Serve(&once{conn: theirs}) }()
	if _, err := io.WriteString(ours, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	_, _ = io.ReadAll(ours)
	<-served
	if text := log.String(); strings.Count(text, "level=ERROR") != 1 || !strings.Contains(text, "a nil in it") {
		t.Errorf("the log has %q", text)
	}
}

// once is a listener with one connection.
type once struct{ conn net.Conn }

func (o *once) Accept() (net.Conn, error) {
	c := o.conn
	if o.conn = nil; c == nil {
		return nil, io.EOF
	}
	return c, nil
}
func (o *once) Close() error   { return nil }
func (o *once) Addr() net.Addr { return &net.TCPAddr{} }

// startServer runs a server until the test ends, and returns its address.
func startServer(t *testing.T, o ServerOptions) (*Server, string) {
	t.Helper()
	o.Name, o.Address = "main", "127.0.0.1:0"
	o.ReadHeaderTimeout, o.IdleTimeout, o.Grace = time.Minute, time.Minute, time.Minute
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	s, err := NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := s.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s, ln.Addr().String()
}

// An operator who may not use a port learns which right is missing.
func TestRemedy(t *testing.T) {
	for errno, want := range map[syscall.Errno]string{syscall.EACCES: "CAP_NET_BIND_SERVICE", syscall.EADDRINUSE: ""} {
		got := remedy(&net.OpError{Op: "listen", Err: os.NewSyscallError("bind", errno)})
		if (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%s: %q", errno, got)
		}
	}
}
