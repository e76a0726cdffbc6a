package watched

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"

	"dray/upstream"
	"dray/upstream/auth"
)

// file is a file that is read again when it has changed: Kubernetes and cert-manager replace
// passwords and authorities while dray runs. If the file cannot be read or parsed, the last value
// stays in use.
type file[T any] struct {
	path  string
	parse func([]byte) (T, error)

	mu    sync.Mutex // guards the fields below; held during a read, which is short because the file is small
	read  os.FileInfo
	value T
}

// watch returns a file that it has read once.
func watch[T any](path string, parse func([]byte) (T, error)) (*file[T], error) {
	w := &file[T]{path: filepath.Clean(path), parse: parse}
	return w, w.load()
}

// get returns the value. changed reports that the file had changed, and that this call has read the
// new value.
func (w *file[T]) get() (value T, changed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	info, err := os.Stat(w.path)
	if err == nil && !(os.SameFile(info, w.read) && info.ModTime().Equal(w.read.ModTime()) && info.Size() == w.read.Size()) {
		changed = w.load() == nil // a file that is being written is read again at the next call
	}
	return w.value, changed
}

// load reads the file. w.mu is held, or w is new.
func (w *file[T]) load() error {
	info, err := os.Stat(w.path)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(w.path)
	if err != nil {
		return err
	}
	value, err := w.parse(text)
	if err != nil {
		return fmt.Errorf("%s: %w", w.path, err)
	}
	w.read, w.value = info, value
	return nil
}

// Secret returns a function that gives the secret that the file has at the time of the call,
// without white space around it.
func Secret(path string) (func() auth.Secret, error) {
	w, err := watch(path, func(text []byte) (auth.Secret, error) {
		if text = bytes.TrimSpace(text); len(text) == 0 {
			return "", fmt.Errorf("the file is empty")
		}
		return auth.Secret(text), nil
	})
	return func() auth.Secret {
		secret, _ := w.get()
		return secret
	}, err
}

// Password returns credentials whose password is in a file.
func Password(username, path string) (auth.Credentials, error) {
	secret, err := Secret(path)
	return func(context.Context, string) (auth.Credential, error) {
		return auth.Credential{Username: username, Password: secret()}, nil
	}, err
}

// authorities returns the certificates of a file and those of the system.
func authorities(pem []byte) (*x509.CertPool, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("system certificates: %w", err)
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("the file contains no PEM certificate")
	}
	return pool, nil
}

// Transport is the transport of an upstream. When the file with the authorities of the upstream
// changes, Transport uses a new [http.Transport] that trusts the new ones.
type Transport struct {
	options upstream.TransportOptions
	trusted *file[*x509.CertPool] // nil without a file

	mu      sync.Mutex // guards current
	current *http.Transport
}

// NewTransport returns a Transport that trusts the authorities in caFile and those of the system,
// or the authorities of o if caFile is empty. The error says why the file cannot be used.
func NewTransport(o upstream.TransportOptions, caFile string) (*Transport, error) {
	t := &Transport{options: o}
	if caFile != "" {
		var err error
		if t.trusted, err = watch(caFile, authorities); err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
		t.options.RootCAs = t.trusted.value
	}
	t.current = upstream.NewTransport(t.options)
	return t, nil
}

// now returns the transport with the authorities that the file has at this time.
func (t *Transport) now() *http.Transport {
	if t.trusted == nil {
		return t.current
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if pool, changed := t.trusted.get(); changed {
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
