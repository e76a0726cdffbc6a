package e2e

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// death is a way in which a mirror is dead.
type death string

const (
	alive    death = ""
	stopped  death = "stopped"     // nobody listens at its address
	silent   death = "black-holed" // packets to and from it are lost
	frozen   death = "hangs"       // it accepts connections and says nothing
	refusing death = "answers 503"
)

// mortal is at the address of dray in the network of a client. It hands every request to dray until
// it dies, at once or at the first request for a blob. It can be born again.
type mortal struct {
	t     testing.TB
	where network
	addr  string // host:port
	proxy *httputil.ReverseProxy
	tls   *tls.Config

	mu       sync.Mutex
	way      death // how it is dead
	dies     death // how it will die at the first request for a blob
	server   *http.Server
	listener *freezing
	born     chan struct{} // closed at the next birth; requests that hang end then
}

// newMortal puts one before the mirror of a stack.
func newMortal(t testing.TB, s *stack, where network, addr string) *mortal {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(s.certificate, s.key)
	if err != nil {
		t.Fatal(err)
	}
	m := &mortal{t: t, where: where, addr: addr,
		tls: &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}}
	m.proxy = httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "https", Host: drayName})
	m.proxy.Transport, m.proxy.ErrorLog = s.transport(t), log.New(io.Discard, "", 0)
	m.proxy.FlushInterval = -1
	m.bear()
	t.Cleanup(func() { m.mu.Lock(); defer m.mu.Unlock(); m.end() })
	return m
}

// bear has it live, after any death.
func (m *mortal) bear() {
	m.t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.server != nil {
		m.end()
	}
	m.way, m.dies, m.born = alive, alive, make(chan struct{})
	m.server = &http.Server{Handler: m, ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0), TLSConfig: m.tls}
	m.listener = &freezing{Listener: m.where.listen(m.t, m.addr)}
	go func(server *http.Server, l net.Listener) { _ = server.ServeTLS(l, "", "") }(m.server, m.listener)
}

// end closes everything. m.mu is locked.
func (m *mortal) end() {
	if m.way == silent {
		m.drop("-D")
	}
	close(m.born)
	_ = m.listener.Close()
	_ = m.server.Close()
	m.listener.thaw()
	m.server, m.way = nil, alive
}

// die has it die now.
func (m *mortal) die(way death) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dieLocked(way)
}

func (m *mortal) dieLocked(way death) {
	m.way, m.dies = way, alive
	switch way {
	case stopped:
		_ = m.listener.Close()
		_ = m.server.Close()
	case silent:
		m.drop("-I")
	case frozen:
		m.listener.freeze()
	}
}

// dieAtBlob has it die at the first request for a blob, before it answers.
func (m *mortal) dieAtBlob(way death) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dies = way
}

// drop inserts or deletes the rules by which packets are lost.
func (m *mortal) drop(operation string) {
	host, port, _ := net.SplitHostPort(m.addr)
	for _, rule := range [][]string{{"-d", host, "--dport", port}, {"-s", host, "--sport", port}} {
		command := slices.Concat(m.where.inside, []string{need(m.t, "iptables"), operation, "INPUT", "-p", "tcp"}, rule, []string{"-j", "DROP"})
		if out, err := try(m.t, environment(), command...); err != nil {
			m.t.Errorf("%s: %v\n%s", strings.Join(command, " "), err, out)
		}
	}
}

// ServeHTTP implements http.Handler.
func (m *mortal) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	if m.dies != alive && strings.Contains(r.URL.Path, "/blobs/") {
		m.dieLocked(m.dies)
	}
	way, born := m.way, m.born
	m.mu.Unlock()
	switch way {
	case alive:
		m.proxy.ServeHTTP(w, r)
	case refusing:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, `{"errors":[{"code":"UNAVAILABLE","message":"unavailable"}]}`)
	default:
		if way != stopped {
			<-born
		}
		panic(http.ErrAbortHandler)
	}
}

// freezing is a listener that holds connections, and does not serve them, while it is frozen. It
// has a mutex of its own, because http.Server.Close, called with that of the mortal, waits for
// Accept.
type freezing struct {
	net.Listener
	mu     sync.Mutex
	frozen bool
	held   []net.Conn // that nobody serves
}

// Accept implements net.Listener.
func (f *freezing) Accept() (net.Conn, error) {
	for {
		conn, err := f.Listener.Accept()
		if err != nil || !f.hold(conn) {
			return conn, err
		}
	}
}

// hold keeps a connection if the listener is frozen.
func (f *freezing) hold(conn net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.frozen {
		f.held = append(f.held, conn)
	}
	return f.frozen
}

func (f *freezing) freeze() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.frozen = true
}

// thaw closes what is held.
func (f *freezing) thaw() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, conn := range f.held {
		_ = conn.Close()
	}
	f.frozen, f.held = false, nil
}

// listen listens in the network. Its thread goes there and back: it must not end, because processes
// that it has started would be stopped then.
func (n network) listen(t testing.TB, addr string) net.Listener {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var networks [2]*os.File
	for i, path := range []string{"/proc/thread-self/ns/net", n.file} {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		networks[i] = f
	}
	if err := unix.Setns(int(networks[1].Fd()), unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", addr)
	if back := unix.Setns(int(networks[0].Fd()), unix.CLONE_NEWNET); back != nil {
		panic(back) // the thread is of no use any more
	}
	if err != nil {
		t.Fatalf("listen at %s in the network of a client: %v", addr, err)
	}
	return l
}

// forward passes connections to an address of the network on to one of the test.
func (n network) forward(t testing.TB, from, to string) {
	t.Helper()
	listener := n.listen(t, from)
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				there, err := net.Dial("tcp", to)
				if err != nil {
					return
				}
				defer there.Close()
				go func() { _, _ = io.Copy(there, conn); _ = there.Close() }()
				_, _ = io.Copy(conn, there)
			}()
		}
	}()
}
