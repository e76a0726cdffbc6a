package main

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

// front is one HTTP server on its address.
type front struct {
	name   string
	set    string // what in the configuration sets its address
	server *http.Server
	files  ServerTLS
	pipes  *pipes // nil: files take no detour
	grace  time.Duration
	log    *slog.Logger
}

// newFront makes the server of a listener. Its certificate is read here, so that a
// bad one stops the start, and again for each connection after it changed on disk.
func newFront(l Listener, limits Limits, h http.Handler, log *slog.Logger) (*front, error) {
	f := &front{name: l.Name, files: l.TLS, grace: limits.ShutdownGrace.Std(), log: log}
	f.server = &http.Server{
		Addr: l.Address, Handler: h,
		ReadHeaderTimeout: limits.ReadHeaderTimeout.Std(), IdleTimeout: limits.IdleTimeout.Std(),
		MaxHeaderBytes: 64 << 10,
		ErrorLog:       slog.NewLogLogger(serverLog{log.Handler()}, slog.LevelDebug),
		ConnContext:    withGatherer,
	}
	if l.TLS.Certificate == "" {
		if l.Send == SendSplice {
			f.pipes = newPipes()
		}
		return f, nil
	}
	certificate := &reloading{certificate: l.TLS.Certificate, key: l.TLS.PrivateKey}
	if err := certificate.load(); err != nil {
		return nil, err
	}
	// HTTP/1.1 only: for large bodies HTTP/2 costs more and gains nothing. Clients of TLS 1.3 get it, and resume
	// their sessions by tickets, whose keys crypto/tls makes and rotates.
	f.server.TLSConfig = &tls.Config{GetCertificate: certificate.get, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	f.server.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){}
	return f, nil
}

// serverLog is for what net/http says of connections: mostly that a client left, which is noise. A panic that nobody has recovered is not.
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

// listen takes the address. An address in use stops the start.
func (f *front) listen(ctx context.Context) (net.Listener, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", f.server.Addr)
	if err != nil {
		return nil, fmt.Errorf("listener %s: %w; %s sets the address", f.name, err, f.set)
	}
	return f.wrap(ln), nil
}

// wrap puts TLS on a listener, where that is configured, and otherwise the way that files are sent.
func (f *front) wrap(ln net.Listener) net.Listener {
	if f.pipes != nil {
		return f.pipes.through(ln)
	}
	if f.server.TLSConfig == nil {
		return ln
	}
	return tls.NewListener(gatheringListener{ln}, f.server.TLSConfig)
}

// serve answers requests until ctx ends, and then gives the running ones their grace.
func (f *front) serve(ctx context.Context, ln net.Listener) error {
	if f.pipes != nil {
		defer f.pipes.close()
	}
	done := make(chan error, 1)
	go func() { done <- f.server.Serve(ln) }()
	select {
	case err := <-done:
		return fmt.Errorf("listener %s: %w", f.name, err)
	case <-ctx.Done():
	}
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), f.grace)
	defer cancel()
	if err := f.server.Shutdown(late); err != nil {
		f.log.Warn("requests cut short", "listener", f.name, "error", err)
		_ = f.server.Close()
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("listener %s: %w", f.name, err)
	}
	return nil
}
