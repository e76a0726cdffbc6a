package wire

import (
	"bytes"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"dray/mirror/fixture"
)

// A request of plain HTTP to a port of TLS is answered with the address to use. Every handshake
// that fails is counted by its reason, and logged with it if a person can change that.
func TestFailedHandshakes(t *testing.T) {
	certificate, key := writeCertificate(t, t.TempDir(), 1, time.Now())
	var log fixture.Log
	s, address := startServer(t, ServerOptions{
		Certificate: certificate, PrivateKey: key, Logger: slog.New(slog.NewTextHandler(&log, nil)),
		Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}),
	})
	plain := func(request string) string {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, request); err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(conn)
		if err != nil {
			t.Errorf("%.40q: %v", request, err)
		}
		return string(answer)
	}
	for request, want := range map[string]string{
		"GET /v2/team/app/tags/list?n=2 HTTP/1.1\r\nHost: dray.example:5000\r\n\r\n": "Location: https://dray.example:5000/v2/team/app/tags/list?n=2\r\n",
		"HEAD /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n":                              "Location: https://localhost/v2/\r\n",
		"PUT /v2/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc":      "HTTP/1.1 308 ",
		"POST /v2/%2F/ HTTP/1.1\r\nHost: localhost\r\n\r\n":                          "https://localhost/v2/%2F/\r\n",
		"GET / HTTP/1.0\r\n\r\n":                                                     "HTTP/1.1 400 ",
		"GARBAGE\r\n\r\n":                                                            "",
	} {
		if got := plain(request); !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("%.40q: %q", request, got)
		}
	}
	dial := func(o *tls.Config) {
		conn, err := tls.Dial("tcp", address, o)
		if err == nil {
			conn.Close()
			t.Error("a handshake succeeds that must not")
		}
	}
	dial(&tls.Config{ServerName: "localhost"})
	dial(&tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10})
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	for reason, want := range map[string]float64{failedPlain: 6, failedCertificate: 1, failedVersion: 1, failedLeft: 1, failedOther: 0} {
		counter := s.handshakes.failed.WithLabelValues(reason)
		for end := time.Now().Add(time.Minute); testutil.ToFloat64(counter) < want && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		if n := testutil.ToFloat64(counter); n != want {
			t.Errorf("%s: counted %v, want %v", reason, n, want)
		}
	}
	for _, reason := range []string{failedPlain, failedCertificate, failedVersion} {
		if n := strings.Count(log.String(), `reason="`+reason+`"`); n != 1 {
			t.Errorf("%s: %d lines in %s", reason, n, log.String())
		}
	}
	if strings.Contains(log.String(), failedLeft) {
		t.Errorf("a client that left is logged: %s", log.String())
	}
}

// An error of the server's own TLS is never taken for the alert of a client that refuses the
// certificate, although its text names certificates.
func TestCertificateRefusedByWhom(t *testing.T) {
	file, key := writeCertificate(t, t.TempDir(), 1, time.Now())
	certificate, err := tls.LoadX509KeyPair(file, key)
	if err != nil {
		t.Fatal(err)
	}
	handshake := func(client *tls.Config) string {
		ours, theirs := net.Pipe()
		defer ours.Close()
		go func() {
			_ = tls.Client(theirs, client).HandshakeContext(t.Context())
			theirs.Close()
		}()
		err := tls.Server(ours, &tls.Config{Certificates: []tls.Certificate{certificate}}).HandshakeContext(t.Context())
		if err == nil {
			t.Fatal("a handshake succeeds that must not")
		}
		return err.Error()
	}
	if why := handshake(&tls.Config{ServerName: "localhost"}); failureOf(why) != failedCertificate {
		t.Errorf("%s: %s", why, failureOf(why))
	}
	certificate.SupportedSignatureAlgorithms = []tls.SignatureScheme{tls.PKCS1WithSHA1} // of which no client with TLS 1.3 has one
	if why := handshake(&tls.Config{InsecureSkipVerify: true}); !strings.Contains(why, "certificate") || failureOf(why) != failedOther {
		t.Errorf("%s: %s", why, failureOf(why))
	}
}

// FuzzPlainConn: bytes before a handshake never make it fail otherwise than by an error, and only
// those of a request are answered.
func FuzzPlainConn(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"))
	f.Add([]byte{22, 3, 1, 0, 5, 1, 2, 3, 4, 5})
	f.Add([]byte("GET http://[::1]:namedport/ HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, first []byte) {
		if len(first) == 0 {
			return
		}
		ours, theirs := net.Pipe()
		answered := make(chan []byte)
		go func() {
			_, _ = ours.Write(first)
			answer := make([]byte, 4<<10)
			_ = ours.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
			n, _ := ours.Read(answer)
			ours.Close()
			answered <- answer[:n]
		}()
		c := &plainConn{Conn: theirs}
		n, err := c.Read(make([]byte, 600))
		theirs.Close()
		answer := <-answered
		if request := first[0] >= 'A' && first[0] <= 'Z'; request != (err == errPlainHTTP) || !request && n == 0 {
			t.Fatalf("%q: %d bytes, %v", first, n, err)
		}
		if len(answer) > 0 && !bytes.HasPrefix(answer, []byte("HTTP/1.1 308")) && !bytes.HasPrefix(answer, []byte("HTTP/1.1 400")) {
			t.Fatalf("%q is answered %q", first, answer)
		}
	})
}
