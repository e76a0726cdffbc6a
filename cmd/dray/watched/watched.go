package watched

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"

	"dray/mirror/reread"
	"dray/upstream"
	"dray/upstream/auth"
)

// Source returns a function that gives the present value of a secret. file is the path of the file
// with the secret, or empty if the secret comes from elsewhere, such as a variable. The parameter
// read is the value that the configuration got at the start.
type Source func(file string, read auth.Secret) (func() auth.Secret, error)

// AsRead is a [Source] whose secrets stay as the configuration has read them.
func AsRead(_ string, read auth.Secret) (func() auth.Secret, error) {
	return func() auth.Secret { return read }, nil
}

// Watching returns a [Source] that reads a file again when it changes, and logs that. White space
// around a secret is ignored.
func Watching(log *slog.Logger) Source {
	return func(file string, read auth.Secret) (func() auth.Secret, error) {
		if file == "" {
			return AsRead(file, read)
		}
		w, err := reread.New(log, func(texts [][]byte) (auth.Secret, error) {
			text := bytes.TrimSpace(texts[0])
			if len(text) == 0 {
				return "", errors.New("the file is empty")
			}
			return auth.Secret(text), nil
		}, file)
		return func() auth.Secret {
			secret, _ := w.Get()
			return secret
		}, err
	}
}

// authorities returns the certificates of a file and those of the system.
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
// changes, Transport uses a new [http.Transport] that trusts the new ones.
type Transport struct {
	options upstream.TransportOptions
	trusted *reread.Value[*x509.CertPool] // nil without a file

	mu      sync.Mutex // guards options.RootCAs and current if there is a file
	current *http.Transport
}

// NewTransport returns a Transport that trusts the authorities in caFile and those of the system,
// or the authorities of o if caFile is empty. The error says why the file cannot be used. If log is
// nil, the changes of caFile are not logged.
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

// now returns the transport with the authorities that the file has at this time.
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
