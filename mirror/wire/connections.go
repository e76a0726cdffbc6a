package wire

import (
	"container/list"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Connections bounds the connections of the servers that share it, so that file descriptors are
// left for upstreams, for the disk and for other servers. Each connection takes a place. If a
// client finds all places taken, it waits for one, and Connections closes the connection that has
// been idle longest. A connection is idle while it waits for its second or a later request.
type Connections struct {
	log *slog.Logger
	max int

	mu       sync.Mutex // guards the fields below
	open     int        // places taken; below max only if no client waits
	clients  list.List  // chan struct{}, closed when the client gets a place; the first client first
	idle     list.List  // net.Conn, idle for the longest time first
	at       map[net.Conn]*list.Element
	closing  map[net.Conn]struct{} // being closed by drop; they still have their places
	warnedAt time.Time             // when it was last logged that clients wait

	closed prometheus.Counter
}

// NewConnections returns a bound of at most n connections. A nil log discards all messages.
func NewConnections(n int, log *slog.Logger) *Connections {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Connections{
		log: log, max: n, at: map[net.Conn]*list.Element{}, closing: map[net.Conn]struct{}{},
		closed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "dray_connections_closed_total",
			Help: "Idle connections that dray closed because dray_connections_max was reached and another client came.",
		}),
	}
}

// Collectors returns the metrics of the connections.
func (c *Connections) Collectors() []prometheus.Collector {
	gauge := func(name, help string, value func() int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(value()) })
	}
	return []prometheus.Collector{
		c.closed,
		gauge("dray_connections", "Open connections of clients, except connections to the admin listener.", func() int {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.open
		}),
		gauge("dray_connections_max", "Connections that clients may have at a time.", func() int { return c.max }),
	}
}

// boundedListener takes a place for each connection. Its Close ends an Accept that waits for a
// place.
type boundedListener struct {
	net.Listener
	bound *Connections
	end   func()
	ended <-chan struct{}
}

// listen returns a listener whose connections take places. The server of the connections must have
// c.changed as its ConnState.
func (c *Connections) listen(ln net.Listener) net.Listener {
	ended := make(chan struct{})
	return boundedListener{ln, c, sync.OnceFunc(func() { close(ended) }), ended}
}

// Accept implements net.Listener.
func (l boundedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if !l.bound.take(l.ended) {
		_ = conn.Close()
		return nil, net.ErrClosed
	}
	return conn, nil
}

// Close implements net.Listener.
func (l boundedListener) Close() error {
	l.end()
	return l.Listener.Close()
}

// take waits for a place. It returns false if ended is closed before a place is free.
func (c *Connections) take(ended <-chan struct{}) bool {
	c.mu.Lock()
	if c.open < c.max {
		c.open++
		c.mu.Unlock()
		return true
	}
	place := make(chan struct{})
	client := c.clients.PushBack(place)
	idle := c.idleLocked()
	if now := time.Now(); len(c.closing) < c.clients.Len() && now.Sub(c.warnedAt) >= time.Minute {
		c.warnedAt = now
		c.log.Warn("all connections are in use, and clients wait; limits.max_connections and the limit of open files set how many there are", "max_connections", c.max)
	}
	c.mu.Unlock()
	c.drop(idle)
	select {
	case <-place:
		return true
	case <-ended:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-place: // meanwhile
		c.freeLocked()
	default:
		c.clients.Remove(client)
	}
	return false
}

// freeLocked gives up a place: the client that has waited longest gets it. If no client waits, the
// place is free. The caller holds mu.
func (c *Connections) freeLocked() {
	if client := c.clients.Front(); client != nil {
		close(c.clients.Remove(client).(chan struct{}))
	} else {
		c.open--
	}
}

// idleLocked moves the connection that has been idle longest to closing, and returns it. The caller
// then closes it for a waiting client, with drop. idleLocked returns nil if no connection is idle,
// or if as many connections are closing as clients wait. The caller holds mu.
func (c *Connections) idleLocked() net.Conn {
	oldest := c.idle.Front()
	if oldest == nil || len(c.closing) >= c.clients.Len() {
		return nil
	}
	conn := c.idle.Remove(oldest).(net.Conn)
	delete(c.at, conn)
	c.closing[conn] = struct{}{}
	return conn
}

// drop closes a connection that has no request. The server then calls c.changed, which frees the
// place of the connection.
func (c *Connections) drop(conn net.Conn) {
	if conn == nil {
		return
	}
	c.closed.Inc()
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn() // the Close of TLS would first wait to send an alert
	}
	_ = conn.Close()
}

// changed is the ConnState of a server. It records which connections are idle, and frees the place
// of a connection that has ended. A new connection is not idle: its client would take the closing
// for a failure of its first request. If a request comes just before drop closes a connection, the
// request may run for long, and the connection keeps its place meanwhile. So changed no longer
// counts this connection as closing, and another one is closed for the waiting client.
func (c *Connections) changed(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	delete(c.closing, conn)
	if e := c.at[conn]; e != nil {
		c.idle.Remove(e)
		delete(c.at, conn)
	}
	switch state {
	case http.StateIdle:
		c.at[conn] = c.idle.PushBack(conn)
	case http.StateClosed, http.StateHijacked:
		c.freeLocked()
	}
	idle := c.idleLocked()
	c.mu.Unlock()
	c.drop(idle)
}

// OpenFiles returns how many file descriptors the process may have, but at most 1<<20. At the start
// of the process, Go has raised this limit to the most that the system allows.
func OpenFiles() (int, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, err
	}
	return int(min(limit.Cur, 1<<20)), nil
}
