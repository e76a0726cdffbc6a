package main

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

// watched is a file that is read again when it has changed: Kubernetes and cert-manager replace
// passwords and authorities while dray runs. If the file cannot be read or parsed, the last value
// stays in use.
type watched[T any] struct {
	path  string
	parse func([]byte) (T, error)

	mu    sync.Mutex // guards the fields below; held while the file is read, which is small
	read  os.FileInfo
	value T
}

// watch reads a file for the first time.
func watch[T any](path string, parse func([]byte) (T, error)) (*watched[T], error) {
	w := &watched[T]{path: filepath.Clean(path), parse: parse}
	return w, w.load()
}

// get returns the value, and whether this call has read it from a changed file.
func (w *watched[T]) get() (value T, changed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	info, err := os.Stat(w.path)
	if err == nil && !(os.SameFile(info, w.read) && info.ModTime().Equal(w.read.ModTime()) && info.Size() == w.read.Size()) {
		changed = w.load() == nil // a file that is being written is read again at the next call
	}
	return w.value, changed
}

// load reads the file. w.mu is held, or w is new.
func (w *watched[T]) load() error {
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

// passwordIn returns credentials whose password is in a file.
func passwordIn(username, path string) (auth.Credentials, error) {
	w, err := watch(path, func(text []byte) (auth.Secret, error) {
		if text = bytes.TrimSpace(text); len(text) == 0 {
			return "", fmt.Errorf("the file is empty")
		}
		return auth.Secret(text), nil
	})
	return func(context.Context, string) (auth.Credential, error) {
		password, _ := w.get()
		return auth.Credential{Username: username, Password: password}, nil
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

// transport is the transport of an upstream. It is made anew when the file with the authorities of
// the upstream changes.
type transport struct {
	options upstream.TransportOptions
	file    *watched[*x509.CertPool] // nil without a file

	mu      sync.Mutex // guards current
	current *http.Transport
}

func newTransport(o upstream.TransportOptions, caFile string) (*transport, error) {
	t := &transport{options: o}
	if caFile != "" {
		var err error
		if t.file, err = watch(caFile, authorities); err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
		t.options.RootCAs = t.file.value
	}
	t.current = upstream.NewTransport(t.options)
	return t, nil
}

// now returns the transport with the authorities that the file has at this time.
func (t *transport) now() *http.Transport {
	if t.file == nil {
		return t.current
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if pool, changed := t.file.get(); changed {
		former := t.current
		t.options.RootCAs = pool
		t.current = upstream.NewTransport(t.options)
		former.CloseIdleConnections()
	}
	return t.current
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) { return t.now().RoundTrip(r) }

// CloseIdleConnections closes the connections that no request uses.
func (t *transport) CloseIdleConnections() { t.now().CloseIdleConnections() }
