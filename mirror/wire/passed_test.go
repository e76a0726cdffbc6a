package wire

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestRefusedEarly refuses a body in its middle. A client that reads no answer before it has sent
// everything gets the answer.
func TestRefusedEarly(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
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
	}))
	defer s.Close()
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const size = 16 << 20 // more than the buffers on the way
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
}
