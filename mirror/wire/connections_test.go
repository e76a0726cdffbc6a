package wire

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// caller is a client with one connection.
type caller struct {
	*testing.T
	net.Conn
	answers *bufio.Reader
}

func call(t *testing.T, address string, secure bool) *caller {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if secure {
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
	}
	return &caller{t, conn, bufio.NewReader(conn)}
}

func (c *caller) ask(path string) {
	c.Helper()
	if _, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		c.Fatal(err)
	}
}

// answered waits for an answer. It returns false if the connection is closed before there is one.
func (c *caller) answered() bool {
	resp, err := http.ReadResponse(c.answers, nil)
	return err == nil && resp.Body.Close() == nil
}

// A client that finds all places taken gets that of the connection that was idle longest. Requests
// under way keep theirs, and the client then waits until one ends.
func TestConnections(t *testing.T) {
	certificate, key := writeCertificate(t, t.TempDir(), 1, time.Now())
	for _, secure := range []bool{false, true} {
		began, finish := make(chan struct{}), make(chan struct{})
		bound := NewConnections(2, nil)
		o := ServerOptions{Connections: bound, Splice: true, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/slow" {
				began <- struct{}{}
				<-finish
			}
		})}
		if secure {
			o.Certificate, o.PrivateKey = certificate, key
		}
		_, address := startServer(t, o)
		first, second := call(t, address, secure), call(t, address, secure)
		for _, c := range []*caller{first, second} {
			c.ask("/")
			if !c.answered() {
				t.Fatal("no answer while there are places")
			}
		}
		second.ask("/slow")
		<-began
		third := call(t, address, secure)
		third.ask("/slow")
		<-began
		if first.answered() {
			t.Error("the connection that was idle longest is still open")
		}
		fourth := call(t, address, secure)
		waits := make(chan bool)
		go func() {
			fourth.ask("/")
			waits <- fourth.answered()
		}()
		select {
		case <-waits:
			t.Error("a client got a place that a request has")
		case <-time.After(50 * time.Millisecond):
		}
		finish <- struct{}{}
		if !<-waits {
			t.Error("a client that waited got no place")
		}
		close(finish)
		if !second.answered() && !third.answered() {
			t.Error("both requests under way lost their connection")
		}
	}
}

// A server that stops does not wait for a place.
func TestConnectionsEnd(t *testing.T) {
	bound, ended := NewConnections(1, nil), make(chan struct{})
	if !bound.take(ended) {
		t.Error("there is a place")
	}
	close(ended)
	if bound.take(ended) {
		t.Error("a place was taken twice")
	}
}

// Each of two clients that wait gets the place of a connection that becomes idle, and none is
// closed for a client that waits no longer.
func TestConnectionsForEachThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bound, ended := NewConnections(3, nil), make(chan struct{})
		var busy []net.Conn
		for range 3 {
			conn, _ := net.Pipe()
			busy = append(busy, conn)
			bound.take(ended)
			bound.changed(conn, http.StateActive)
		}
		closed := func(conn net.Conn) bool {
			bound.changed(conn, http.StateIdle)
			err := conn.SetDeadline(time.Time{})
			if err != nil {
				bound.changed(conn, http.StateClosed)
			}
			synctest.Wait()
			return err != nil
		}
		var got atomic.Int32
		for range 2 {
			go func() {
				if bound.take(ended) {
					got.Add(1)
				}
			}()
		}
		synctest.Wait()
		for i := range 2 {
			if !closed(busy[i]) || int(got.Load()) != i+1 {
				t.Errorf("%d clients got a place after %d connections became idle", got.Load(), i+1)
			}
		}
		last := make(chan struct{})
		go func() { bound.take(last) }()
		synctest.Wait()
		close(last)
		synctest.Wait()
		if closed(busy[2]) {
			t.Error("a connection was closed for a listener that has ended")
		}
	})
}

// Two listeners share their places. A connection that has not had its first request is closed for
// nobody, and a connection whose next request has come meanwhile counts for nobody.
func TestConnectionsOfTwoListeners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bound, ended := NewConnections(4, nil), make(chan struct{})
		conns := make([]net.Conn, 4)
		for i := range conns {
			conns[i], _ = net.Pipe()
			bound.take(ended)
			bound.changed(conns[i], http.StateNew)
		}
		for _, conn := range conns[:3] {
			bound.changed(conn, http.StateActive)
		}
		var got atomic.Int32
		wait := func() {
			go func() {
				if bound.take(ended) {
					got.Add(1)
				}
			}()
			synctest.Wait()
		}
		wait()
		wait()
		closed := func(conn net.Conn) bool { return conn.SetDeadline(time.Time{}) != nil }
		if closed(conns[3]) {
			t.Error("a new connection was closed before its first request")
		}
		for i := range 2 {
			bound.changed(conns[i], http.StateIdle)
			if !closed(conns[i]) {
				t.Errorf("idle connection %d was not closed for the clients that wait", i)
			}
		}
		bound.changed(conns[0], http.StateActive)
		bound.changed(conns[1], http.StateClosed)
		bound.changed(conns[2], http.StateIdle)
		if !closed(conns[2]) {
			t.Error("the second client waits for a connection that has a request")
		}
		bound.changed(conns[2], http.StateClosed)
		synctest.Wait()
		if got.Load() != 2 {
			t.Errorf("%d clients got a place", got.Load())
		}
		bound.changed(conns[3], http.StateIdle)
		if closed(conns[3]) {
			t.Error("a connection was closed although nobody waits")
		}
	})
}

func TestOpenFiles(t *testing.T) {
	if n, err := OpenFiles(); n <= 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}
