package e2e

import (
	"net"
	"sync"
	"testing"
)

// gate forwards connections from an address to another one. While it is shut, it takes what comes
// and passes nothing on, as a network does that drops packets. Nobody sees an error.
type gate struct {
	addr, to string
	listener net.Listener
	running  sync.WaitGroup

	mu     sync.Mutex // guards the fields below
	moved  *sync.Cond
	shut   bool
	closed bool
	conns  map[*gated]struct{}
}

// gated is a connection through a gate, with its other half.
type gated struct {
	in, out net.Conn
	stuck   bool // whatever the gate is
}

func newGate(t testing.TB, addr, to string) *gate {
	t.Helper()
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{addr: addr, to: to, listener: listener, conns: map[*gated]struct{}{}}
	g.moved = sync.NewCond(&g.mu)
	g.running.Go(g.accept)
	t.Cleanup(g.close)
	return g
}

func (g *gate) accept() {
	for {
		in, err := g.listener.Accept()
		if err != nil {
			return
		}
		g.running.Go(func() { g.serve(&gated{in: in}) })
	}
}

func (g *gate) serve(c *gated) {
	defer c.in.Close()
	if !g.pass(c) {
		return
	}
	out, err := net.Dial("tcp", g.to)
	if err != nil {
		return
	}
	defer out.Close()
	c.out = out
	g.mu.Lock()
	g.conns[c] = struct{}{}
	closed := g.closed
	g.mu.Unlock()
	if closed {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { g.copy(c, c.out, c.in) })
	both.Go(func() { g.copy(c, c.in, c.out) })
	both.Wait()
	g.mu.Lock()
	delete(g.conns, c)
	g.mu.Unlock()
}

// copy passes bytes on until either side ends. Then it ends both.
func (g *gate) copy(c *gated, to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if !g.pass(c) || n > 0 && !written(to, buf[:n]) || err != nil {
			return
		}
	}
}

func written(to net.Conn, p []byte) bool {
	_, err := to.Write(p)
	return err == nil
}

// pass waits while the gate is shut or the connection is stuck. It returns false if the gate is
// closed for good.
func (g *gate) pass(c *gated) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for (g.shut || c.stuck) && !g.closed {
		g.moved.Wait()
	}
	return !g.closed
}

// swallow shuts the gate or opens it again.
func (g *gate) swallow(shut bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = shut
	g.moved.Broadcast()
}

// stick shuts the gate for the connections that there are, for good. New ones pass.
func (g *gate) stick() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for c := range g.conns {
		c.stuck = true
	}
}

// drop closes the connections that are stuck.
func (g *gate) drop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for c := range g.conns {
		if c.stuck {
			c.stuck = false
			_ = c.in.Close()
			_ = c.out.Close()
		}
	}
	g.moved.Broadcast()
}

// close ends all connections.
func (g *gate) close() {
	_ = g.listener.Close()
	g.mu.Lock()
	g.closed = true
	for c := range g.conns {
		_ = c.in.Close()
		_ = c.out.Close()
	}
	g.moved.Broadcast()
	g.mu.Unlock()
	g.running.Wait()
}
