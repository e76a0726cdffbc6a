package wire

import (
	"io"
	"net/http"
	"os"
	"time"
)

// Bodies have no time limit, since a layer may take an hour over a slow line. But a client that
// neither sends nor takes a byte for Options.Stall is disconnected, and its resources are freed.

// sentAtOnce is how many bytes of a file the kernel sends under one write deadline. At the default
// stall of 2 minutes, a client has to take 9 kB/s.
const sentAtOnce = 1 << 20

// pacedBody is the body of a request, with a read deadline for each read.
type pacedBody struct {
	body  io.ReadCloser
	conn  *http.ResponseController
	stall time.Duration
	w     *Response
}

// Read implements io.Reader. At the end of the body it removes the deadline, because net/http then
// reads on to notice when the client disconnects. If reading fails, it closes the body while the
// deadline is still set. Otherwise net/http would wait for the rest of the body.
func (b pacedBody) Read(p []byte) (int, error) {
	_ = b.conn.SetReadDeadline(time.Now().Add(b.stall)) // if it cannot be set, there is no limit
	n, err := b.body.Read(p)
	b.w.countReceived(int64(n))
	switch {
	case err == io.EOF:
		_ = b.conn.SetReadDeadline(time.Time{})
	case err != nil:
		_ = b.body.Close()
	}
	return n, err
}

// Body returns the body of the request. It extends the write deadline too, because the first read
// may write "100 Continue".
func (w *Response) Body() io.Reader {
	w.extendWriteDeadline()
	return pacedBody{w.r.Body, http.NewResponseController(w), w.options.Stall, w}
}

// Receive copies the body of the request to dst. err is the error of the body or of dst. lost is
// the error of the body alone, so that the caller can tell which of them failed.
func (w *Response) Receive(dst io.Writer) (lost, err error) {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	src := &errorRecorder{r: w.Body()}
	_, err = io.CopyBuffer(dst, src, *buf)
	return src.err, err
}

// errorRecorder records the error of a source, other than io.EOF.
type errorRecorder struct {
	r   io.Reader
	err error
}

func (k *errorRecorder) Read(p []byte) (int, error) {
	n, err := k.r.Read(p)
	if err != nil && err != io.EOF {
		k.err = err
	}
	return n, err
}

// gatherFrom is the size from which a write makes more than one TLS record.
const gatherFrom = 16<<10 + 1

// extendWriteDeadline gives the client Options.Stall for the next write. To save calls, it does
// nothing if it set the deadline less than a sixteenth of Stall ago. The deadline stays when the
// handler returns, because net/http has yet to write the last bytes. The next answer on the
// connection sets its own deadline.
func (w *Response) extendWriteDeadline() {
	now := time.Now()
	if now.Sub(w.extendedAt) <= w.options.Stall/16 {
		return
	}
	w.extendedAt = now
	// If it cannot be set, there is no limit.
	_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(now.Add(w.options.Stall))
}

// pacedWriter writes the body of an answer with a deadline for each write.
type pacedWriter struct {
	w      *Response
	gather gatherer // nil if the connection has none
	secure bool
}

func (w *Response) pacedWriter() pacedWriter {
	p := pacedWriter{w: w, secure: w.r.TLS != nil}
	p.gather, _ = w.r.Context().Value(gathererKey{}).(gatherer)
	return p
}

// hold gathers writes until release is called. release writes the gathered bytes. If that fails and
// err is nil, release sets err.
func (p pacedWriter) hold(err *error) (release func()) {
	p.gather.Hold()
	return func() {
		if left := p.gather.Release(); *err == nil {
			*err = left
		}
	}
}

// Write implements io.Writer. pacedWriter has no ReadFrom, which would use a small buffer and one
// deadline for the whole body.
func (p pacedWriter) Write(b []byte) (n int, err error) {
	p.w.extendWriteDeadline()
	if p.gather != nil && p.secure && len(b) >= gatherFrom {
		defer p.hold(&err)()
	}
	return p.w.Write(b)
}

// sendFile sends length bytes of a file, by the kernel if possible.
func (p pacedWriter) sendFile(f *os.File, length int64) (sent int64, err error) {
	if p.gather != nil {
		defer p.hold(&err)()
		// Without this flush, net/http reads the first 512 bytes of the file to send them with the
		// header.
		_ = http.NewResponseController(p.w).Flush() // an error would occur again below
	}
	for sent < length && err == nil {
		p.w.extendWriteDeadline()
		var n int64
		n, err = p.w.ReadFrom(io.LimitReader(f, min(sentAtOnce, length-sent)))
		sent += n
		if n == 0 && err == nil {
			err = io.ErrUnexpectedEOF
		}
	}
	return sent, err
}

// sendStretches sends length bytes. The kernel sends the bytes that are in a readable file. The
// other bytes are copied.
func (p pacedWriter) sendStretches(body Stretches, length int64) (sent int64, err error) {
	for sent < length && err == nil {
		f, n, failed := body.Stretch(length - sent)
		if failed != nil {
			return sent, failed
		}
		whole := n
		if f != nil {
			n, err = p.sendFile(f, whole)
			err = body.Passed(n, err)
			sent += n
		}
		if f == nil || n < whole && err == nil {
			n, err = p.copySome(body, length-sent)
			sent += n
		}
	}
	return sent, err
}

// copySome copies the bytes of one read, at most n, and returns how many it sent.
func (p pacedWriter) copySome(body io.Reader, n int64) (int64, error) {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	got, err := body.Read((*buf)[:min(n, int64(len(*buf)))])
	if got == 0 {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, err
	}
	put, failed := p.Write((*buf)[:got])
	if failed == nil && err != io.EOF {
		failed = err
	}
	return int64(put), failed
}
