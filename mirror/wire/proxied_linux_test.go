package wire

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dray/mirror/proxied"
)

// The PROXY protocol works below TLS and below splice, which go on as without it: large files are
// spliced, records are gathered, and a request of plain HTTP to a port of TLS is answered.
func TestProxyProtocol(t *testing.T) {
	path := filepath.Join(t.TempDir(), "layer")
	if err := os.WriteFile(path, make([]byte, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	certificate, key := writeCertificate(t, t.TempDir(), 1, time.Now())
	const header = "PROXY TCP4 192.0.2.1 203.0.113.1 1234 443\r\n"
	for name, secure := range map[string]bool{"plain": false, "tls": true} {
		t.Run(name, func(t *testing.T) {
			trust := proxied.New(proxied.Options{Protocol: true, Proxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}})
			o := ServerOptions{Trust: trust, Splice: true, Connections: NewConnections(10, nil)}
			if secure {
				o.Certificate, o.PrivateKey = certificate, key
			}
			o.Handler = trust.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if _, ok := r.Context().Value(gathererKey{}).(gatherer); !ok {
					t.Error("the connection gathers nothing")
				}
				file, err := os.Open(path)
				if err != nil {
					t.Error(err)
					return
				}
				defer file.Close()
				w.Header().Set("X-Client", r.RemoteAddr+" "+proxied.Peer(r))
				answer := NewResponse(w, r, Options{Stall: time.Minute})
				if err := answer.Send(Content{ETag: `"layer"`, Size: 4 << 20, Body: inFile(make([]byte, 4<<20), file)}); err != nil {
					t.Error(err)
				}
			}))
			s, address := startServer(t, o)
			connect := func() net.Conn {
				c, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := io.WriteString(c, header); err != nil {
					t.Fatal(err)
				}
				return c
			}
			var conn net.Conn
			client := &http.Client{Transport: &http.Transport{
				DialContext:     func(context.Context, string, string) (net.Conn, error) { conn = connect(); return conn, nil },
				TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
			}}
			defer client.CloseIdleConnections()
			scheme := map[bool]string{false: "http", true: "https"}[secure]
			for range 2 { // the second request has the same connection
				resp, err := client.Get(scheme + "://dray.example/")
				if err != nil {
					t.Fatal(err)
				}
				n, err := io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if want := fmt.Sprintf("192.0.2.1:1234 %s", conn.LocalAddr()); err != nil || n != 4<<20 || resp.Header.Get("X-Client") != want {
					t.Errorf("%d bytes, %v, client %q, want %q", n, err, resp.Header.Get("X-Client"), want)
				}
			}
			if !secure {
				s.pipes.drained(t) // the client may have the last byte before its pipe is back
				if s.pipes.counted() != 2*4<<20 {
					t.Errorf("%d bytes were spliced", s.pipes.counted())
				}
				return
			}
			c := connect()
			defer c.Close()
			if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: dray.example\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			if answer, err := io.ReadAll(c); err != nil || !strings.Contains(string(answer), "Location: https://dray.example/") {
				t.Errorf("plain HTTP is answered with %q, %v", answer, err)
			}
		})
	}
}
