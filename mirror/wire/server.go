package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"
)

// ServerOptions say what a Server serves, where and for how long.
type ServerOptions struct {
	// Name is the server's in the log and in errors, and Setting what in the configuration sets its
	// Address.
	Name, Setting string
	Address       string
	// Certificate and PrivateKey are files; without them the server speaks plain HTTP.
	Certificate, PrivateKey string
	// Splice sends files over plain HTTP by splice, where the system has that.
	Splice bool
	// ReadHeaderTimeout and IdleTimeout are those of an http.Server.
	ReadHeaderTimeout, IdleTimeout time.Duration
	// Grace is what requests under way have at the end.
	Grace   time.Duration
	Handler http.Handler
	Logger  *slog.Logger
}

// Server is one HTTP server on its address.
type Server struct {
	ServerOptions
	server *http.Server
	pipes  *pipes // nil: files are not spliced
}

// NewServer makes a server that does not listen yet. It reads the certificate, so that a bad one
// stops the start; later the certificate follows its files. An error is one of the certificate.
func NewServer(o ServerOptions) (*Server, error) {
	s := &Server{ServerOptions: o}
	s.server = &http.Server{
		Addr: o.Address, Handler: o.Handler,
		ReadHeaderTimeout: o.ReadHeaderTimeout, IdleTimeout: o.IdleTimeout,
		MaxHeaderBytes: 64 << 10,
		ErrorLog:       slog.NewLogLogger(serverLog{o.Logger.Handler()}, slog.LevelDebug),
		ConnContext:    connContext,
	}
	if o.Certificate == "" {
		if o.Splice {
			s.pipes = newPipes()
		}
		return s, nil
	}
	certificate := &reloading{certificate: o.Certificate, key: o.PrivateKey}
	if err := certificate.load(); err != nil {
		return nil, err
	}
	// HTTP/1.1 only: for large bodies HTTP/2 costs more and gains nothing. Clients of TLS 1.3 get it,
	// and resume their sessions by tickets, whose keys crypto/tls makes and rotates.
	s.server.TLSConfig = &tls.Config{GetCertificate: certificate.get, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	s.server.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){}
	return s, nil
}

// serverLog is for what net/http says of connections: mostly that a client left, which is noise. A
// panic that nothing has recovered is not.
type serverLog struct{ slog.Handler }

// Enabled implements slog.Handler: what a line says decides.
func (serverLog) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements slog.Handler.
func (h serverLog) Handle(ctx context.Context, line slog.Record) error {
	if strings.HasPrefix(line.Message, "http: panic serving") {
		line.Level = slog.LevelError
	}
	if !h.Handler.Enabled(ctx, line.Level) {
		return nil
	}
	return h.Handler.Handle(ctx, line)
}

// Listen takes the address. An address in use stops the start.
func (s *Server) Listen(ctx context.Context) (net.Listener, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", s.Address)
	if err != nil {
		return nil, fmt.Errorf("listener %s: %w; %s sets the address", s.Name, err, s.Setting)
	}
	return ln, nil
}

// wrap puts TLS on a listener, where that is configured, and otherwise the way that files are sent.
func (s *Server) wrap(ln net.Listener) net.Listener {
	if s.pipes != nil {
		return s.pipes.through(ln)
	}
	if s.server.TLSConfig == nil {
		return ln
	}
	return tls.NewListener(gatheringListener{ln}, s.server.TLSConfig)
}

// Serve answers requests that come to ln until ctx ends, and then gives the running ones their
// grace. It closes ln.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	if s.pipes != nil {
		defer s.pipes.close()
	}
	done := make(chan error, 1)
	go func() { done <- s.server.Serve(s.wrap(ln)) }()
	select {
	case err := <-done:
		return fmt.Errorf("listener %s: %w", s.Name, err)
	case <-ctx.Done():
	}
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.Grace)
	defer cancel()
	if err := s.server.Shutdown(late); err != nil {
		s.Logger.Warn("requests cut short", "listener", s.Name, "error", err)
		_ = s.server.Close()
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("listener %s: %w", s.Name, err)
	}
	return nil
}
