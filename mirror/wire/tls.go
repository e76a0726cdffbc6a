package wire

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// handshakes counts the TLS handshakes that fail, and logs why.
type handshakes struct {
	listener string
	log      *slog.Logger
	failed   *prometheus.CounterVec

	mu     sync.Mutex // guards logged
	logged map[string]time.Time
}

// The reasons why a handshake fails, as they appear in metrics and in the log.
const (
	failedPlain       = "plain http"
	failedCertificate = "certificate refused"
	failedVersion     = "version or cipher"
	failedLeft        = "client left"
	failedOther       = "other"
)

// advice has, for each reason except failedLeft, a text about what a person can do.
var advice = map[string]string{
	failedPlain:       "the client speaks plain HTTP; use https:// for this listener",
	failedCertificate: "the client does not trust the certificate; give it the CA, or a certificate for the name that it uses",
	failedVersion:     "the client offers no version or cipher of TLS that dray accepts; dray needs TLS 1.2",
	failedOther:       "see the error",
}

func newHandshakes(listener string, log *slog.Logger) *handshakes {
	h := &handshakes{listener: listener, log: log, logged: map[string]time.Time{}}
	h.failed = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "dray_tls_failures_total", ConstLabels: prometheus.Labels{"listener": listener},
		Help: "TLS handshakes that failed, by reason: plain http, certificate refused, version or cipher, client left, other.",
	}, []string{"reason"})
	for _, reason := range []string{failedPlain, failedCertificate, failedVersion, failedLeft, failedOther} {
		h.failed.WithLabelValues(reason)
	}
	return h
}

// handshakeError is the beginning of net/http's message about a handshake that failed (net/http,
// conn.serve). The client's address and the error follow.
const handshakeError = "http: TLS handshake error from "

// message counts and logs a message of net/http about a failed handshake. It returns false, and
// does nothing, if the message is about something else. It warns of each reason at most once a
// minute, because a client that does not trust the certificate causes a failure with every pull.
func (h *handshakes) message(text string) bool {
	text, ok := strings.CutPrefix(text, handshakeError)
	if !ok {
		return false
	}
	client, why, _ := strings.Cut(text, ": ")
	reason := failureOf(why)
	h.failed.WithLabelValues(reason).Inc()
	if reason == failedLeft {
		h.log.Debug("TLS handshake failed", "listener", h.listener, "client", client, "reason", reason, "error", why)
		return true
	}
	h.mu.Lock()
	now := time.Now()
	often := now.Sub(h.logged[reason]) < time.Minute
	if !often {
		h.logged[reason] = now
	}
	h.mu.Unlock()
	if !often {
		h.log.Warn("TLS handshake failed; "+advice[reason], "listener", h.listener, "client", client, "reason", reason, "error", why)
	}
	return true
}

// failureOf returns the reason for the error of a handshake. If the client sent a TLS alert, the
// error has the text of crypto/tls for this alert.
func failureOf(why string) string {
	has := func(parts ...string) bool {
		for _, p := range parts {
			if strings.Contains(why, p) {
				return true
			}
		}
		return false
	}
	switch {
	case has(errPlainHTTP.Error()):
		return failedPlain
	case strings.HasPrefix(why, "remote error: ") && has("certificate"): // an alert of the client: bad, unknown, expired, unknown authority
		return failedCertificate
	case has("unsupported version", "unsupported versions", "protocol version", "no cipher suite", "handshake failure", "inappropriate fallback", "insufficient security"):
		return failedVersion
	case has("EOF", "connection reset", "broken pipe", "i/o timeout", "use of closed", "user canceled"):
		return failedLeft
	}
	return failedOther
}

var errPlainHTTP = errors.New("the client sent a request of plain HTTP")

// plainListener wraps each connection in a plainConn, which answers a request of plain HTTP before
// TLS sees it. Some clients speak plain HTTP to a registry on localhost, or fall back to plain
// HTTP.
type plainListener struct{ net.Listener }

// Accept implements net.Listener.
func (l plainListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &plainConn{Conn: c}, nil
}

// plainConn looks at the first bytes that are read.
type plainConn struct {
	net.Conn
	looked bool
}

// NetConn returns the connection below.
func (c *plainConn) NetConn() net.Conn { return c.Conn }

// Read implements net.Conn. If the first bytes are those of a request, it answers the request and
// returns errPlainHTTP. The server's deadline for the handshake also bounds reading the request and
// writing the answer.
func (c *plainConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.looked || n == 0 {
		return n, err
	}
	c.looked = true
	if p[0] < 'A' || p[0] > 'Z' { // a handshake begins with 22 (RFC 8446, 5.1)
		return n, err
	}
	begun := strings.NewReader(string(p[:n]))
	if r, err := http.ReadRequest(bufio.NewReader(io.LimitReader(io.MultiReader(begun, c.Conn), headerBytes))); err == nil {
		c.redirect(r)
	}
	return 0, errPlainHTTP
}

// After the answer, redirect reads the rest of the request and drops it. The constant drained
// bounds the bytes that it reads, and drainedIn bounds the time. If the connection were closed with
// unread bytes, the client might lose the answer.
const (
	drained   = 64 << 10
	drainedIn = 500 * time.Millisecond
)

// redirect answers a request with a redirect to the same URL, but with https. The body is a text
// for people. A request without a host gets the status 400 and the text, and no redirect.
func (c *plainConn) redirect(r *http.Request) {
	at := url.URL{Scheme: "https", Host: r.Host, Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery}
	text := fmt.Sprintf("This port speaks HTTPS, and the request was plain HTTP. Use https://%s\n", r.Host)
	resp := http.Response{
		StatusCode: http.StatusPermanentRedirect, ProtoMajor: 1, ProtoMinor: 1, Request: r, Close: true,
		Header: http.Header{"Location": {at.String()}, "Content-Type": {"text/plain; charset=utf-8"}},
		Body:   io.NopCloser(strings.NewReader(text)), ContentLength: int64(len(text)),
	}
	if r.Host == "" {
		resp.StatusCode = http.StatusBadRequest
		resp.Header.Del("Location")
	}
	if resp.Write(c.Conn) != nil {
		return
	}
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // if this fails, the connection ends anyway
	}
	_ = c.SetReadDeadline(time.Now().Add(drainedIn))
	_, _ = io.CopyN(io.Discard, c.Conn, drained)
}
