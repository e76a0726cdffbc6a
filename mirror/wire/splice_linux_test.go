package wire

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// spliced is a server of one file behind a listener that splices.
type spliced struct {
	*testing.T
	server  *Server
	address string
	layer   []byte
}

func startSpliced(t *testing.T, o Options) *spliced {
	t.Helper()
	s := &spliced{T: t, layer: make([]byte, 24<<20)}
	_, _ = rand.NewChaCha8([32]byte{1}).Read(s.layer) // never fails
	path := filepath.Join(t.TempDir(), "layer")
	if err := os.WriteFile(path, s.layer, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // after the end of the server
		if idle, open := len(s.server.pipes.idle), s.server.pipes.open; idle+open > 0 {
			t.Errorf("%d pipes are idle and %d open after the end", idle, open)
		}
	})
	s.server, s.address = startServer(t, ServerOptions{
		Splice: true,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			file, err := os.Open(path)
			if err != nil {
				t.Error(err)
				return
			}
			defer file.Close()
			answer := NewResponse(w, r, o)
			if err := answer.Send(Content{ETag: `"layer"`, Size: int64(len(s.layer)), Body: inFile(s.layer, file)}); err != nil && answer.Broken() {
				panic(http.ErrAbortHandler)
			}
		}),
	})
	return s
}

// fetch gets a range of the layer, "" for all of it, and checks every byte. It returns how many
// were spliced.
func (s *spliced) fetch(span string, from, to int) int64 {
	s.Helper()
	before := s.server.pipes.counted()
	req, err := http.NewRequestWithContext(s.Context(), "GET", "http://"+s.address+"/", http.NoBody)
	if err != nil {
		s.Fatal(err)
	}
	if span != "" {
		req.Header.Set("Range", span)
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		s.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil || !bytes.Equal(got, s.layer[from:to]) {
		s.Errorf("%q: %d bytes of %d, or others, %v", span, len(got), to-from, err)
	}
	return s.server.pipes.counted() - before
}

func (s *pipes) counted() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total
}

// drained waits until no pipe is in use.
func (s *pipes) drained(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		used := s.open - len(s.idle)
		s.mu.Unlock()
		if used == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d pipes are in use", used)
		}
	}
}

// open asks for the layer on a connection with a small window, and reads the header.
func (s *spliced) open() (*net.TCPConn, io.Reader) {
	s.Helper()
	dialled, err := new(net.Dialer).DialContext(s.Context(), "tcp", s.address)
	if err != nil {
		s.Fatal(err)
	}
	conn := dialled.(*net.TCPConn)
	s.Cleanup(func() { conn.Close() })
	if err := conn.SetReadBuffer(64 << 10); err != nil {
		s.Fatal(err)
	}
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		s.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { resp.Body.Close() })
	return conn, resp.Body
}

// A spliced answer has exactly the requested bytes. All but the first ones, which net/http writes
// with the header, go through a pipe.
func TestSplice(t *testing.T) {
	s := startSpliced(t, Options{Stall: time.Minute})
	all := len(s.layer)
	for _, tc := range []struct {
		span     string
		from, to int
	}{
		{"", 0, all}, {"bytes=0-", 0, all}, {"bytes=1-", 1, all}, {"bytes=-3000000", all - 3000000, all}, {"bytes=1048576-2097151", 1 << 20, 2 << 20},
		{"bytes=4095-1052670", 4095, 1052671}, {"bytes=5000-9999", 5000, 10000}, {"bytes=7-7", 7, 8}, {"bytes=100-611", 100, 612},
	} {
		before := s.server.pipes.counted()
		s.fetch(tc.span, tc.from, tc.to)
		s.server.pipes.drained(t) // a client that has the last byte may ask again before its pipe is back
		if n, want := s.server.pipes.counted()-before, int64(tc.to-tc.from); n > want || n < want-512 {
			t.Errorf("%q: %d of %d bytes were spliced", tc.span, n, want)
		}
	}
	if n := s.server.pipes.open; n != 1 {
		t.Errorf("%d pipes for one client after the other", n)
	}
}

// The bytes before a file leave together with it, and at the latest when nothing is held back any
// more. A client that waits for them gets them either way.
func TestSpliceHoldsTheHeader(t *testing.T) {
	p := newPipes()
	defer p.close()
	client, server := connected(t, p)
	c := server.(*splicingConn)
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteString("the file"); err != nil {
		t.Fatal(err)
	}
	c.Hold()
	if n, err := c.Write([]byte("the header, ")); n != 12 || err != nil {
		t.Fatal(n, err)
	}
	if got := waiting(t, client); got != 0 {
		t.Errorf("%d bytes left before the file", got)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if n, err := c.ReadFrom(&io.LimitedReader{R: file, N: 8}); n != 8 || err != nil {
		t.Fatal(n, err)
	}
	if err := c.Release(); err != nil {
		t.Error(err)
	}
	expect(t, client, "the header, the file")
	c.Hold()
	large := strings.Repeat("more than the kernel holds back, ", 1<<20/32)
	var writing sync.WaitGroup
	writing.Go(func() {
		if n, err := c.Write([]byte(large)); n != len(large) || err != nil {
			t.Error(n, err)
		}
		if err := c.Release(); err != nil { // no file has come
			t.Error(err)
		}
	})
	expect(t, client, large)
	writing.Wait()
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	c.Hold()
	for err = nil; err == nil; {
		_, err = c.Write([]byte(large))
	}
	if !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the client has left: %v", err)
	}
}

func expect(t *testing.T, from io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(from, got); err != nil || string(got) != want {
		t.Errorf("%d bytes of %d, or others, %v", n, len(want), err)
	}
}

// waiting is how many bytes have come to a connection.
func waiting(t *testing.T, conn net.Conn) (n int) {
	t.Helper()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err == nil {
		err = errors.Join(raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ) }), err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// connected gives the ends of a connection, of which the server's takes files by splice.
func connected(t *testing.T, p *pipes) (client, server net.Conn) {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln = p.through(ln)
	defer ln.Close()
	if client, err = new(net.Dialer).DialContext(t.Context(), "tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if server, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return client, server
}

// A slow reader gets every byte, and does not delay others.
func TestSpliceSlowly(t *testing.T) {
	s := startSpliced(t, Options{Stall: time.Minute})
	_, body := s.open()
	s.fetch("", 0, len(s.layer))
	got := make([]byte, 6<<20)
	for n := 0; n < len(got); n += 12_288 {
		if _, err := io.ReadFull(body, got[n:min(n+12_288, len(got))]); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(got, s.layer[:len(got)]) {
		t.Error("other bytes")
	}
}

// Bytes of one client are never left in a pipe for the next one: not when it leaves, and
// not when it is disconnected because it takes nothing.
func TestSpliceBroken(t *testing.T) {
	for name, end := range map[string]func(*net.TCPConn) error{
		"stalls": func(*net.TCPConn) error { return nil },
		"leaves": (*net.TCPConn).Close,
		"resets": func(c *net.TCPConn) error { return errors.Join(c.SetLinger(0), c.Close()) },
	} {
		t.Run(name, func(t *testing.T) {
			s := startSpliced(t, Options{Stall: 2 * time.Second})
			conn, _ := s.open()
			if err := end(conn); err != nil {
				t.Fatal(err)
			}
			s.server.pipes.drained(t)
			s.fetch("", 0, len(s.layer))
			s.fetch("bytes=1000000-", 1000000, len(s.layer))
		})
	}
}

// Where there is no pipe the file goes the ordinary way.
func TestSpliceWithoutPipes(t *testing.T) {
	t.Run("refused", func(t *testing.T) {
		s := startSpliced(t, Options{Stall: time.Minute})
		s.server.pipes.make = func() (*pipe, error) { return nil, os.NewSyscallError("fcntl", unix.EPERM) }
		if n := s.fetch("", 0, len(s.layer)); n != 0 || s.server.pipes.open != 0 {
			t.Errorf("%d bytes were spliced, %d pipes", n, s.server.pipes.open)
		}
	})
	t.Run("in use", func(t *testing.T) {
		s := startSpliced(t, Options{Stall: time.Minute})
		var taken []*pipe
		for range maxPipes {
			taken = append(taken, s.server.pipes.get())
		}
		if n := s.fetch("", 0, len(s.layer)); n != 0 {
			t.Errorf("%d bytes were spliced", n)
		}
		for _, p := range taken {
			s.server.pipes.put(p, 0)
		}
		if n := s.fetch("", 0, len(s.layer)); n == 0 {
			t.Error("nothing was spliced when there were pipes again")
		}
	})
}

// Other readers are copied, and so are files that do not support splice.
func TestSpliceOfSomethingElse(t *testing.T) {
	p := newPipes()
	defer p.close()
	client, server := connected(t, p)
	fd, err := unix.Eventfd(5, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	event := os.NewFile(uintptr(fd), "eventfd") // of 8 bytes, the number, and no page cache to splice from
	defer event.Close()
	for name, tc := range map[string]struct {
		from io.Reader
		want string
	}{
		"no limit": {strings.NewReader("bytes"), "bytes"},
		"no file":  {io.LimitReader(strings.NewReader("bytes and more"), 5), "bytes"},
		"event":    {io.LimitReader(event, 8), "\x05\x00\x00\x00\x00\x00\x00\x00"},
		"nothing":  {io.LimitReader(event, 0), ""},
	} {
		n, err := server.(io.ReaderFrom).ReadFrom(tc.from)
		if err != nil || n != int64(len(tc.want)) {
			t.Errorf("%s: %d, %v", name, n, err)
			continue
		}
		got := make([]byte, n)
		if _, err := io.ReadFull(client, got); err != nil || string(got) != tc.want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if p.counted() != 0 {
		t.Errorf("%d bytes were spliced", p.counted())
	}
}
