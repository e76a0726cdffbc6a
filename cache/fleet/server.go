package fleet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/cache"
)

// The headers of requests and answers between members.
const (
	headerProtocol   = "Dray-Protocol"
	headerMember     = "Dray-Member"     // the ID of the sender
	headerAddress    = "Dray-Address"    // of the member that asks
	headerZone       = "Dray-Zone"       // of the member that answers
	headerGeneration = "Dray-Generation" // of the lease
	headerHop        = "Dray-Hop"        // of the member that answers
	headerSize       = "Dray-Size"       // of the whole blob, in bytes; -1 if it is not known
	headerReady      = "Dray-Ready"      // how many bytes can be read at the offset without waiting
	headerFollowers  = "Dray-Followers"  // addresses of members that read the blob from this one
)

// blobPath begins the path of a blob. Its digest follows. The parameter from of the query is the
// offset. GET gives the bytes from there to the end while they arrive. HEAD answers at once.
const blobPath = "/blobs/"

// The reasons for the refusal of a request, as they appear in metrics.
const (
	refusedProtocol = "protocol"
	refusedMissing  = "missing"
	refusedFull     = "full"
	refusedOther    = "other"
)

// Files is how many files a fleet may have open: for connections from other members, and about as
// many to them.
const Files = 2 * maxConnections

const (
	// maxConnections bounds the connections from other members, with those that are idle. One that
	// waits for a place looks like one to a dead member.
	maxConnections = 1024
	// headerPatience bounds a handshake, and the header of a request.
	headerPatience = 10 * time.Second
	// writePatience is how long a follower may take nothing.
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

// Serve answers other members until ctx ends, and closes ln. Then it gives up all leases, waits up
// to Options.Grace for members that still read, and returns nil. It returns an error if the
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
	if s.Shutdown(late) != nil {
		f.log.Warn("members of the fleet that still read from this one were cut off")
		_ = s.Close()
	}
	<-done
	return nil
}

// Interrupt ends the requests of other members at once, and makes Serve return soon.
func (f *Fleet) Interrupt() { f.interrupt() }

// limited is a listener with a bound on its connections. Beyond the bound, it waits.
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

// ServeHTTP answers a request of another member. The handshake has shown that it is one.
func (f *Fleet) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set(headerProtocol, strconv.Itoa(f.o.Self.Protocol))
	h.Set(headerMember, f.o.Self.ID)
	h.Set(headerZone, f.o.Self.Zone)
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
	handler.ServeHTTP(w, r)
}

// serveBlobs answers the requests for blobs.
func (f *Fleet) serveBlobs(w http.ResponseWriter, r *http.Request) {
	d := digest.Digest(strings.TrimPrefix(r.URL.Path, blobPath))
	from, err := strconv.ParseInt(r.URL.Query().Get("from"), 10, 64)
	switch {
	case d.Validate() != nil || err != nil || from < 0:
		http.Error(w, "not a request of a member", http.StatusBadRequest)
	case r.Method == http.MethodHead:
		f.serveProgress(w, d, from)
	case r.Method == http.MethodGet:
		f.serveBlob(w, r, d, from)
	default:
		http.Error(w, "not a request of a member", http.StatusMethodNotAllowed)
	}
}

func (f *Fleet) serveProgress(w http.ResponseWriter, d digest.Digest, from int64) {
	ready, ok := f.o.Cache.Progress(d, from)
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	w.Header().Set(headerReady, strconv.FormatInt(ready, 10))
	w.WriteHeader(http.StatusOK)
}

func (f *Fleet) serveBlob(w http.ResponseWriter, r *http.Request, d digest.Digest, from int64) {
	address := r.Header.Get(headerAddress)
	others, ok := f.admit(d, address)
	if !ok {
		f.m.refused.WithLabelValues(refusedFull).Inc()
		w.Header().Set(headerFollowers, strings.Join(others, ","))
		http.Error(w, "too many followers", http.StatusServiceUnavailable)
		return
	}
	defer f.dismiss(d, address)
	content, err := f.o.Cache.Follow(r.Context(), d)
	if err == nil {
		defer content.Close()
		_, err = content.Seek(from, io.SeekStart)
	}
	if err != nil {
		f.m.refused.WithLabelValues(refusedMissing).Inc()
		f.log.Debug("fleet: a blob is not here any more", "digest", d, "from", from, "error", err)
		http.Error(w, "the blob is not here any more", http.StatusNotFound)
		return
	}
	size, at := content.Size(), f.positionOf(d, content.Held(), r.Header.Get(headerGeneration))
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set(headerSize, strconv.FormatInt(size, 10))
	h.Set(headerGeneration, strconv.FormatInt(at.generation, 10))
	h.Set(headerHop, strconv.Itoa(at.hop))
	if size >= 0 {
		h.Set("Content-Length", strconv.FormatInt(size-from, 10))
	}
	if err := f.stream(w, content); err != nil {
		f.log.Debug("fleet: a stream to another member ended early", "digest", d, "address", r.RemoteAddr, "error", err)
		panic(http.ErrAbortHandler) // so that the member sees that bytes are missing
	}
}

// stream sends the header at once, and the bytes as they arrive.
func (f *Fleet) stream(w http.ResponseWriter, content *cache.Reader) error {
	to := http.NewResponseController(w)
	if err := to.Flush(); err != nil {
		return err
	}
	buf := make([]byte, streamBuffer)
	for {
		n, err := content.Read(buf)
		if n > 0 {
			_ = to.SetWriteDeadline(time.Now().Add(writePatience))
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
			if err := to.Flush(); err != nil {
				return err
			}
			f.m.sent.Add(float64(n))
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// admit counts a follower of a blob. If there are too many, it returns their addresses instead.
func (f *Fleet) admit(d digest.Digest, address string) (others []string, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	readers := f.readers[d]
	if total(readers) >= maxFollowers {
		for other := range readers {
			if other != address {
				others = append(others, other)
			}
		}
		return others, false
	}
	if readers == nil {
		readers = map[string]int{}
		f.readers[d] = readers
	}
	readers[address]++
	return nil, true
}

func (f *Fleet) dismiss(d digest.Digest, address string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	readers := f.readers[d]
	if readers[address]--; readers[address] == 0 {
		delete(readers, address)
	}
	if len(readers) == 0 {
		delete(f.readers, d)
	}
}

// positionOf returns how far this member is from the registry for a blob. A member that has the
// whole blob, or fetches it without other members, depends on nobody. It is at hop 0 of whatever
// generation the follower asks for.
func (f *Fleet) positionOf(d digest.Digest, whole bool, asked string) position {
	f.mu.Lock()
	defer f.mu.Unlock()
	at, follows := f.following[d]
	switch l := f.held[d]; {
	case l != nil:
		return position{l.Generation, 0}
	case follows && !whole:
		return at
	}
	generation, _ := strconv.ParseInt(asked, 10, 64)
	return position{generation, 0}
}
