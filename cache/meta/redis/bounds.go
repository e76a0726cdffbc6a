package redis

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strconv"
	"syscall"

	goredis "github.com/redis/go-redis/v9"
)

// Bounds of one reply. A reply announces the length of each value in a header. go-redis allocates
// memory for this length before the bytes arrive. Without bounds, any program that answers on the
// port could make dray take all memory. Replies with facts are much smaller than these bounds.
const (
	maxValues = 100_000
	maxReply  = 32 << 20 // bytes
	maxString = 8 << 20  // bytes
	maxLine   = 64 << 10 // bytes
)

// [bounded] returns a dialer like the dialer of the options. Its connections fail when a reply
// exceeds the bounds.
func bounded(o *goredis.Options) func(context.Context, string, string) (net.Conn, error) {
	dial := goredis.NewDialer(o)
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		if s, ok := c.(syscall.Conn); ok {
			return &systemConn{boundedConn{Conn: c}, s}, nil
		}
		return &boundedConn{Conn: c}, nil
	}
}

// boundedConn is a connection whose replies are bounded.
type boundedConn struct {
	net.Conn
	replies replies
}

// Read reads from the connection, and fails before the caller gets bytes beyond a bound.
func (c *boundedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if bad := c.replies.scan(p[:n]); bad != nil {
		return 0, bad
	}
	return n, err
}

// systemConn is a boundedConn of a socket. Before go-redis uses the connection again, it checks by
// [syscall.Conn] that the socket is still open.
type systemConn struct {
	boundedConn
	syscall.Conn
}

// replies parses a server's replies, but only as far as is necessary to check the bounds. The
// protocol is RESP (redis.io/docs/latest/develop/reference/protocol-spec). The zero value expects
// the beginning of a reply.
type replies struct {
	begun  int    // values of the reply so far
	values int    // values that belong to the reply and have not begun
	size   int    // bytes of the reply so far
	skip   int    // bytes of a string that are still to come, with its line end
	line   []byte // a header, as far as it has arrived
	err    error
}

// scan looks at the next bytes and returns an error once they exceed a bound.
func (r *replies) scan(p []byte) error {
	for len(p) > 0 && r.err == nil {
		if r.skip > 0 {
			n := min(r.skip, len(p))
			r.skip -= n
			p = p[n:]
			r.count(n)
			continue
		}
		n := bytes.IndexByte(p, '\n') + 1
		if n == 0 {
			n = len(p)
		}
		r.line = append(r.line, p[:n]...)
		p = p[n:]
		r.count(n)
		switch {
		case len(r.line) > maxLine:
			r.err = fmt.Errorf("redis: a line of a reply has more than %d bytes", maxLine)
		case r.line[len(r.line)-1] == '\n':
			r.header(r.line[0], string(bytes.TrimRight(r.line[1:], "\r\n")))
			r.line = r.line[:0]
		}
	}
	return r.err
}

// count adds n bytes to the size of the reply. If the reply is complete, count begins the next one.
func (r *replies) count(n int) {
	if r.size += n; r.size > maxReply && r.err == nil {
		r.err = fmt.Errorf("redis: a reply has more than %d bytes", maxReply)
	}
	if r.skip == 0 && r.values == 0 && len(r.line) == 0 {
		r.begun, r.size = 0, 0
	}
}

// header reads the first line of a value. kind is the first byte of that line.
func (r *replies) header(kind byte, rest string) {
	r.begun++
	if r.values > 0 {
		r.values--
	}
	switch kind {
	case '$', '!', '=':
		if n := r.length(rest, maxString); n >= 0 {
			r.skip = n + len("\r\n")
		}
	case '*', '~', '>':
		r.values += max(0, r.length(rest, maxValues))
	case '%':
		r.values += 2 * max(0, r.length(rest, maxValues))
	case '|': // attributes come before the value that they belong to
		r.values += 2*max(0, r.length(rest, maxValues)) + 1
	}
	if r.begun+r.values > maxValues && r.err == nil {
		r.err = fmt.Errorf("redis: a reply has more than %d values", maxValues)
	}
	if r.values == 0 && r.skip == 0 {
		r.begun, r.size = 0, 0
	}
}

// length reads the length of a value. It returns -1 for a null. For any other text that is not a
// number from 0 to limit, it records an error in err and also returns -1.
func (r *replies) length(text string, limit int) int {
	n, err := strconv.Atoi(text)
	if err != nil || n < -1 || n > limit {
		r.err = fmt.Errorf("redis: a reply announces a length of %.20q, which is not one up to %d", text, limit)
		return -1
	}
	return n
}
