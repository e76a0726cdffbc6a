package wire

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestRefusedEarly refuses a body in its middle. A client that reads no answer before it has sent
// everything gets the answer.
func TestRefusedEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, theirs := net.Pipe()
		s := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			w := NewResponse(rw, r, Options{Stall: time.Minute})
			body := w.Pass()
			defer body.End()
			if _, err := io.ReadFull(body, make([]byte, 1000)); err != nil {
				t.Error(err)
			}
			body.Early()
			w.Header().Set("Content-Length", "7")
			if err := w.Relay(http.StatusRequestEntityTooLarge, strings.NewReader("refused"), 7); err != nil {
				t.Error(err)
			}
		})}
		go func() { _ = s.Serve(&once{conn: buffer(theirs)}) }()
		defer conn.Close()
		const size = 1 << 20
		if _, err := fmt.Fprintf(conn, "PATCH / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n", size); err != nil {
			t.Fatal(err)
		}
		for range size >> 16 {
			if _, err := conn.Write(make([]byte, 1<<16)); err != nil {
				t.Fatalf("the client cannot send the rest: %v", err)
			}
		}
		if _, err := io.WriteString(conn, "\r\n0\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusRequestEntityTooLarge || string(text) != "refused" || !resp.Close {
			t.Errorf("got %s, %q, %v", resp.Status, text, err)
		}
	})
}

// buffered is a connection whose writes wait for no reader, as those of TCP. As there, the end of
// the connection loses what the other side reads too late.
type buffered struct {
	net.Conn
	out     chan []byte
	written chan struct{} // closed when out is closed and written
	end     sync.Once
}

func buffer(conn net.Conn) *buffered {
	b := &buffered{Conn: conn, out: make(chan []byte, 100), written: make(chan struct{})}
	go func() {
		defer close(b.written)
		for p := range b.out {
			_, _ = b.Conn.Write(p)
		}
	}()
	return b
}

func (b *buffered) Write(p []byte) (int, error) {
	b.out <- bytes.Clone(p)
	return len(p), nil
}

func (b *buffered) Close() error {
	b.end.Do(func() { close(b.out) })
	select {
	case <-b.written:
	case <-time.After(time.Second):
	}
	return b.Conn.Close()
}
