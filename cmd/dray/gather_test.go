package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
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
)

// wire remembers each write.
type wire struct {
	net.Conn
	mu     sync.Mutex
	writes [][]byte
	broken error
	closed chan struct{}
	once   sync.Once
}

func (w *wire) Close() error {
	w.once.Do(func() { close(w.closed) })
	return w.Conn.Close()
}

func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken != nil {
		return 0, w.broken
	}
	w.writes = append(w.writes, bytes.Clone(p))
	if w.Conn != nil {
		return w.Conn.Write(p)
	}
	return len(p), nil
}

func (w *wire) sizes() (sizes []int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.writes {
		sizes = append(sizes, len(p))
	}
	return sizes
}

// records are n pieces of the size of full TLS records, each of its own byte.
func records(n int) (pieces [][]byte) {
	for i := range n {
		pieces = append(pieces, bytes.Repeat([]byte{byte(i)}, 16<<10+22))
	}
	return pieces
}

func TestGathering(t *testing.T) {
	record := 16<<10 + 22
	for name, test := range map[string]struct {
		run  func(g *gathering)
		want []int
	}{
		"not held":              {func(g *gathering) { _, _ = g.Write([]byte("header")); _, _ = g.Write([]byte("small")) }, []int{6, 5}},
		"held and not released": {func(g *gathering) { g.Hold(); _, _ = g.Write([]byte("x")) }, nil},
		"released": {func(g *gathering) {
			g.Hold()
			for _, p := range records(3) {
				_, _ = g.Write(p)
			}
			_ = g.Release()
			_, _ = g.Write([]byte("next"))
		}, []int{3 * record, 4}},
		"room runs out": {func(g *gathering) {
			g.Hold()
			for _, p := range records(19) {
				_, _ = g.Write(p)
			}
			_ = g.Release()
		}, []int{8 * record, 8 * record, 3 * record}},
		"larger than the room": {func(g *gathering) {
			g.Hold()
			_, _ = g.Write([]byte("first"))
			_, _ = g.Write(make([]byte, gatherBytes+1))
			_, _ = g.Write([]byte("last"))
			_ = g.Release()
		}, []int{5, gatherBytes + 1, 4}},
		"nothing to release": {func(g *gathering) { g.Hold(); _ = g.Release(); _ = g.Release() }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := &wire{}
			test.run(&gathering{Conn: w})
			if got := w.sizes(); fmt.Sprint(got) != fmt.Sprint(test.want) {
				t.Errorf("%v, want %v", got, test.want)
			}
		})
	}
}

// Every byte arrives, in order, whatever the pieces are.
func TestGatheringKeepsOrder(t *testing.T) {
	w := &wire{}
	g := &gathering{Conn: w}
	var want []byte
	for i := range 500 {
		if i%7 == 0 {
			g.Hold()
		}
		p := bytes.Repeat([]byte{byte(i)}, i*131%(40<<10))
		want = append(want, p...)
		if n, err := g.Write(p); n != len(p) || err != nil {
			t.Fatal(n, err)
		}
		if i%7 == 4 {
			if err := g.Release(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := g.Release(); err != nil || !bytes.Equal(bytes.Join(w.writes, nil), want) {
		t.Error("the bytes differ", err)
	}
}

// A failure is reported, and nothing is sent after the hole it leaves.
func TestGatheringFails(t *testing.T) {
	w := &wire{broken: net.ErrClosed}
	g := &gathering{Conn: w}
	g.Hold()
	if _, err := g.Write([]byte("held")); err != nil {
		t.Error(err)
	}
	if err := g.Release(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("release: %v", err)
	}
	w.broken = nil
	if _, err := g.Write([]byte("more")); !errors.Is(err, net.ErrClosed) || len(w.writes) != 0 {
		t.Errorf("%v after the failure, %v", w.sizes(), err)
	}
	if g.held != nil {
		t.Error("the buffer was not given back")
	}
}

// A deadline, and Close, end a release that a client does not take.
func TestGatheringEnds(t *testing.T) {
	for name, end := range map[string]func(net.Conn){
		"deadline": func(c net.Conn) { _ = c.SetWriteDeadline(time.Now().Add(-time.Second)) },
		"close":    func(c net.Conn) { _ = c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			here, there := net.Pipe()
			defer there.Close()
			defer here.Close()
			g := &gathering{Conn: here}
			g.Hold()
			if _, err := g.Write([]byte("nobody reads this")); err != nil {
				t.Fatal(err)
			}
			released := make(chan error, 1)
			go func() { released <- g.Release() }()
			if end(g); <-released == nil {
				t.Error("it was sent")
			}
		})
	}
}

type wireListener struct {
	net.Listener
	mu    sync.Mutex
	wires []*wire
}

func (l *wireListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wires = append(l.wires, &wire{Conn: c, closed: make(chan struct{})})
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
	f, err := newFront(Listener{Name: "tls", Address: "127.0.0.1:0", TLS: ServerTLS{Certificate: cert, PrivateKey: key}},
		Limits{ReadHeaderTimeout: Duration(time.Minute), IdleTimeout: Duration(time.Minute), ShutdownGrace: Duration(time.Minute)}, h, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", f.server.Addr)
	if err != nil {
		t.Fatal(err)
	}
	wires = &wireListener{Listener: ln}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.serve(ctx, f.wrap(wires)) }()
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
	url, client, wires := serveTLS(t, s.fronts[0].server.Handler)
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

// What a handler flushes is on its way before the handler goes on.
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

// A client that takes nothing is disconnected by the limit on standing still, amid what
// is gathered for it.
func TestTLSStall(t *testing.T) {
	s := startStack(t, t.TempDir(), "cache: {", "limits: {stall_timeout: 200ms}\ncache: {")
	layer := bytes.Repeat([]byte("0123456789abcdef"), 24<<20/16)
	s.push("team/app", "v1", layer)
	url, _, wires := serveTLS(t, s.fronts[0].server.Handler)
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
