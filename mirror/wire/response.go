package wire

import (
	"io"
	"net/http"
	"time"
)

// Options says how an answer leaves.
type Options struct {
	// Stall is how long the client may stand still.
	Stall time.Duration
	// CopyFiles sends files by copying them through this process, and not by the kernel.
	CopyFiles bool
}

// Response is the answer to one request. It remembers what was sent. It keeps io.ReaderFrom, and
// with it sendfile, and Unwrap for http.ResponseController.
type Response struct {
	http.ResponseWriter
	r       *http.Request
	options Options
	status  int
	sent    int64
	broken  bool
	// paced is when the client was last given its time.
	paced time.Time
}

// NewResponse returns the answer to a request, to be held by value: it costs no allocation of its
// own.
func NewResponse(w http.ResponseWriter, r *http.Request, o Options) Response {
	return Response{ResponseWriter: w, r: r, options: o}
}

// Started reports whether the answer has begun.
func (w *Response) Started() bool { return w.status != 0 }

// Status returns the status that was sent, or 0 before that.
func (w *Response) Status() int { return w.status }

// Sent returns how many bytes of a body were sent.
func (w *Response) Sent() int64 { return w.sent }

// Break says that the answer cannot be completed.
func (w *Response) Break() { w.broken = true }

// Broken reports whether the answer was begun and cannot be completed, so that only a cut
// connection tells the client.
func (w *Response) Broken() bool { return w.broken }

// begin is the start of an answer, where it has not begun.
func (w *Response) begin(status int) {
	if w.status == 0 {
		w.status = status
		w.patient()
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
	w.sent += int64(n)
	return n, err
}

// ReadFrom implements io.ReaderFrom.
func (w *Response) ReadFrom(r io.Reader) (int64, error) {
	w.begin(http.StatusOK)
	n, err := io.Copy(w.ResponseWriter, r)
	w.sent += n
	return n, err
}

// Unwrap serves http.ResponseController.
func (w *Response) Unwrap() http.ResponseWriter { return w.ResponseWriter }
