package wire

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"
)

// written remembers each write.
type written struct {
	net.Conn
	writes [][]byte
	broken error
}

func (w *written) Write(p []byte) (int, error) {
	if w.broken != nil {
		return 0, w.broken
	}
	w.writes = append(w.writes, bytes.Clone(p))
	return len(p), nil
}

func (w *written) sizes() (sizes []int) {
	for _, p := range w.writes {
		sizes = append(sizes, len(p))
	}
	return sizes
}

// records are n pieces of the size of full TLS records, each of its own byte.
func records(n int) (pieces [][]byte) {
	for i := range n {
		pieces = append(pieces, bytes.Repeat([]byte{byte(i)}, 16<<10+22))
	}
	return pieces
}

func TestGathering(t *testing.T) {
	record := 16<<10 + 22
	for name, test := range map[string]struct {
		run  func(g *gatheringConn)
		want []int
	}{
		"not held":              {func(g *gatheringConn) { _, _ = g.Write([]byte("header")); _, _ = g.Write([]byte("small")) }, []int{6, 5}},
		"held and not released": {func(g *gatheringConn) { g.Hold(); _, _ = g.Write([]byte("x")) }, nil},
		"released": {func(g *gatheringConn) {
			g.Hold()
			for _, p := range records(3) {
				_, _ = g.Write(p)
			}
			_ = g.Release()
			_, _ = g.Write([]byte("next"))
		}, []int{3 * record, 4}},
		"room runs out": {func(g *gatheringConn) {
			g.Hold()
			for _, p := range records(19) {
				_, _ = g.Write(p)
			}
			_ = g.Release()
		}, []int{8 * record, 8 * record, 3 * record}},
		"larger than the room": {func(g *gatheringConn) {
			g.Hold()
			_, _ = g.Write([]byte("first"))
			_, _ = g.Write(make([]byte, gatherBytes+1))
			_, _ = g.Write([]byte("last"))
			_ = g.Release()
		}, []int{5, gatherBytes + 1, 4}},
		"nothing to release": {func(g *gatheringConn) { g.Hold(); _ = g.Release(); _ = g.Release() }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := &written{}
			test.run(&gatheringConn{Conn: w})
			if got := w.sizes(); fmt.Sprint(got) != fmt.Sprint(test.want) {
				t.Errorf("%v, want %v", got, test.want)
			}
		})
	}
}

// Every byte arrives, in order, whatever the pieces are.
func TestGatheringKeepsOrder(t *testing.T) {
	w := &written{}
	g := &gatheringConn{Conn: w}
	var want []byte
	for i := range 500 {
		if i%7 == 0 {
			g.Hold()
		}
		p := bytes.Repeat([]byte{byte(i)}, i*131%(40<<10))
		want = append(want, p...)
		if n, err := g.Write(p); n != len(p) || err != nil {
			t.Fatal(n, err)
		}
		if i%7 == 4 {
			if err := g.Release(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := g.Release(); err != nil || !bytes.Equal(bytes.Join(w.writes, nil), want) {
		t.Error("the bytes differ", err)
	}
}

// A failure is reported, and nothing is sent after the hole it leaves.
func TestGatheringFails(t *testing.T) {
	w := &written{broken: net.ErrClosed}
	g := &gatheringConn{Conn: w}
	g.Hold()
	if _, err := g.Write([]byte("held")); err != nil {
		t.Error(err)
	}
	if err := g.Release(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("release: %v", err)
	}
	w.broken = nil
	if _, err := g.Write([]byte("more")); !errors.Is(err, net.ErrClosed) || len(w.writes) != 0 {
		t.Errorf("%v after the failure, %v", w.sizes(), err)
	}
	if g.held != nil {
		t.Error("the buffer was not given back")
	}
}

// A deadline, and Close, end a release that a client does not take.
func TestGatheringEnds(t *testing.T) {
	for name, end := range map[string]func(net.Conn){
		"deadline": func(c net.Conn) { _ = c.SetWriteDeadline(time.Now().Add(-time.Second)) },
		"close":    func(c net.Conn) { _ = c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			here, there := net.Pipe()
			defer there.Close()
			defer here.Close()
			g := &gatheringConn{Conn: here}
			g.Hold()
			if _, err := g.Write([]byte("nobody reads this")); err != nil {
				t.Fatal(err)
			}
			released := make(chan error, 1)
			go func() { released <- g.Release() }()
			if end(g); <-released == nil {
				t.Error("it was sent")
			}
		})
	}
}
