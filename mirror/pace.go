package mirror

import (
	"io"
	"net/http"
	"time"
)

// Bodies have no time limit, since a layer may take an hour over a slow line. What is
// bounded is standing still: a client that neither sends nor takes a byte for the
// Mirror's stall is disconnected, and what it held is free for others.

// sentAtOnce is how many bytes a client has the stall for when the kernel sends a
// file: at the default of 2 minutes, 9 kB/s are enough.
const sentAtOnce = 1 << 20

// pacedBody is a request's body that must keep coming.
type pacedBody struct {
	body  io.ReadCloser
	conn  *http.ResponseController
	stall time.Duration
}

// Read implements io.Reader. It takes the limit off again when the body has ended:
// net/http then watches the connection for its end. A body that breaks off is closed
// while the limit holds: net/http would otherwise wait for the rest of it.
func (b pacedBody) Read(p []byte) (int, error) {
	_ = b.conn.SetReadDeadline(time.Now().Add(b.stall)) // where it cannot be set there is no limit
	n, err := b.body.Read(p)
	switch {
	case err == io.EOF:
		_ = b.conn.SetReadDeadline(time.Time{})
	case err != nil:
		_ = b.body.Close()
	}
	return n, err
}

// body is the request's body.
func (x *exchange) body() io.Reader {
	return pacedBody{x.r.Body, http.NewResponseController(x.w), x.listener.Mirror.stall}
}

// pacedWriter is an answer whose client must keep taking.
type pacedWriter struct {
	w     *response
	conn  *http.ResponseController
	stall time.Duration
}

func (x *exchange) pacedWriter() pacedWriter {
	return pacedWriter{x.w, http.NewResponseController(x.w), x.listener.Mirror.stall}
}

// Write implements io.Writer. It has no ReadFrom, which would bring a small buffer
// and one limit for the whole.
func (p pacedWriter) Write(b []byte) (int, error) {
	_ = p.conn.SetWriteDeadline(time.Now().Add(p.stall))
	return p.w.Write(b)
}

// sendFile sends length bytes of a file, by the kernel where that can.
func (p pacedWriter) sendFile(f io.Reader, length int64) (sent int64, err error) {
	for sent < length && err == nil {
		_ = p.conn.SetWriteDeadline(time.Now().Add(p.stall))
		var n int64
		n, err = p.w.ReadFrom(io.LimitReader(f, min(sentAtOnce, length-sent)))
		sent += n
		if n == 0 && err == nil {
			err = io.ErrUnexpectedEOF
		}
	}
	return sent, err
}

// done takes the limit off for the next request of the connection.
func (p pacedWriter) done() { _ = p.conn.SetWriteDeadline(time.Time{}) }
