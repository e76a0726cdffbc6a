package proxied

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"dray/mirror/fixture"
)

const request = "GET / HTTP/1.1\r\nHost: dray\r\nConnection: close\r\n\r\n"

// serving starts a server that answers with the client's address and the proxy's, and returns its
// address.
func serving(t testing.TB, trust *Trust) string {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{
		ReadHeaderTimeout: time.Minute, ConnContext: ConnContext, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0),
		Handler: trust.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			host, _, _ := net.SplitHostPort(Peer(r))
			fmt.Fprintf(w, "<%s by %s>", r.RemoteAddr, host)
		})),
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(Listen(ln, func() *Trust { return trust })) }()
	t.Cleanup(func() {
		_ = server.Close()
		if err := <-done; err != http.ErrServerClosed {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

// send sends bytes from an address of this machine, and returns the answer.
func send(t testing.TB, from, to string, sent []byte) string {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.DialContext(t.Context(), "tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	_, _ = c.Write(sent) // the server may have closed the connection
	_ = c.(*net.TCPConn).CloseWrite()
	answer, _ := io.ReadAll(c) // the server may reset the connection
	return string(answer)
}

// header is a header of version 2 for a client.
func header(t testing.TB, client string, edit func(*proxyproto.Header)) string {
	t.Helper()
	h := proxyproto.HeaderProxyFromAddrs(2, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(client)), &net.TCPAddr{IP: net.ParseIP("203.0.113.1"), Port: 443})
	if edit != nil {
		edit(h)
	}
	raw, err := h.Format()
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// A connection from a trusted proxy has to name its client; one from elsewhere cannot.
func TestProtocol(t *testing.T) {
	log := &fixture.Log{}
	trust := New(Options{
		Listener: "main", Protocol: true, Proxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32"), netip.MustParsePrefix("10.0.0.0/8")},
		Logger: slog.New(slog.NewTextHandler(log, nil)),
	})
	to := serving(t, trust)
	const proxy, stranger = "127.0.0.2", "127.0.0.3"
	failures := 0.0
	for _, test := range []struct {
		name, from, sent string
		want             string // in the answer; "" if there must be none
	}{
		{"version 1", proxy, "PROXY TCP4 192.0.2.1 203.0.113.1 1234 443\r\n" + request, "<192.0.2.1:1234 by 127.0.0.2>"},
		{"version 1, IPv6", proxy, "PROXY TCP6 2001:db8::1 2001:db8::2 1234 443\r\n" + request, "<[2001:db8::1]:1234 by 127.0.0.2>"},
		{"version 1, unknown", proxy, "PROXY UNKNOWN\r\n" + request, "<127.0.0.2:"},
		{"version 2", proxy, header(t, "192.0.2.1:1234", nil) + request, "<192.0.2.1:1234 by 127.0.0.2>"},
		{"version 2 with more", proxy, header(t, "192.0.2.1:1234", func(h *proxyproto.Header) {
			if err := h.SetTLVs([]proxyproto.TLV{{Type: proxyproto.PP2_TYPE_MIN_CUSTOM, Value: bytes.Repeat([]byte("x"), 3000)}}); err != nil {
				t.Fatal(err)
			}
		}) + request, "<192.0.2.1:1234 by 127.0.0.2>"},
		{"version 2, the proxy itself", proxy, header(t, "192.0.2.1:1234", func(h *proxyproto.Header) { h.Command = proxyproto.LOCAL }) + request, "<127.0.0.2:"},
		{"a loopback address", proxy, header(t, "127.0.0.1:1234", nil) + request, "<127.0.0.1:1234 by 127.0.0.2>"},
		{"another proxy before it", proxy, header(t, "10.0.0.1:1234", nil) + strings.Replace(request, "\r\n\r\n", "\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n", 1), "<192.0.2.1 by 127.0.0.2>"},
		{"a client that invents another", proxy, header(t, "192.0.2.1:1234", nil) + strings.Replace(request, "\r\n\r\n", "\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n", 1), "<192.0.2.1:1234 by 127.0.0.2>"},
		{"a request alone", proxy, request, ""},
		{"half a header", proxy, "PROXY TCP4 192.0.2.1", ""},
		{"nonsense", proxy, "PROXY TCP4 192.0.2.1 here 1 2\r\n" + request, ""},
		{"a health check that only connects", proxy, "", ""},
		{"a stranger's request", stranger, request, "<127.0.0.3:"},
		{"a stranger's header", stranger, "PROXY TCP4 192.0.2.1 203.0.113.1 1234 443\r\n" + request, "400 Bad Request"},
	} {
		if got := send(t, test.from, to, []byte(test.sent)); !strings.Contains(got, test.want) || test.want == "" && got != "" {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
		if test.want == "" && test.sent != "" {
			failures++
		}
	}
	if n := testutil.ToFloat64(trust.failed); n != failures {
		t.Errorf("%v failures are counted, want %v", n, failures)
	}
	if n := strings.Count(log.String(), "proxy=127.0.0.2:"); n != 1 {
		t.Errorf("the log has %d lines:\n%s", n, log.String())
	}
}

// After a refusal, the bytes that were read with the header do not reach the server, which would
// handle them as a request of the proxy.
func TestProtocolRefusedUnread(t *testing.T) {
	trust := New(Options{Protocol: true, Proxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	for _, sent := range []string{request, "PROXY TCP4 192.0.2.1 here 1 2\r\n" + request} {
		ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		handled := false
		closed := make(chan struct{})
		server := &http.Server{
			ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0),
			Handler:  http.HandlerFunc(func(http.ResponseWriter, *http.Request) { handled = true }),
			ConnState: func(_ net.Conn, s http.ConnState) {
				if s == http.StateClosed {
					close(closed)
				}
			},
		}
		go func() { _ = server.Serve(Listen(ln, func() *Trust { return trust })) }()
		defer server.Close()
		answer := send(t, "127.0.0.1", ln.Addr().String(), []byte(sent))
		if <-closed; handled || answer != "" {
			t.Errorf("%q is handled: %v, and answered with %q", sent, handled, answer)
		}
	}
}

// A proxy that sends nothing keeps neither the others nor its connection.
func TestProtocolTimeout(t *testing.T) {
	trust := New(Options{Protocol: true, Proxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, HeaderTimeout: time.Millisecond})
	to := serving(t, trust)
	c, err := new(net.Dialer).DialContext(context.Background(), "tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "PROXY"); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	if answer, _ := io.ReadAll(c); len(answer) > 0 {
		t.Errorf("answered with %q", answer)
	}
}

// Whatever a trusted proxy sends, the connection ends, and an answer names an address.
func FuzzProtocol(f *testing.F) {
	to := serving(f, New(Options{Protocol: true, Proxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}}))
	f.Add([]byte("PROXY TCP4 192.0.2.1 203.0.113.1 1234 443\r\n"))
	f.Add([]byte(header(f, "[2001:db8::1]:1", nil)))
	f.Fuzz(func(t *testing.T, sent []byte) {
		answer := send(t, "127.0.0.2", to, append(sent, request...))
		_, text, ok := strings.Cut(answer, "<")
		client, _, _ := strings.Cut(text, " by ")
		if ok && !AddrOf(client).IsValid() {
			t.Errorf("%q is answered with %q", sent, answer)
		}
	})
}
