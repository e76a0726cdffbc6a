package ecrtest

import (
	"context"
	"io"
	"net/http"
)

// recorder records an answer in the journal, and changes the answer as the plan of its request says
// (see plan). If the plan neither changes nor paces the body, net/http can still use sendfile.
type recorder struct {
	http.ResponseWriter
	ctx     context.Context
	entry   *Entry
	journal *journal
	plan    *plan
	wrote   bool
	sent    int64
}

var (
	_ io.ReaderFrom = (*recorder)(nil)
	_ http.Flusher  = (*recorder)(nil)
)

// WriteHeader records the status before it is sent.
func (r *recorder) WriteHeader(code int) {
	if !r.wrote {
		r.wrote = true
		r.plan.overrideHeader(r.Header())
		r.journal.status(r.entry, code, r.Header())
	}
	r.ResponseWriter.WriteHeader(code)
}

// Write counts the bytes of p, and then sends them. If the plan changes or paces the body, Write
// leaves the counting and sending to the method shape.
func (r *recorder) Write(p []byte) (int, error) {
	if !r.wrote {
		r.WriteHeader(http.StatusOK)
	}
	if r.plan.shapes() && r.entry.Method != http.MethodHead {
		return r.shape(p)
	}
	r.journal.addBytes(r.entry, 0, int64(len(p)))
	return r.ResponseWriter.Write(p)
}

// ReadFrom lets the server send files without copying, if the plan neither changes nor paces the
// body.
func (r *recorder) ReadFrom(src io.Reader) (int64, error) {
	if r.plan.shapes() {
		return io.Copy(writerOnly{r}, src)
	}
	if !r.wrote {
		r.WriteHeader(http.StatusOK)
	}
	n, err := io.Copy(r.ResponseWriter, src)
	r.journal.addBytes(r.entry, 0, n)
	return n, err
}

type writerOnly struct{ io.Writer }

// Flush sends buffered bytes.
func (r *recorder) Flush() { _ = http.NewResponseController(r.ResponseWriter).Flush() }

// Unwrap returns the underlying writer, for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// shape sends p in pieces. It cuts, stalls or holds the answer at the positions that the plan has
// for that, and corrupts and paces the pieces as the plan says.
func (r *recorder) shape(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		if r.sent == r.plan.cutAt {
			r.Flush()
			r.abort() // the fault closes the connection during the answer
		}
		if r.sent == r.plan.stallAt {
			r.Flush()
			waitUntil(r.ctx, r.plan.stalled)
			panic(http.ErrAbortHandler) // the fault was removed or the client left, so the answer ends
		}
		if r.sent == r.plan.holdAt {
			r.Flush()
			waitUntil(r.ctx, r.plan.held)
			r.plan.holdAt = -1
		}
		piece := p[done:]
		piece = piece[:r.plan.maxPiece(r.sent, len(piece))]
		piece = r.plan.corrupted(piece, r.sent)
		if err := r.plan.pacers.wait(r.ctx, len(piece)); err != nil {
			return done, err
		}
		r.journal.addBytes(r.entry, 0, int64(len(piece)))
		n, err := r.ResponseWriter.Write(piece)
		done += n
		r.sent += int64(n)
		if err != nil {
			return done, err
		}
		if r.plan.paced() {
			r.Flush()
		}
	}
	return done, nil
}

// append sends n more bytes after the body of an answer.
func (r *recorder) append(n int64) {
	if n > 0 {
		// Flush sends the header now. Otherwise, if the whole body fits into one buffer, net/http
		// could add a Content-Length that includes the n bytes.
		r.Flush()
	}
	for ; n > 0 && r.entry.Method != http.MethodHead; n-- {
		if _, err := r.Write([]byte{'+'}); err != nil {
			return // the client has closed the connection
		}
	}
}

// abort closes the connection of an answer. If the plan asks for a reset, and the connection has no
// TLS, the client gets a TCP reset.
func (r *recorder) abort() {
	if !r.plan.reset {
		panic(http.ErrAbortHandler)
	}
	conn, _, err := http.NewResponseController(r.ResponseWriter).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if c, ok := conn.(interface{ SetLinger(int) error }); ok { // not TLS
		_ = c.SetLinger(0)
	}
	_ = conn.Close()
	panic(http.ErrAbortHandler)
}
