package wire

import (
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"time"
)

// Bodies have no time limit, since a layer may take an hour over a slow line. But dray disconnects
// a client that sends and receives nothing for Options.Stall, and frees its resources.

// sentAtOnce is how many bytes of a file the kernel sends under one write deadline. So at the
// default Stall of 2 minutes, a client has to receive at least 9 kB/s.
const sentAtOnce = 1 << 20

// pacedBody is the body of a request, with a read deadline for each read.
type pacedBody struct {
	body  io.ReadCloser
	conn  *http.ResponseController
	stall time.Duration
	w     *Response
}

// Read implements io.Reader. At the end of the body it removes the deadline, because net/http then
// reads on to notice when the client disconnects. If reading fails, Read closes the body while the
// deadline is still set: without a deadline, net/http would wait for the rest of the body.
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

// Passed is the body of a request that is passed on to another process. A goroutine of an HTTP
// client may read it, even while the answer is sent. The reads have the deadlines of
// [Response.Body].
type Passed struct {
	w    *Response
	body io.ReadCloser
	conn *http.ResponseController
	// reading is locked during a read. It guards received.
	reading  sync.Mutex
	received int64

	mu sync.Mutex // guards the fields below
	// begun is set when a read has begun. over is set when the body has been read to its end. gone is
	// set when later reads must fail.
	begun, over, gone bool
	lost              error
}

// Pass returns the body of the request. The caller must call End.
func (w *Response) Pass() *Passed {
	return &Passed{w: w, body: w.r.Body, conn: http.NewResponseController(w)}
}

// errPassedOn ends reads of a body that nobody needs any more.
var errPassedOn = errors.New("the rest of the body is not needed")

// Read implements io.Reader.
func (b *Passed) Read(p []byte) (int, error) {
	b.reading.Lock()
	defer b.reading.Unlock()
	b.mu.Lock()
	if b.gone {
		b.mu.Unlock()
		return 0, errPassedOn
	}
	if !b.begun {
		b.begun = true
		b.w.extendWriteDeadline() // the first read may write "100 Continue"
	}
	_ = b.conn.SetReadDeadline(time.Now().Add(b.w.options.Stall))
	b.mu.Unlock()
	n, err := b.body.Read(p)
	b.received += int64(n)
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case err == io.EOF:
		b.over = true
		_ = b.conn.SetReadDeadline(time.Time{}) // as pacedBody does
	case err != nil && !b.gone:
		b.lost = err
	}
	return n, err
}

// Lost returns the error of reading the body from the client, or nil.
func (b *Passed) Lost() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lost
}

// Close implements io.Closer. An HTTP client closes a body even if it has sent nothing of it. The
// body itself stays open, because another attempt may need it.
func (b *Passed) Close() error { return nil }

// Abandon makes reads fail from now on, and reports whether a read has begun. If no read has begun,
// the whole body is still unread.
func (b *Passed) Abandon() (begun bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.gone = true
	return b.begun
}

// Interrupt makes reads fail from now on, even a read that waits for the client. If the body has
// been read only in part, the connection cannot be used any more.
func (b *Passed) Interrupt() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.gone = true
	if b.begun && !b.over {
		_ = b.conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// Early prepares an answer that may begin before the end of the body. If the request came over
// HTTP/1 and its body has been read only in part, the connection ends with the answer. [Passed.End]
// then gives the client time to get the answer.
func (b *Passed) Early() {
	if b.unread() && b.w.r.ProtoMajor == 1 {
		b.w.Header().Set("Connection", "close")
	}
}

// unread reports whether the body has been read only in part.
func (b *Passed) unread() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.begun && !b.over
}

// lingerWithin bounds the time for reading the rest of a body that is not needed.
const lingerWithin = 5 * time.Second

// linger sends the answer, and reads the bytes that the client still sends, until the client has
// the answer and closes the connection. If bytes remained unread, the connection would be reset,
// and the answer could be lost (RFC 9112, 9.6).
func (b *Passed) linger() {
	if b.conn.Flush() != nil {
		return
	}
	b.mu.Lock()
	b.gone = true
	_ = b.conn.SetReadDeadline(time.Now().Add(lingerWithin)) // also for a read that is under way
	b.mu.Unlock()
	b.reading.Lock()
	defer b.reading.Unlock()
	if _, err := io.Copy(io.Discard, b.body); err == nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.over = true
	}
}

// End interrupts reads. If an answer has begun before the end of the body, End first gives the
// client time to get the answer. It returns when no read is under way.
func (b *Passed) End() {
	if b.w.Started() && !b.w.Broken() && b.unread() && b.w.r.ProtoMajor == 1 {
		b.linger()
	}
	b.Interrupt()
	b.reading.Lock()
	defer b.reading.Unlock()
	b.w.received += b.received
	b.received = 0
	if b.begun && !b.over {
		_ = b.body.Close() // the deadline is exceeded now; without a deadline, net/http would wait for the rest
	}
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

// gatherFrom is the size in bytes from which a write makes more than one TLS record.
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
	// If the deadline cannot be set, there is no limit.
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

// sendStretches sends length bytes. The kernel sends the bytes that are in a readable file.
// sendStretches copies the other bytes.
func (p pacedWriter) sendStretches(body Stretches, length int64) (sent int64, err error) {
	for sent < length && err == nil {
		f, n, failed := body.Stretch(length - sent)
		if failed != nil {
			return sent, failed
		}
		whole := n
		if f != nil {
			n, err = p.sendFile(f, whole)
			passed := body.Passed(n, err)
			if n < whole { // after a whole stretch, the file is not the cause of err, and err stays
				err = passed
			}
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
