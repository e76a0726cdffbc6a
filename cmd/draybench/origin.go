package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// origin is a registry on the loopback interface with a few images. It is as slow as a distant
// registry, and counts requests, connections and bytes.
type origin struct {
	address string
	shape   shape
	total   *limiter
	server  *http.Server
	serving sync.WaitGroup
	content map[string]blob // by path

	requests, connections, bytes atomic.Int64
}

// counts has the numbers of requests, connections and bytes of an origin.
type counts struct {
	Requests, Connections int64
	Bytes                 int64 // bytes of bodies that the origin has written
}

type connectionKey struct{}

// newOrigin makes an origin that does not listen.
func newOrigin(s shape, images ...*image) *origin {
	o := &origin{shape: s, total: &limiter{rate: s.Total}, content: map[string]blob{}}
	for _, img := range images {
		o.content[img.byTag()], o.content[img.byDigest()] = img.manifest, img.manifest
		for _, b := range img.blobs() {
			o.content[img.blob(b)] = b
		}
	}
	return o
}

// openOrigin returns an origin that listens and serves until its method close is called.
func openOrigin(s shape, images ...*image) (*origin, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	o := newOrigin(s, images...)
	o.address = listener.Addr().String()
	o.server = &http.Server{
		Handler:     o,
		ErrorLog:    log.New(io.Discard, "", 0), // clients disconnect on purpose
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context { return o.connection(ctx) },
	}
	o.serving.Go(func() {
		if err := o.server.Serve(distant{listener, s.RTT}); !errors.Is(err, http.ErrServerClosed) {
			log.Printf("origin: %v", err)
		}
	})
	return o, nil
}

// [origin.connection] counts a new connection and gives it a limiter.
func (o *origin) connection(ctx context.Context) context.Context {
	o.connections.Add(1)
	return context.WithValue(ctx, connectionKey{}, &limiter{rate: o.shape.PerConnection})
}

func (o *origin) close() {
	_ = o.server.Close() // the run needs no answer that is still being sent
	o.serving.Wait()
}

func (o *origin) counts() counts {
	return counts{Requests: o.requests.Load(), Connections: o.connections.Load(), Bytes: o.bytes.Load()}
}

func (c counts) since(before counts) counts {
	return counts{c.Requests - before.Requests, c.Connections - before.Connections, c.Bytes - before.Bytes}
}

func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.requests.Add(1)
	if pause(r.Context(), time.Now().Add(o.shape.RTT)) != nil {
		return
	}
	header := w.Header()
	header.Set("Docker-Distribution-Api-Version", "registry/2.0")
	if r.URL.Path == "/v2/" {
		header.Set("Content-Type", "application/json")
		o.send(w, r, []byte("{}"))
		return
	}
	found, ok := o.content[r.URL.Path]
	if !ok {
		header.Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprintf(w, `{"errors":[{"code":"NAME_UNKNOWN","message":%q}]}`, r.URL.Path)
		return
	}
	header.Set("Docker-Content-Digest", found.digest)
	header.Set("Etag", `"`+found.digest+`"`)
	if strings.Contains(r.URL.Path, "/manifests/") {
		header.Set("Content-Type", manifestType)
		o.send(w, r, found.bytes)
		return
	}
	header.Set("Content-Type", "application/octet-stream")
	header.Set("Accept-Ranges", "bytes")
	if r.Header.Get("Range") == "" {
		o.send(w, r, found.bytes)
		return
	}
	http.ServeContent(&shaped{w, o, r}, r, "", time.Time{}, bytes.NewReader(found.bytes))
}

func (o *origin) send(w http.ResponseWriter, r *http.Request, body []byte) {
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		_, _ = (&shaped{w, o, r}).Write(body) // fails if the client disconnects; the bytes written before are counted even then
	}
}

// shaped delays writes so that they keep to the rates in the origin's shape.
type shaped struct {
	http.ResponseWriter
	origin  *origin
	request *http.Request
}

// A write goes out in pieces. If the rate is limited, the pieces are small, so that connections
// share the rate evenly.
const (
	shapedPiece = 64 << 10
	wholePiece  = 1 << 20
)

func (s *shaped) Write(p []byte) (int, error) {
	connection, _ := s.request.Context().Value(connectionKey{}).(*limiter)
	piece := wholePiece
	if s.origin.shape.Total > 0 || s.origin.shape.PerConnection > 0 {
		piece = shapedPiece
	}
	written := 0
	for written < len(p) {
		n := min(piece, len(p)-written)
		now := time.Now()
		until := s.origin.total.reserve(n, now)
		if own := connection.reserve(n, now); own.After(until) {
			until = own
		}
		if err := pause(s.request.Context(), until); err != nil {
			return written, err
		}
		s.origin.bytes.Add(int64(n)) // before the write: as soon as the client has the bytes, the run may read the count
		put, err := s.ResponseWriter.Write(p[written : written+n])
		written += put
		s.origin.bytes.Add(int64(put - n))
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// distant is a listener whose connections deliver their first byte one round trip later, to
// account for the handshake of TCP.
type distant struct {
	net.Listener
	rtt time.Duration
}

func (d distant) Accept() (net.Conn, error) {
	conn, err := d.Listener.Accept()
	if err != nil || d.rtt == 0 {
		return conn, err
	}
	return &distantConn{TCPConn: conn.(*net.TCPConn), rtt: d.rtt}, nil
}

type distantConn struct {
	*net.TCPConn
	rtt   time.Duration
	begun bool
}

// Read waits in its first call only. begun needs no lock, because net/http calls Read from one
// goroutine at a time.
func (c *distantConn) Read(p []byte) (int, error) {
	if !c.begun {
		c.begun = true
		time.Sleep(c.rtt)
	}
	return c.TCPConn.Read(p)
}
