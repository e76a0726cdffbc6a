package fleet

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Files is how many open files this member may need for the fleet: for connections from other
// members, and about as many for connections to them.
const Files = 2 * maxConnections

const (
	// maxConnections bounds the connections from other members, including idle ones. A connection
	// beyond this bound gets no answer, so the other member takes this one for dead.
	maxConnections = 1024
	// headerPatience bounds a handshake, and the header of a request.
	headerPatience = 10 * time.Second
	// writePatience bounds one write to a member that reads a blob. If a write takes longer, the
	// stream ends.
	writePatience = 30 * time.Second
	// maxGrace bounds how long followers can read on when this member stops.
	maxGrace = 30 * time.Second
	// streamBuffer is the size of one read of a blob, in bytes.
	streamBuffer = 256 << 10
)

// Listen listens on an address for other members.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listener for the fleet: %w; set another address with fleet.address", err)
	}
	return ln, nil
}

// Serve answers other members until ctx ends. It then releases all leases, and waits for the
// handlers of [Fleet.Handle]. During this wait, ln still accepts connections, so other members can
// ask whether this member is alive. After that, Serve closes ln, waits for the members that read
// blobs, and returns nil. Options.Grace bounds both waits together. Serve returns an error if the
// listener fails.
func (f *Fleet) Serve(ctx context.Context, ln net.Listener) error {
	s := &http.Server{
		Handler: f, TLSConfig: serverTLS(f.o.Keys), TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
		ReadHeaderTimeout: headerPatience, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(f.log.Handler(), slog.LevelDebug),
	}
	defer context.AfterFunc(f.interrupted, func() { _ = s.Close() })()
	done := make(chan error, 1)
	go func() {
		done <- s.ServeTLS(&limited{Listener: ln, slots: make(chan struct{}, maxConnections)}, "", "")
	}()
	select {
	case err := <-done:
		if f.interrupted.Err() != nil {
			return nil
		}
		return fmt.Errorf("listener for the fleet: %w", err)
	case <-ctx.Done():
	}
	ctx = context.WithoutCancel(ctx)
	f.leave(ctx)
	late, cancel := context.WithTimeout(ctx, f.o.Grace)
	defer cancel()
	defer context.AfterFunc(f.interrupted, cancel)()
	f.working.wait(late)
	if s.Shutdown(late) != nil {
		f.log.Warn("members of the fleet that still read from this one were cut off")
		_ = s.Close()
	}
	<-done
	return nil
}

// Interrupt ends the requests of other members at once, and makes Serve return soon.
func (f *Fleet) Interrupt() { f.interrupt() }

// The type limited is a listener with a bound on its connections. At the bound, Accept waits until
// a connection is closed.
type limited struct {
	net.Listener
	slots chan struct{}
}

// Accept implements net.Listener.
func (l *limited) Accept() (net.Conn, error) {
	l.slots <- struct{}{}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &limitedConn{Conn: c, done: sync.OnceFunc(func() { <-l.slots })}, nil
}

type limitedConn struct {
	net.Conn
	done func()
}

// Close closes the connection and frees its slot.
func (c *limitedConn) Close() error {
	defer c.done()
	return c.Conn.Close()
}

// ServeHTTP answers a request of another member. The handshake has shown that the sender is a
// member.
func (f *Fleet) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set(headerProtocol, strconv.Itoa(f.o.Self.Protocol))
	h.Set(headerMember, f.o.Self.ID)
	h.Set(headerZone, f.zone())
	if !f.understands(r.Header) {
		f.m.refused.WithLabelValues(refusedProtocol).Inc()
		f.warnOfProtocol(Sender(r), r.RemoteAddr, r.Header.Get(headerProtocol))
		http.Error(w, "this member speaks another protocol", http.StatusUpgradeRequired)
		return
	}
	if to := r.Header.Get(headerTo); to != "" && to != f.o.Self.ID {
		f.m.refused.WithLabelValues(refusedOther).Inc()
		http.Error(w, "this is another member", http.StatusMisdirectedRequest)
		return
	}
	handler := f.handler(r.URL.Path)
	if handler == nil {
		http.Error(w, "not a request that this member knows", http.StatusNotImplemented)
		return
	}
	if !strings.HasPrefix(r.URL.Path, blobPath) { // Serve waits for readers of blobs later
		defer f.working.begin()()
	}
	handler.ServeHTTP(w, r)
}

// underWay counts requests.
type underWay struct {
	mu   sync.Mutex
	n    int
	none chan struct{} // closed when no request is under way; nil if nobody waits for that
}

// begin counts a request until the caller calls release.
func (u *underWay) begin() (release func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.n++
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		if u.n--; u.n == 0 && u.none != nil {
			close(u.none)
			u.none = nil
		}
	}
}

// wait waits until there are no requests, or ctx ends. It is called once.
func (u *underWay) wait(ctx context.Context) {
	u.mu.Lock()
	if u.n == 0 {
		u.mu.Unlock()
		return
	}
	none := make(chan struct{})
	u.none = none
	u.mu.Unlock()
	select {
	case <-none:
	case <-ctx.Done():
	}
}

// Handle registers a handler for the paths that begin with prefix, in requests of other members. It
// panics if these paths overlap with the paths of another handler. Handle must be called before
// Serve, so that no request arrives before its handler is registered. The handler gets only
// requests of senders that have proved that they know the secret, and whose protocol this member
// understands. The handler gets the whole path. The handler must bound the size of the body that it
// reads, and the time that it takes.
func (f *Fleet) Handle(prefix string, h http.Handler) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for other := range f.handlers {
		if strings.HasPrefix(prefix, other) || strings.HasPrefix(other, prefix) {
			panic("fleet: the paths below " + prefix + " and " + other + " overlap")
		}
	}
	f.handlers[prefix] = h
}

// handler returns the handler of a path, or nil.
func (f *Fleet) handler(path string) http.Handler {
	f.mu.Lock()
	defer f.mu.Unlock()
	for prefix, h := range f.handlers {
		if strings.HasPrefix(path, prefix) {
			return h
		}
	}
	return nil
}
