package proxied

import (
	"bufio"
	"context"
	"net"
	"sync"
	"time"

	"github.com/pires/go-proxyproto"
)

// Listen returns a listener for the PROXY protocol, version 1 or 2. The listener calls the function
// trust for each connection. If Options.Protocol is set, every connection from a trusted proxy must
// begin with a header, and no other connection may have one. dray does not guess whether there is a
// header, because the protocol forbids a guess.
func Listen(ln net.Listener, trust func() *Trust) net.Listener { return listener{ln, trust} }

type listener struct {
	net.Listener
	trust func() *Trust
}

// Accept implements net.Listener. It does not wait for the header.
func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	tcp, ok := c.(*net.TCPConn)
	trust := l.trust()
	if !ok || !trust.o.Protocol || !trust.trusts(AddrOf(c.RemoteAddr().String())) {
		return c, nil
	}
	return &conn{TCPConn: tcp, trust: trust, in: bufio.NewReaderSize(tcp, bufferBytes)}, nil
}

// bufferBytes is the size of the buffer for a header. The longest header of version 1, of 107
// bytes, has to fit.
const bufferBytes = 256

// conn is a connection from a trusted proxy. The first call of RemoteAddr or Read waits for the
// header of the PROXY protocol. net/http calls RemoteAddr in the goroutine of the connection, so no
// other connection waits for the header.
type conn struct {
	*net.TCPConn
	trust *Trust
	in    *bufio.Reader
	once  sync.Once
	addr  net.Addr // the result of RemoteAddr
	err   error    // why there is no valid header
}

// RemoteAddr implements net.Conn. It returns the client's address. If the header is not valid or
// names no client, RemoteAddr returns the proxy's address.
func (c *conn) RemoteAddr() net.Addr {
	c.once.Do(c.readHeader)
	return c.addr
}

// Read implements net.Conn. Without a valid header, it returns an error and none of the bytes that
// were read: they may be a request, which the server would handle as a request of the proxy.
func (c *conn) Read(p []byte) (int, error) {
	c.once.Do(c.readHeader)
	if c.err != nil {
		return 0, c.err
	}
	if c.in.Buffered() > 0 {
		return c.in.Read(p)
	}
	return c.TCPConn.Read(p)
}

// readHeader reads the header. After an error it closes the connection.
func (c *conn) readHeader() {
	c.addr = c.TCPConn.RemoteAddr()
	_ = c.SetReadDeadline(time.Now().Add(c.trust.o.HeaderTimeout)) // if the deadline cannot be set, the read fails
	if _, c.err = c.in.Peek(1); c.err != nil {
		_ = c.Close() // a health check that only connects, or a client that left
		return
	}
	var header *proxyproto.Header
	if header, c.err = proxyproto.Read(c.in); c.err != nil {
		c.trust.refused(c.addr, c.err)
		_ = c.Close()
		return
	}
	_ = c.SetReadDeadline(time.Time{})
	if source, _, ok := header.TCPAddrs(); ok && header.Command.IsProxy() {
		c.addr = source
	}
}

// refused counts a connection without a valid header. It logs at most one such connection a minute.
func (t *Trust) refused(peer net.Addr, err error) {
	t.failed.Inc()
	t.mu.Lock()
	now := time.Now()
	often := now.Sub(t.warned) < time.Minute
	if !often {
		t.warned = now
	}
	t.mu.Unlock()
	if !often {
		t.o.Logger.Warn("a trusted proxy sent no valid header of the PROXY protocol; switch the protocol on there, or remove proxy_protocol",
			"listener", t.o.Listener, "proxy", peer.String(), "error", err)
	}
}

// ConnContext makes [Peer] return the address of the trusted proxy for requests on its connection.
// If another type wraps the connection, that type needs the method NetConn, as tls.Conn has it.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	for {
		if from, ok := c.(*conn); ok {
			return context.WithValue(ctx, peerKey{}, from.TCPConn.RemoteAddr().String())
		}
		outer, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return ctx
		}
		c = outer.NetConn()
	}
}
