package upstream

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/url"
	"time"
)

// TransportOptions configure NewTransport.
type TransportOptions struct {
	// RootCAs verify servers; nil means the certificates of the system.
	RootCAs *x509.CertPool
	// InsecureSkipVerify turns the verification of servers off.
	InsecureSkipVerify bool
	// Reach limits the addresses that are dialled; nil allows all.
	Reach *Reach
	// Dial replaces the dialler if Reach is nil. Its arguments are "tcp" and host:port.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Proxy chooses a proxy for a request; nil means the environment (HTTPS_PROXY, NO_PROXY …).
	Proxy func(*http.Request) (*url.URL, error)
	// Timeout is the limit for each of three steps: to dial (unless the function Dial dials), to
	// finish the TLS handshake, and to get the headers of the answer once the request is sent. Bodies
	// have no time limit here. 0 means 20 s.
	Timeout time.Duration
	// IdlePerHost is the number of idle connections kept for each host. 0 means 64. Requests go over
	// HTTP/1.1, so each concurrent request needs a connection.
	IdlePerHost int
}

// NewTransport returns the transport for one registry and the hosts that it redirects to.
func NewTransport(o TransportOptions) *http.Transport {
	timeout := cmp.Or(o.Timeout, 20*time.Second)
	t := &http.Transport{
		Proxy:                 o.Proxy,
		DialContext:           o.Dial,
		TLSHandshakeTimeout:   timeout,
		ResponseHeaderTimeout: timeout,
		ExpectContinueTimeout: time.Second,
		IdleConnTimeout:       90 * time.Second,
		MaxIdleConnsPerHost:   cmp.Or(o.IdlePerHost, 64),
		// Bodies are compared with their digests, so they must arrive unchanged.
		DisableCompression: true,
		// ECR and S3 speak HTTP/1.1, and a connection for each blob is faster than one connection for all
		// blobs.
		ForceAttemptHTTP2: false,
		TLSNextProto:      map[string]func(string, *tls.Conn) http.RoundTripper{},
		WriteBufferSize:   64 << 10,
		ReadBufferSize:    64 << 10,
		TLSClientConfig: &tls.Config{
			RootCAs: o.RootCAs, InsecureSkipVerify: o.InsecureSkipVerify, MinVersion: tls.VersionTLS12,
		},
	}
	if t.Proxy == nil {
		t.Proxy = http.ProxyFromEnvironment
	}
	if o.Reach != nil {
		t.Proxy, t.DialContext = o.Reach.proxied(t.Proxy), o.Reach.dialer(timeout)
	}
	if t.DialContext == nil {
		t.DialContext = (&net.Dialer{Timeout: timeout, KeepAlive: 30 * time.Second}).DialContext
	}
	return t
}
