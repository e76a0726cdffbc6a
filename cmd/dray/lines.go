package main

import (
	"io"
	"log/slog"
	"sync"
	"time"
)

// The bounds of what is held back of a log.
const (
	linesBytes = 32 << 10
	linesWait  = 100 * time.Millisecond
)

// lines is a log to which many lines are written that are worth nothing alone, such as those of
// pulls: a system call for each would cost more than many a request. lateLines holds them back for
// a moment, lines does not, and both keep the order. Only what kills the program takes with it what
// is held back.
type lines struct {
	to io.Writer

	writing sync.Mutex // guards to, and is taken before mu

	mu     sync.Mutex // guards below
	held   []byte
	spare  []byte
	timer  *time.Timer
	closed bool
}

// Write implements io.Writer: everything that was held back, and then p.
func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	l.held = append(l.held, p...)
	l.mu.Unlock()
	return len(p), l.flush()
}

// flush writes what is held back.
func (l *lines) flush() error {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.Lock()
	held := l.held
	l.held, l.spare = l.spare, nil
	l.mu.Unlock()
	var err error
	if len(held) > 0 {
		_, err = l.to.Write(held)
	}
	if cap(held) <= 2*linesBytes {
		l.mu.Lock()
		l.spare = held[:0]
		l.mu.Unlock()
	}
	return err
}

// lateLines is the side of lines that holds back.
type lateLines struct{ *lines }

// Write implements io.Writer. It waits only where more is held back than may be.
func (l lateLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	if len(l.held) == 0 && !l.closed {
		l.arm()
	}
	l.held = append(l.held, p...)
	full := len(l.held) >= linesBytes || l.closed
	l.mu.Unlock()
	if full {
		return len(p), l.flush()
	}
	return len(p), nil
}

func (l *lines) arm() {
	if l.timer == nil {
		l.timer = time.AfterFunc(linesWait, func() { _ = l.flush() }) // nobody is left to be told
		return
	}
	l.timer.Reset(linesWait)
}

// close writes what is held back, and from now on holds nothing back.
func (l *lines) close() {
	l.mu.Lock()
	l.closed = true
	if l.timer != nil {
		l.timer.Stop()
	}
	l.mu.Unlock()
	_ = l.flush() // there is nowhere to say it
}

// logHandler is the program's log. What goes to later may be written a moment after it.
type logHandler struct {
	slog.Handler
	later slog.Handler
}

// laterOf is where lines go that may be late.
func laterOf(log *slog.Logger) slog.Handler {
	if h, ok := log.Handler().(logHandler); ok {
		return h.later
	}
	return log.Handler()
}
