package ecrtest

import (
	"context"
	"io"
	"net/http"
)

// recorder counts an answer and shapes it by the plan. Without a plan for the body it keeps
// sendfile possible.
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

// WriteHeader records the status before it leaves.
func (r *recorder) WriteHeader(code int) {
	if !r.wrote {
		r.wrote = true
		r.plan.lie(r.Header())
		r.journal.status(r.entry, code, r.Header())
	}
	r.ResponseWriter.WriteHeader(code)
}

// Write counts p before it leaves, or hands it to the plan.
func (r *recorder) Write(p []byte) (int, error) {
	if !r.wrote {
		r.WriteHeader(http.StatusOK)
	}
	if r.plan.shapes() && r.entry.Method != http.MethodHead {
		return r.shape(p)
	}
	r.journal.moved(r.entry, 0, int64(len(p)))
	return r.ResponseWriter.Write(p)
}

// ReadFrom lets the server send files without copying where nothing shapes them.
func (r *recorder) ReadFrom(src io.Reader) (int64, error) {
	if r.plan.shapes() {
		return io.Copy(writerOnly{r}, src)
	}
	if !r.wrote {
		r.WriteHeader(http.StatusOK)
	}
	n, err := io.Copy(r.ResponseWriter, src)
	r.journal.moved(r.entry, 0, n)
	return n, err
}

type writerOnly struct{ io.Writer }

// Flush sends what is buffered.
func (r *recorder) Flush() { _ = http.NewResponseController(r.ResponseWriter).Flush() }

// Unwrap serves http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// shape sends p in pieces that end where the plan has something to do.
func (r *recorder) shape(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		if r.sent == r.plan.cutAt {
			r.Flush()
			r.abort() // the fault: the connection dies in the middle of the answer
		}
		if r.sent == r.plan.stallAt {
			r.Flush()
			linger(r.ctx, r.plan.stalled)
			panic(http.ErrAbortHandler) // the fault is over, and so is the answer
		}
		if r.sent == r.plan.holdAt {
			r.Flush()
			linger(r.ctx, r.plan.held)
			r.plan.holdAt = -1
		}
		piece := p[done:]
		piece = piece[:r.plan.room(r.sent, len(piece))]
		piece = r.plan.corrupted(piece, r.sent)
		if err := r.plan.pacers.wait(r.ctx, len(piece)); err != nil {
			return done, err
		}
		r.journal.moved(r.entry, 0, int64(len(piece)))
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

// append sends bytes that nobody announced.
func (r *recorder) append(n int64) {
	if n > 0 {
		r.Flush() // what fits into one buffer would get its length announced by net/http
	}
	for ; n > 0 && r.entry.Method != http.MethodHead; n-- {
		if _, err := r.Write([]byte{'+'}); err != nil {
			return // the client knows better
		}
	}
}

// abort ends the connection of an answer.
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
