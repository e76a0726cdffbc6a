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
// client finds all places taken, Connections closes the connection that has waited longest for a
// request, and the client gets that place. If no connection waits for a request, the client waits.
type Connections struct {
	log    *slog.Logger
	places chan struct{}

	mu       sync.Mutex // guards the fields below
	waiting  list.List  // net.Conns that wait for a request, the longest first
	at       map[net.Conn]*list.Element
	wanted   int       // clients that wait for a place, and for which no connection was closed
	granted  int       // clients that wait for a place, and for which c.changed has closed a connection
	warnedAt time.Time // when it was last logged that clients wait

	closed prometheus.Counter
}

// NewConnections returns a bound of at most n connections. A nil log discards all messages.
func NewConnections(n int, log *slog.Logger) *Connections {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Connections{
		log: log, places: make(chan struct{}, n), at: map[net.Conn]*list.Element{},
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
		gauge("dray_connections", "Open connections of clients, except connections to the admin listener.", func() int { return len(c.places) }),
		gauge("dray_connections_max", "Connections that clients may have at a time.", func() int { return cap(c.places) }),
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
	select {
	case c.places <- struct{}{}:
		return true
	default:
	}
	c.mu.Lock()
	idle := c.idleLocked()
	wants := idle == nil
	if wants {
		defer c.waitsNoLonger()
		c.wanted++
		if now := time.Now(); now.Sub(c.warnedAt) >= time.Minute {
			c.warnedAt = now
			c.log.Warn("all connections are in use, and clients wait; limits.max_connections and the limit of open files set how many there are", "max_connections", cap(c.places))
		}
	}
	c.mu.Unlock()
	c.drop(idle)
	select {
	case c.places <- struct{}{}:
	case <-ended:
		return false
	}
	return true
}

// waitsNoLonger records that a client has stopped waiting for a place. While granted is above 0, it
// subtracts 1 from granted, and not from wanted, because the client has probably got the place of a
// connection that c.changed closed.
func (c *Connections) waitsNoLonger() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.granted > 0 {
		c.granted--
	} else {
		c.wanted--
	}
}

// idleLocked removes from the list the connection that has waited longest for a request, and
// returns that connection. It returns nil if the list is empty. The caller holds mu.
func (c *Connections) idleLocked() net.Conn {
	oldest := c.waiting.Front()
	if oldest == nil {
		return nil
	}
	conn := c.waiting.Remove(oldest).(net.Conn)
	delete(c.at, conn)
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

// changed is the ConnState of a server. It records which connections wait for a request. If a
// connection begins to wait for a request while a client wants a place, changed closes that
// connection. If a connection has ended, changed frees its place.
func (c *Connections) changed(conn net.Conn, state http.ConnState) {
	var idle net.Conn
	c.mu.Lock()
	if e := c.at[conn]; e != nil {
		c.waiting.Remove(e)
		delete(c.at, conn)
	}
	switch {
	case state != http.StateNew && state != http.StateIdle:
	case state == http.StateIdle && c.wanted > 0:
		c.wanted--
		c.granted++
		idle = conn
	default:
		c.at[conn] = c.waiting.PushBack(conn)
	}
	c.mu.Unlock()
	c.drop(idle)
	if state == http.StateClosed || state == http.StateHijacked {
		<-c.places
	}
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
