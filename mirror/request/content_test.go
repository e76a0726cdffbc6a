package request_test

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"

	"dray/mirror/mirrortest"
)

// kernelConn counts the bytes that net/http hands to the connection as a file.
type kernelConn struct {
	*net.TCPConn
	sent *atomic.Int64
}

func (c kernelConn) ReadFrom(r io.Reader) (int64, error) {
	n, err := c.TCPConn.ReadFrom(r)
	if l, ok := r.(*io.LimitedReader); ok {
		if _, ok := l.R.(*os.File); ok {
			c.sent.Add(n)
		}
	}
	return n, err
}

type kernelListener struct {
	net.Listener
	sent atomic.Int64
}

func (l *kernelListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return kernelConn{c.(*net.TCPConn), &l.sent}, nil
}

// A blob on disk reaches the connection as a file, through everything that is wrapped
// around it on the way, unless files are to be copied.
func TestKernelSendsFiles(t *testing.T) {
	h := mirrortest.New(t, mirrortest.Options{})
	layer := bytes.Repeat([]byte("layer"), 700_000)
	m := h.Hold("team/app", "v1", layer)
	h.Pull("team/app", "v1", m, layer)
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	kernel := &kernelListener{Listener: ln}
	handled := make(chan struct{}, 1) // the server counts after the client has the last byte
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.Listener.ServeHTTP(w, r)
		handled <- struct{}{}
	})}
	done := make(chan error, 1)
	go func() { done <- server.Serve(kernel) }()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for _, test := range []struct {
		name, span string
		copied     bool
		want       []byte
		kernel     int
	}{
		{"whole", "", false, layer, len(layer)},
		{"range", "bytes=100-1500099", false, layer[100:1500100], 1500000},
		{"copied", "", true, layer, 0},
		{"range copied", "bytes=100-1500099", true, layer[100:1500100], 0},
	} {
		h.Listener.CopyFiles = test.copied
		kernel.sent.Store(0)
		req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+ln.Addr().String()+"/v2/team/app/blobs/"+digest.FromBytes(layer).String(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if test.span != "" {
			req.Header.Set("Range", test.span)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		<-handled
		if err != nil || !bytes.Equal(got, test.want) {
			t.Errorf("%s: %d bytes, %v", test.name, len(got), err)
		}
		// The first 512 bytes net/http always writes by itself.
		if n := kernel.sent.Load(); n > int64(test.kernel) || n < int64(test.kernel)-512 {
			t.Errorf("%s: %d bytes by the kernel, want %d", test.name, n, test.kernel)
		}
	}
	if err := server.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	<-done
}

// A blob that is still on its way here reaches the connection as a file, too, as far as
// it has come.
func TestKernelSendsWhatArrives(t *testing.T) {
	for _, copied := range []bool{false, true} {
		h := mirrortest.New(t, mirrortest.Options{})
		layer := bytes.Repeat([]byte("0123456789abcde"), 200_000)
		m := h.Hold("team/app", "v1", layer)
		half := make(chan struct{})
		h.Registry.Halve(half)
		h.Want(200, "GET", "/v2/team/app/manifests/"+m.Digest.String(), nil)
		ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		kernel := &kernelListener{Listener: ln}
		h.Listener.CopyFiles = copied
		handled := make(chan struct{}, 1) // the server counts after the client has the last byte
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.Listener.ServeHTTP(w, r)
			handled <- struct{}{}
		})}
		done := make(chan error, 1)
		go func() { done <- server.Serve(kernel) }()
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		for _, span := range []struct {
			header string
			from   int
		}{{"", 0}, {"bytes=1000000-", 1_000_000}} {
			req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+ln.Addr().String()+"/v2/team/app/blobs/"+digest.FromBytes(layer).String(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if span.header != "" {
				req.Header.Set("Range", span.header)
			}
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			want := layer[span.from:]
			got := make([]byte, len(want))
			early := len(layer)/2 - span.from - 8<<10 // net/http keeps the end of what it copies until it has more
			n, err := io.ReadFull(resp.Body, got[:early])
			if err != nil || n != early {
				t.Errorf("%q: %d of %d bytes before the rest is there, %v", span.header, n, early, err)
			}
			if span.header != "" {
				close(half)
			} else {
				resp.Body.Close()
				continue // it leaves; the other one joins
			}
			_, err = io.ReadFull(resp.Body, got[early:])
			resp.Body.Close()
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%q: other bytes, %v", span.header, err)
			}
		}
		if err := server.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		<-done
		// The ends of both halves may be too short to be worth it.
		if n := kernel.sent.Load(); copied && n > 0 || !copied && n < int64(len(layer)-100_000) {
			t.Errorf("copied %t: %d bytes by the kernel", copied, n)
		}
	}
}
