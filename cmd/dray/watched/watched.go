package watched

import (
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/http"
	"sync"

	"dray/mirror/reread"
	"dray/upstream"
	"dray/upstream/auth"
)

// Source makes values from files. A Source from [Watching] reads a file again when it changes. The
// zero Source opens no file. The check of the configuration uses the zero Source, because other
// code checks the files.
type Source struct {
	opens bool
	log   *slog.Logger
}

// Watching returns a Source that logs each change of a file. log may be nil.
func Watching(log *slog.Logger) Source { return Source{true, log} }

// Value returns a function that returns the result of parse for the present content of a file. If
// a changed file cannot be used, that function keeps returning the former result. The errors of
// parse must not show the content. If file is empty, or if s is the zero Source, the returned
// function always returns fallback.
func Value[T any](s Source, file string, parse func(text []byte) (T, error), fallback T) (func() T, error) {
	if file == "" || !s.opens {
		return func() T { return fallback }, nil
	}
	w, err := reread.New(s.log, func(texts [][]byte) (T, error) { return parse(texts[0]) }, file)
	if err != nil {
		return nil, err
	}
	return func() T {
		v, _ := w.Get()
		return v
	}, nil
}

// Secret returns a function that returns the secret in a file, without white space around it. If
// file is empty, or if s is the zero Source, the returned function always returns fallback.
func (s Source) Secret(file string, fallback auth.Secret) (func() auth.Secret, error) {
	return Value(s, file, ParseSecret, fallback)
}

// authorities returns the certificates of the system and of a PEM text.
func authorities(pem [][]byte) (*x509.CertPool, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("system certificates: %w", err)
	}
	if !pool.AppendCertsFromPEM(pem[0]) {
		return nil, fmt.Errorf("the file contains no PEM certificate")
	}
	return pool, nil
}

// Transport is the transport of an upstream. When the file with the authorities of the upstream
// changes, Transport uses a new [http.Transport] that trusts the new authorities.
type Transport struct {
	options upstream.TransportOptions
	trusted *reread.Value[*x509.CertPool] // nil without a file

	mu      sync.Mutex // guards options.RootCAs and current if there is a file
	current *http.Transport
}

// NewTransport returns a Transport that trusts the authorities in caFile and the authorities of the
// system. If caFile is "", it trusts the authorities in o. NewTransport returns an error if it
// cannot use the file. If log is nil, changes of caFile are not logged.
func NewTransport(o upstream.TransportOptions, caFile string, log *slog.Logger) (*Transport, error) {
	t := &Transport{options: o}
	if caFile != "" {
		var err error
		if t.trusted, err = reread.New(log, authorities, caFile); err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
		t.options.RootCAs, _ = t.trusted.Get()
	}
	t.current = upstream.NewTransport(t.options)
	return t, nil
}

// [Transport.now] returns a transport that trusts the present authorities in the file.
func (t *Transport) now() *http.Transport {
	if t.trusted == nil {
		return t.current
	}
	pool, _ := t.trusted.Get()
	t.mu.Lock()
	defer t.mu.Unlock()
	if pool != t.options.RootCAs {
		former := t.current
		t.options.RootCAs = pool
		t.current = upstream.NewTransport(t.options)
		former.CloseIdleConnections()
	}
	return t.current
}

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) { return t.now().RoundTrip(r) }

// CloseIdleConnections closes the connections that no request uses.
func (t *Transport) CloseIdleConnections() { t.now().CloseIdleConnections() }
