package logbuffer

import (
	"io"
	"log/slog"
	"sync"
	"time"
)

// A logBuffer writes its buffer out when the buffer has maxBuffered bytes, and at the latest
// flushDelay after the first byte.
const (
	maxBuffered = 32 << 10
	flushDelay  = 100 * time.Millisecond
)

// logBuffer writes the log. A hit in the cache can cost less than the system call that writes its
// line in the access log. So a [bufferedLog] only adds its lines to the buffer. In contrast,
// [logBuffer.Write] writes at once: first the lines in the buffer, and then its own line. If the
// process is killed, the lines in the buffer are lost.
type logBuffer struct {
	to io.Writer

	writing sync.Mutex // held during each write to the writer l.to; locked before mu

	mu      sync.Mutex // guards the fields below
	pending []byte
	spare   []byte
	timer   *time.Timer
	closed  bool
}

// Write implements io.Writer. It writes the buffer and then p.
func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	l.pending = append(l.pending, p...)
	l.mu.Unlock()
	return len(p), l.flush()
}

// flush writes the buffer.
func (l *logBuffer) flush() error {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.Lock()
	pending := l.pending
	l.pending, l.spare = l.spare, nil
	l.mu.Unlock()
	var err error
	if len(pending) > 0 {
		_, err = l.to.Write(pending)
	}
	if cap(pending) <= 2*maxBuffered {
		l.mu.Lock()
		l.spare = pending[:0]
		l.mu.Unlock()
	}
	return err
}

// bufferedLog is a logBuffer whose Write may leave its bytes in the buffer.
type bufferedLog struct{ *logBuffer }

// Write implements io.Writer. It writes out the buffer only if the buffer is full, or if the log
// was closed.
func (l bufferedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	if len(l.pending) == 0 && !l.closed {
		l.arm()
	}
	l.pending = append(l.pending, p...)
	full := len(l.pending) >= maxBuffered || l.closed
	l.mu.Unlock()
	if full {
		return len(p), l.flush()
	}
	return len(p), nil
}

func (l *logBuffer) arm() {
	if l.timer == nil {
		l.timer = time.AfterFunc(flushDelay, func() { _ = l.flush() }) // no caller waits for the error
		return
	}
	l.timer.Reset(flushDelay)
}

// close writes the buffer. Later writes are not buffered.
func (l *logBuffer) close() {
	l.mu.Lock()
	l.closed = true
	if l.timer != nil {
		l.timer.Stop()
	}
	l.mu.Unlock()
	_ = l.flush() // there is no other place to report an error of the log
}

// logHandler is the handler of the program's log, which writes each line at once. Its field
// buffered is the handler for lines that may be buffered.
type logHandler struct {
	slog.Handler
	buffered slog.Handler
}

// New returns the handler of a log that is written to w, and a function that writes the buffered
// lines and ends the buffering. newHandler makes a handler that writes lines to its argument. Use
// [Buffered] for lines that may be buffered.
func New(w io.Writer, newHandler func(io.Writer) slog.Handler) (h slog.Handler, flush func()) {
	to := &logBuffer{to: w}
	return logHandler{newHandler(to), newHandler(bufferedLog{to})}, to.close
}

// Buffered returns the handler of the logger log for lines that may be buffered. If log has no such
// handler, Buffered returns log.Handler().
func Buffered(log *slog.Logger) slog.Handler {
	if h, ok := log.Handler().(logHandler); ok {
		return h.buffered
	}
	return log.Handler()
}
