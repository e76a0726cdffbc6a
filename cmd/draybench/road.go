package main

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// road is a proxy for connections to a server on the loopback interface. It delays bytes, and may
// limit their rate. It simulates the network between two zones, because the kernel's netem is not
// available everywhere.
type road struct {
	address  string
	to       atomic.Pointer[string]
	delay    time.Duration // delay in each direction
	rate     *limiter      // limits the bytes that the server sends; nil means no limit
	listener net.Listener
	running  sync.WaitGroup

	mu     sync.Mutex // guards conns and closed
	conns  map[net.Conn]struct{}
	closed bool
}

// openRoad makes a road. Until a call of [road.lead], the road closes every connection.
func openRoad(delay time.Duration, rate *limiter) (*road, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &road{address: listener.Addr().String(), delay: delay, rate: rate, listener: listener, conns: map[net.Conn]struct{}{}}
	r.running.Go(r.accept)
	return r, nil
}

// [road.lead] makes new connections go to the server at the given address.
func (r *road) lead(to string) { r.to.Store(&to) }

func (r *road) accept() {
	for {
		in, err := r.listener.Accept()
		if err != nil {
			return
		}
		r.running.Go(func() { r.serve(in) })
	}
}

func (r *road) serve(in net.Conn) {
	defer in.Close()
	to := r.to.Load()
	if to == nil {
		return
	}
	out, err := net.Dial("tcp", *to)
	if err != nil {
		return
	}
	defer out.Close()
	if !r.remember(in, out) {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { r.travel(out, in, nil) })
	both.Go(func() { r.travel(in, out, r.rate) })
	both.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, in)
	delete(r.conns, out)
}

// remember records connections, so that close can close them. It returns false if close was called
// before.
func (r *road) remember(conns ...net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range conns {
		r.conns[c] = struct{}{}
	}
	return !r.closed
}

// parcel is a piece of data on a road, with its time of arrival.
type parcel struct {
	bytes []byte
	at    time.Time
}

// travel forwards bytes from src to dst. It closes both connections when one of them has ended.
func (r *road) travel(dst, src net.Conn, rate *limiter) {
	parcels := make(chan parcel, 256) // bounds the data under way, as the window of TCP does
	var arriving sync.WaitGroup
	arriving.Go(func() {
		defer dst.Close()
		defer src.Close()
		for p := range parcels {
			time.Sleep(time.Until(p.at))
			if _, err := dst.Write(p.bytes); err != nil {
				_ = src.Close() // ends the reading below
			}
		}
	})
	for {
		buf := make([]byte, shapedPiece)
		n, err := src.Read(buf)
		if n > 0 {
			now := time.Now()
			at := now.Add(r.delay)
			if until := rate.reserve(n, now); until.After(at) {
				at = until
			}
			parcels <- parcel{buf[:n], at}
		}
		if err != nil {
			break
		}
	}
	close(parcels)
	arriving.Wait()
}

func (r *road) close() {
	_ = r.listener.Close()
	r.mu.Lock()
	r.closed = true
	for c := range r.conns {
		_ = c.Close()
	}
	r.mu.Unlock()
	r.running.Wait()
}
