package fleettest

import (
	"net"
	"sync"
)

// Listener is a listener that can be closed together with all its connections, as happens when a
// process is killed.
type Listener struct {
	net.Listener
	mu    sync.Mutex // guards the fields below
	conns []net.Conn
	dead  bool
}

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead {
		_ = c.Close()
		return nil, net.ErrClosed
	}
	l.conns = append(l.conns, c)
	return c, nil
}

// Kill closes the listener and its connections. Further calls do nothing.
func (l *Listener) Kill() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead {
		return
	}
	l.dead = true
	_ = l.Close()
	for _, c := range l.conns {
		_ = c.Close()
	}
}
