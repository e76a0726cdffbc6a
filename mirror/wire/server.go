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
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"dray/mirror/proxied"
)

// ServerOptions configure a Server.
type ServerOptions struct {
	// Name is the server's name in the log and in errors. Setting is the configuration key that sets
	// Address; errors mention this key.
	Name, Setting string
	Address       string
	// Certificate and PrivateKey are paths of files. Without them, the server speaks plain HTTP.
	Certificate, PrivateKey string
	// Splice says to send files over plain HTTP by the system call splice, on systems that have it.
	Splice bool
	// ReadHeaderTimeout and IdleTimeout are passed to the http.Server.
	ReadHeaderTimeout, IdleTimeout time.Duration
	// Grace bounds the time for which requests under way continue when the server stops.
	Grace time.Duration
	// OnStop, if not nil, is called when the server stops, before it waits for requests.
	OnStop func()
	// Connections bounds the connections of clients; nil means no bound.
	Connections *Connections
	// Trust says which proxies may name the clients of connections, by the PROXY protocol; nil means
	// no proxies. [Server.Replace] replaces Trust and Handler, but a server that begins with a nil
	// Trust never uses the PROXY protocol.
	Trust   *proxied.Trust
	Handler http.Handler
	Logger  *slog.Logger
}

// Server is an HTTP server on one address. Its ServeHTTP calls the present handler.
type Server struct {
	ServerOptions
	front  atomic.Pointer[front]
	server *http.Server
	pipes  *pipes // nil if files are not spliced
	// handshakes counts failed TLS handshakes. Without TLS, it counts nothing.
	handshakes *handshakes
}

// front is the part of a server that may be replaced.
type front struct {
	trust   *proxied.Trust
	handler http.Handler
}

// NewServer returns a server that does not listen yet. It loads the certificate, and returns an
// error if that fails, so that a bad certificate prevents the start. Later the server reloads the
// certificate when its file changes.
func NewServer(o ServerOptions) (*Server, error) {
	s := &Server{ServerOptions: o, handshakes: newHandshakes(o.Name, o.Logger)}
	s.front.Store(&front{o.Trust, o.Handler})
	s.server = &http.Server{
		Addr: o.Address, Handler: s,
		ReadHeaderTimeout: o.ReadHeaderTimeout, IdleTimeout: o.IdleTimeout,
		MaxHeaderBytes: headerBytes,
		ConnContext:    connContext,
	}
	s.server.ErrorLog = slog.NewLogLogger(serverLog{o.Logger.Handler(), s.handshakes}, slog.LevelDebug)
	if o.OnStop != nil {
		s.server.RegisterOnShutdown(o.OnStop)
	}
	if o.Connections != nil {
		s.server.ConnState = o.Connections.changed
	}
	if o.Certificate == "" {
		if o.Splice {
			s.pipes = newPipes()
		}
		return s, nil
	}
	certificate, err := newReloading(o.Certificate, o.PrivateKey, o.Logger)
	if err != nil {
		return nil, err
	}
	// Offer HTTP/1.1 only, because HTTP/2 costs more for large bodies and has no benefit. TLS 1.3 is
	// used with clients that support it. Sessions are resumed by tickets, whose keys crypto/tls makes
	// and rotates.
	s.server.TLSConfig = &tls.Config{GetCertificate: certificate.get, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	s.server.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){}
	return s, nil
}

// Replace gives later requests another handler, and later connections another Trust. Requests and
// connections under way keep the former ones. trust must have the metrics of the former Trust: see
// [proxied.Trust.With].
func (s *Server) Replace(h http.Handler, trust *proxied.Trust) { s.front.Store(&front{trust, h}) }

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.front.Load().handler.ServeHTTP(w, r)
}

// headerBytes bounds the header of a request.
const headerBytes = 64 << 10

// Collectors returns the metrics of the server.
func (s *Server) Collectors() []prometheus.Collector {
	all := []prometheus.Collector{s.handshakes.failed}
	if s.Trust != nil {
		all = append(all, s.Trust.Collectors()...)
	}
	return all
}

// serverLog logs the messages of net/http about connections at level debug, because most of them
// say that a client disconnected. Messages about failed TLS handshakes go to the field handshakes
// instead, and an unrecovered panic is logged as an error.
type serverLog struct {
	slog.Handler
	handshakes *handshakes
}

// Enabled implements slog.Handler. It returns true, and then Handle decides by the message.
func (serverLog) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements slog.Handler.
func (h serverLog) Handle(ctx context.Context, line slog.Record) error {
	if h.handshakes.message(line.Message) {
		return nil
	}
	if strings.HasPrefix(line.Message, "http: panic serving") {
		line.Level = slog.LevelError
	}
	if !h.Handler.Enabled(ctx, line.Level) {
		return nil
	}
	return h.Handler.Handle(ctx, line)
}

// Listen listens on the address. An address in use is an error.
func (s *Server) Listen(ctx context.Context) (net.Listener, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", s.Address)
	if err != nil {
		return nil, fmt.Errorf("listener %s: %w; %sset another address with %s", s.Name, err, remedy(err), s.Setting)
	}
	return ln, nil
}

// remedy returns advice about an error from listening. The caller adds the advice to set another
// address. Linux refuses ports below net.ipv4.ip_unprivileged_port_start to a process without
// CAP_NET_BIND_SERVICE.
func remedy(err error) string {
	if errors.Is(err, syscall.EACCES) {
		return "low ports need the capability CAP_NET_BIND_SERVICE: add it, or "
	}
	return ""
}

// wrap wraps a listener as [Server.transported] does, and also bounds its connections if
// Connections is set.
func (s *Server) wrap(ln net.Listener) net.Listener {
	if ln = s.transported(ln); s.Connections != nil {
		ln = s.Connections.listen(ln)
	}
	return ln
}

// transported returns a listener whose connections use TLS, or splice files, if the server is
// configured so. The PROXY protocol is below both.
func (s *Server) transported(ln net.Listener) net.Listener {
	if s.Trust != nil {
		ln = proxied.Listen(ln, func() *proxied.Trust { return s.front.Load().trust })
	}
	if s.pipes != nil {
		return s.pipes.through(ln)
	}
	if s.server.TLSConfig == nil {
		return ln
	}
	return tls.NewListener(gatheringListener{plainListener{ln}}, s.server.TLSConfig)
}

// Serve answers requests from ln until ctx ends, and closes ln. Then it waits up to Grace for the
// requests under way, and returns nil. After Interrupt, Serve returns nil at once. If the server
// fails, Serve returns an error.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	if s.pipes != nil {
		defer s.pipes.close()
	}
	s.Logger.Info("listening", "listener", s.Name, "address", ln.Addr().String(), "tls", s.Certificate != "")
	done := make(chan error, 1)
	go func() { done <- s.server.Serve(s.wrap(ln)) }()
	select {
	case err := <-done:
		if errors.Is(err, http.ErrServerClosed) {
			return nil
		}
		return fmt.Errorf("listener %s: %w", s.Name, err)
	case <-ctx.Done():
	}
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.Grace)
	defer cancel()
	if err := s.server.Shutdown(late); err != nil {
		s.Logger.Warn("requests interrupted by the shutdown", "listener", s.Name, "error", err)
		_ = s.server.Close()
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("listener %s: %w", s.Name, err)
	}
	return nil
}

// Interrupt closes the listener and all connections. So it ends the requests under way.
func (s *Server) Interrupt() { _ = s.server.Close() }
