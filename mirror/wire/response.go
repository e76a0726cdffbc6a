package wire

import (
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// Options say how the body of an answer is sent.
type Options struct {
	// Stall is the time after which dray disconnects a client that neither sends nor receives a byte.
	Stall time.Duration
	// CopyFiles says that files are copied through this process, and not sent by sendfile.
	CopyFiles bool
}

// Response is the answer to one request. It records the status and the bytes sent. It implements
// io.ReaderFrom, so that net/http can still use sendfile. It implements Unwrap for
// http.ResponseController.
type Response struct {
	http.ResponseWriter
	r       *http.Request
	options Options
	status  int
	sent    int64
	broken  bool
	// received counts the bytes of the request's body that were read.
	received int64
	// sentTo and receivedTo, if not nil, count the same bytes for other goroutines.
	sentTo, receivedTo *atomic.Int64
	// extendedAt is when the write deadline was last extended.
	extendedAt time.Time
}

// NewResponse returns the answer to a request. It is a value, so that the caller can embed it
// without an allocation.
func NewResponse(w http.ResponseWriter, r *http.Request, o Options) Response {
	return Response{ResponseWriter: w, r: r, options: o}
}

// Started reports whether the answer has begun.
func (w *Response) Started() bool { return w.status != 0 }

// Status returns the status that was sent, or 0 before that.
func (w *Response) Status() int { return w.status }

// Sent returns the number of body bytes that were sent.
func (w *Response) Sent() int64 { return w.sent }

// Received returns the number of bytes of the request's body that were read.
func (w *Response) Received() int64 { return w.received }

// CountSent sets a second counter for the bytes that the Response sends from now on. Other
// goroutines may read this counter. If counter is nil, there is no second counter.
func (w *Response) CountSent(counter *atomic.Int64) { w.sentTo = counter }

// CountReceived does the same as CountSent, for the bytes of the request's body that are read.
func (w *Response) CountReceived(to *atomic.Int64) { w.receivedTo = to }

func (w *Response) countSent(n int64) {
	w.sent += n
	if w.sentTo != nil {
		w.sentTo.Add(n)
	}
}

func (w *Response) countReceived(n int64) {
	w.received += n
	if w.receivedTo != nil {
		w.receivedTo.Add(n)
	}
}

// Break marks the answer as impossible to complete.
func (w *Response) Break() { w.broken = true }

// Broken reports whether the answer cannot be completed. The connection then has to be cut, because
// nothing else tells the client.
func (w *Response) Broken() bool { return w.broken }

// begin records the status of an answer that has not started yet.
func (w *Response) begin(status int) {
	if w.status == 0 {
		w.status = status
		w.extendWriteDeadline()
	}
}

// WriteHeader implements http.ResponseWriter.
func (w *Response) WriteHeader(status int) {
	if status >= 200 {
		w.begin(status)
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *Response) Write(p []byte) (int, error) {
	w.begin(http.StatusOK)
	n, err := w.ResponseWriter.Write(p)
	w.countSent(int64(n))
	return n, err
}

// ReadFrom implements io.ReaderFrom.
func (w *Response) ReadFrom(r io.Reader) (int64, error) {
	w.begin(http.StatusOK)
	n, err := io.Copy(w.ResponseWriter, r)
	w.countSent(n)
	return n, err
}

// Unwrap serves http.ResponseController.
func (w *Response) Unwrap() http.ResponseWriter { return w.ResponseWriter }
