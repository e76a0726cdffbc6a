package wire

import (
	"io"
	"net/http"
	"os"
	"time"
)

// Bodies have no time limit, since a layer may take an hour over a slow line. What is
// bounded is standing still: a client that neither sends nor takes a byte for the
// stall is disconnected, and what it held is free for others.

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

// Body returns the body of the request. Its first read may ask the client for it ("100 Continue"),
// which is written, too.
func (w *Response) Body() io.Reader {
	w.patient()
	return pacedBody{w.r.Body, http.NewResponseController(w), w.options.Stall}
}

// Receive copies the body of the request to dst. lost is what failed of the body, to tell it from
// what failed of dst; err is either.
func (w *Response) Receive(dst io.Writer) (lost, err error) {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	src := &errorRecorder{r: w.Body()}
	_, err = io.CopyBuffer(dst, src, *buf)
	return src.err, err
}

// errorRecorder remembers a failure of the source, to tell it from one of the sink.
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

// gatherFrom is the size of a write that makes more than one record.
const gatherFrom = 16<<10 + 1

// patient gives the client the stall for what is written next, from now or from a moment before.
// The limit stays when the answer has been written, since net/http hands the last of it to the
// connection afterwards. The next answer has its own.
func (w *Response) patient() {
	now := time.Now()
	if now.Sub(w.paced) <= w.options.Stall/16 {
		return
	}
	w.paced = now
	// Where it cannot be set there is no limit.
	_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(now.Add(w.options.Stall))
}

// pacedWriter is an answer whose client must keep taking.
type pacedWriter struct {
	w      *Response
	gather gatherer // nil: none
	secure bool
}

func (w *Response) pacedWriter() pacedWriter {
	p := pacedWriter{w: w, secure: w.r.TLS != nil}
	p.gather, _ = w.r.Context().Value(gathererKey{}).(gatherer)
	return p
}

// hold gathers what is written until release is called, which sets err where that is nil and what
// was gathered cannot be written.
func (p pacedWriter) hold(err *error) (release func()) {
	p.gather.Hold()
	return func() {
		if left := p.gather.Release(); *err == nil {
			*err = left
		}
	}
}

// Write implements io.Writer. It has no ReadFrom, which would bring a small buffer
// and one limit for the whole.
func (p pacedWriter) Write(b []byte) (n int, err error) {
	p.w.patient()
	if p.gather != nil && p.secure && len(b) >= gatherFrom {
		defer p.hold(&err)()
	}
	return p.w.Write(b)
}

// sendFile sends length bytes of a file, by the kernel where that can.
func (p pacedWriter) sendFile(f *os.File, length int64) (sent int64, err error) {
	if p.gather != nil {
		defer p.hold(&err)()
	}
	for sent < length && err == nil {
		p.w.patient()
		var n int64
		n, err = p.w.ReadFrom(io.LimitReader(f, min(sentAtOnce, length-sent)))
		sent += n
		if n == 0 && err == nil {
			err = io.ErrUnexpectedEOF
		}
	}
	return sent, err
}

// sendArriving sends length bytes, by the kernel as far as they are in a file.
func (p pacedWriter) sendArriving(body Arriving, length int64) (sent int64, err error) {
	for sent < length && err == nil {
		var f *os.File
		var n int64
		switch f, n, err = body.Stretch(min(sentAtOnce, length-sent)); {
		case err != nil:
			return sent, err
		case f != nil:
			n, err = p.sendFile(f, n)
		default:
			n, err = p.copySome(body, length-sent)
		}
		sent += n
	}
	return sent, err
}

// copySome copies what one read gives, and at most n bytes.
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
