package ecrtest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// Addresses are the addresses for Listen; an empty address means a free port of 127.0.0.1.
type Addresses struct{ Registry, API, Objects, Control string }

// Running is a Server with its four listeners.
type Running struct {
	*Server
	RegistryURL string // base URL of the bound address, such as "http://127.0.0.1:40001"
	APIURL      string // for AWS_ENDPOINT_URL_ECR, _CLOUDWATCH and _STS
	ObjectsURL  string
	ControlURL  string
	// RegistryAddr is host:port of the registry's listener.
	RegistryAddr string
	// RegistryHost is the ECR-shaped name of the registry, with the port of its listener. For this
	// name, DialContext connects to that listener.
	RegistryHost string
	// CA is the authority that signed the registry's certificate. It is nil if Listen did not make
	// the registry's certificate (see SelfSigned). CAPEM is CA in PEM.
	CA    *x509.Certificate
	CAPEM []byte

	objectsAddr, bucket string

	listeners []net.Listener
	servers   []*http.Server
}

// Listen binds all four listeners and makes the Server. It serves nothing before Run. If Run is
// never called, Close frees everything.
func Listen(opts Options, at Addresses) (*Running, error) {
	opts = opts.withDefaults()
	r := &Running{}
	for _, a := range []string{at.Registry, at.API, at.Objects, at.Control} {
		l, err := net.Listen("tcp", orDefault(a, "127.0.0.1:0"))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("listen on %s: %w", a, err), r.closeListeners())
		}
		r.listeners = append(r.listeners, l)
	}
	if err := r.build(opts); err != nil {
		return nil, errors.Join(err, r.closeListeners())
	}
	return r, nil
}

// build sets the fields that depend on the addresses, and makes the servers.
func (r *Running) build(opts Options) error {
	registry := r.listeners[0].Addr().(*net.TCPAddr)
	port := fmt.Sprint(registry.Port)
	r.RegistryAddr = reachable(registry)
	r.RegistryHost = hostName(opts.Account, opts.Region) + ":" + port
	r.APIURL = "http://" + reachable(r.listeners[1].Addr().(*net.TCPAddr))
	objectScheme := "http"
	if opts.TLS == nil && opts.SelfSigned {
		objectScheme = "https" // S3 uses https, and clients do not follow a redirect from https to http
	}
	r.ObjectsURL = objectScheme + "://" + reachable(r.listeners[2].Addr().(*net.TCPAddr))
	r.ControlURL = "http://" + reachable(r.listeners[3].Addr().(*net.TCPAddr))
	objects := r.listeners[2].Addr().(*net.TCPAddr)
	r.objectsAddr, r.bucket = reachable(objects), bucketHost(opts.Region)
	if opts.ObjectsByName {
		opts.ObjectsURL = orDefault(opts.ObjectsURL, fmt.Sprintf("%s://%s:%d", objectScheme, r.bucket, objects.Port))
	}
	opts.ObjectsURL = orDefault(opts.ObjectsURL, r.ObjectsURL)
	if !opts.StrictHost {
		opts.AcceptHosts = append(slices.Clone(opts.AcceptHosts), r.RegistryAddr, "127.0.0.1:"+port, "localhost:"+port)
	}
	if opts.TLS == nil && opts.SelfSigned {
		cert, ca, err := selfSigned(append(opts.hosts(), r.bucket)...)
		if err != nil {
			return err
		}
		r.CA, r.CAPEM = ca, certificatePEM(ca)
		opts.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
		r.listeners[2] = tls.NewListener(r.listeners[2], withALPN(opts.TLS, opts.HTTP2))
	}
	scheme := "http"
	if opts.TLS != nil {
		scheme = "https"
		r.listeners[0] = tls.NewListener(r.listeners[0], withALPN(opts.TLS, opts.HTTP2))
	}
	r.RegistryURL = scheme + "://" + r.RegistryAddr
	s, err := New(opts)
	if err != nil {
		return err
	}
	r.Server = s
	for _, h := range []http.Handler{s.Registry(), s.API(), s.Objects(), s.Control()} {
		r.servers = append(r.servers, newHTTPServer(h, opts))
	}
	return nil
}

// hosts returns the ECR-shaped names of all registries, the default registry first.
func (o Options) hosts() []string {
	names := []string{hostName(o.Account, o.Region)}
	for _, id := range o.More {
		names = append(names, hostName(id.Account, id.Region))
	}
	return names
}

func withALPN(c *tls.Config, h2 bool) *tls.Config {
	c = c.Clone()
	c.NextProtos = []string{"http/1.1"}
	if h2 {
		c.NextProtos = []string{"h2", "http/1.1"}
	}
	return c
}

func newHTTPServer(h http.Handler, opts Options) *http.Server {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetHTTP2(opts.HTTP2)
	return &http.Server{Handler: h, Protocols: p, ReadHeaderTimeout: time.Minute,
		ErrorLog: slog.NewLogLogger(opts.Logger.Handler(), slog.LevelWarn)}
}

// reachable returns the address at which clients on this machine reach a listener.
func reachable(a *net.TCPAddr) string {
	if a.IP.IsUnspecified() {
		return fmt.Sprintf("127.0.0.1:%d", a.Port)
	}
	return a.String()
}

func (r *Running) closeListeners() error {
	var errs []error
	for _, l := range r.listeners {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// Run serves until the context ends or a listener fails. Then it lets requests in flight finish for
// up to five seconds, and closes the Server.
func (r *Running) Run(ctx context.Context) error {
	failed := make(chan error, len(r.servers))
	for i, srv := range r.servers {
		go func() { failed <- srv.Serve(r.listeners[i]) }()
	}
	var err error
	left := len(r.servers)
	select {
	case <-ctx.Done():
	case err = <-failed:
		left--
	}
	r.ClearFaults() // ends stalls
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	for _, srv := range r.servers {
		if srv.Shutdown(grace) != nil {
			_ = srv.Close()
		}
	}
	for range left {
		if e := <-failed; err == nil && !errors.Is(e, http.ErrServerClosed) {
			err = e
		}
	}
	select {
	case <-r.Idle(): // a handler runs for a moment after its connection was closed
	case <-grace.Done():
	}
	return errors.Join(err, r.Server.Close())
}

// Close closes the listeners and the Server of a Running that was never run.
func (r *Running) Close() error { return errors.Join(r.closeListeners(), r.Server.Close()) }

// DialContext connects to the registry's listener for every ECR-shaped name, to the object store's
// listener for the bucket's name, and otherwise to addr.
func (r *Running) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	host, _, _ := net.SplitHostPort(addr) // an address without port fails below
	switch host = strings.ToLower(host); {
	case registryHost.MatchString(host):
		addr = r.RegistryAddr
	case host == r.bucket:
		addr = r.objectsAddr
	}
	var d net.Dialer
	return d.DialContext(ctx, network, addr)
}

// Transport returns an HTTP transport that connects by DialContext. If CA is set, the transport
// trusts only CA.
func (r *Running) Transport() *http.Transport {
	t := &http.Transport{DialContext: r.DialContext}
	if r.CA != nil {
		pool := x509.NewCertPool()
		pool.AddCert(r.CA)
		t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return t
}

// Start runs a Server on free ports of 127.0.0.1 until the test ends.
func Start(tb testing.TB, opts Options) *Running {
	tb.Helper()
	r, err := Listen(opts, Addresses{})
	if err != nil {
		tb.Fatalf("ecrtest: %v", err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(tb.Context()))
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Errorf("ecrtest: %v", err)
		}
	})
	return r
}
