package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/mirror/wire"
)

// recorded remembers each write.
type recorded struct {
	net.Conn
	mu     sync.Mutex
	writes [][]byte
	closed chan struct{}
	once   sync.Once
}

func (w *recorded) Close() error {
	w.once.Do(func() { close(w.closed) })
	return w.Conn.Close()
}

func (w *recorded) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writes = append(w.writes, bytes.Clone(p))
	return w.Conn.Write(p)
}

func (w *recorded) sizes() (sizes []int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.writes {
		sizes = append(sizes, len(p))
	}
	return sizes
}

type wireListener struct {
	net.Listener
	mu    sync.Mutex
	wires []*recorded
}

func (l *wireListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wires = append(l.wires, &recorded{Conn: c, closed: make(chan struct{})})
	return l.wires[len(l.wires)-1], nil
}

// sizes of all writes since the last call.
func (l *wireListener) sizes() (sizes []int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, w := range l.wires {
		sizes = append(sizes, w.sizes()...)
		w.mu.Lock()
		w.writes = nil
		w.mu.Unlock()
	}
	return sizes
}

// serveTLS serves h as a listener with a certificate does, and returns a client of it
// that keeps no connection but its sessions.
func serveTLS(t *testing.T, h http.Handler) (url string, client *http.Client, wires *wireListener) {
	t.Helper()
	cert, key := keyPair(t)
	f, err := wire.NewServer(wire.ServerOptions{
		Name: "tls", Address: "127.0.0.1:0", Certificate: cert, PrivateKey: key,
		ReadHeaderTimeout: time.Minute, IdleTimeout: time.Minute, Grace: time.Minute, Handler: h, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := f.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wires = &wireListener{Listener: ln}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Serve(ctx, wires) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	pem, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	transport := &http.Transport{DisableKeepAlives: true, ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "localhost", ClientSessionCache: tls.NewLRUClientSessionCache(8)}}
	t.Cleanup(transport.CloseIdleConnections)
	return "https://" + ln.Addr().String(), &http.Client{Transport: transport}, wires
}

// Over TLS a large blob takes few large writes, a manifest one for itself; sessions are
// of TLS 1.3 and resumed.
func TestTLSGathers(t *testing.T) {
	s := startStack(t, t.TempDir())
	layer := bytes.Repeat([]byte("0123456789abcdef"), 8<<20/16)
	m := s.push("team/app", "v1", layer)
	url, client, wires := serveTLS(t, s.servers[0])
	for i, test := range []struct {
		path string
		want []byte
	}{
		{"/v2/team/app/manifests/v1", m.Raw},
		{"/v2/team/app/blobs/" + digest.FromBytes(layer).String(), layer},
		{"/v2/team/app/manifests/v1", m.Raw},
	} {
		resp, err := client.Get(url + test.path)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || !bytes.Equal(got, test.want) {
			t.Errorf("%s: %d bytes, %v", test.path, len(got), err)
		}
		if c := resp.TLS; c.Version != tls.VersionTLS13 || c.NegotiatedProtocol != "http/1.1" || c.DidResume != (i > 0) {
			t.Errorf("request %d: version %x, protocol %q, resumed %v", i, c.Version, c.NegotiatedProtocol, c.DidResume)
		}
		sizes := wires.sizes()
		large := 0
		for _, n := range sizes {
			if n > 127<<10 {
				large++
			}
		}
		// 8 MiB are 64 pieces of 128 KiB; the rest is handshake, header and the first, smaller records.
		if whole := len(test.want) / (128 << 10); large < whole*9/10 || len(sizes) > whole+20 {
			t.Errorf("%s: %d writes, %d of them large: %v", test.path, len(sizes), large, sizes)
		}
	}
}

// A flush by a handler sends the bytes before the handler goes on.
func TestTLSFlushes(t *testing.T) {
	seen := make(chan struct{})
	url, client, _ := serveTLS(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		select {
		case <-seen:
		case <-r.Context().Done():
		}
		_, _ = io.WriteString(w, "body")
	}))
	resp, err := client.Get(url + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	close(seen)
	if got, err := io.ReadAll(resp.Body); string(got) != "body" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// The stall timeout disconnects a client that reads nothing, while bytes are still buffered for it.
func TestTLSStall(t *testing.T) {
	s := startStack(t, t.TempDir(), "cache: {", "limits: {stall_timeout: 200ms}\ncache: {")
	layer := bytes.Repeat([]byte("0123456789abcdef"), 24<<20/16)
	s.push("team/app", "v1", layer)
	url, _, wires := serveTLS(t, s.servers[0])
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(url, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.(*net.TCPConn).SetReadBuffer(64 << 10); err != nil {
		t.Fatal(err)
	}
	client := tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
	if _, err := fmt.Fprintf(client, "GET /v2/team/app/blobs/%s HTTP/1.1\r\nHost: x\r\n\r\n", digest.FromBytes(layer)); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	wires.mu.Lock()
	w := wires.wires[0]
	wires.mu.Unlock()
	select {
	case <-w.closed:
	case <-time.After(20 * time.Second):
		t.Error("it is still connected")
	}
}
