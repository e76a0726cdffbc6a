package main

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestLoaderCountsWhatItDrops(t *testing.T) {
	img := testImage(t, 2, 3<<20)
	o, err := openOrigin(shape{}, img)
	if err != nil {
		t.Fatal(err)
	}
	defer o.close()
	l := newLoader(nil)
	c := l.client(o.address, false)
	defer c.close()
	for _, ask := range []struct {
		path, byteRange string
		want            int64
	}{
		{img.byTag(), "", int64(len(img.manifest.bytes))},
		{img.blob(img.layers[0]), "", 3 << 20},
		{img.blob(img.layers[1]), "bytes=100-5099", 5000},
		{img.byDigest(), "", int64(len(img.manifest.bytes))}, // the connection is still where it should be
	} {
		before := l.bytes.Load()
		a, err := c.get(t.Context(), ask.path, ask.byteRange)
		if err != nil {
			t.Fatal(err)
		}
		if got := l.bytes.Load() - before; got != ask.want || a.Bytes != ask.want || a.First <= 0 || a.Whole < a.First {
			t.Errorf("%s %s: %+v, %d bytes counted, %d expected", ask.path, ask.byteRange, a, got, ask.want)
		}
	}
	if got := o.counts(); got.Connections != 1 || got.Requests != 4 || l.done.Load() != 4 {
		t.Errorf("%+v, %d done", got, l.done.Load())
	}
	if _, err := c.get(t.Context(), "/v2/bench/test/manifests/none", ""); err == nil || !strings.Contains(err.Error(), "status 404") {
		t.Errorf("a manifest that does not exist: %v", err)
	}
}

// A server that promises more than it sends must not look fast.
func TestLoaderNoticesWhatIsMissing(t *testing.T) {
	short := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000000")
		_, _ = w.Write(make([]byte, 600_000)) // the client judges
		panic(http.ErrAbortHandler)
	})
	whole := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000000")
		_, _ = w.Write(make([]byte, 1_000_000)) // the client judges
	})
	for _, c := range []struct {
		name    string
		handler http.Handler
		secure  bool
		ok      bool
	}{{"whole", whole, false, true}, {"short", short, false, false}, {"whole over TLS", whole, true, true}, {"short over TLS", short, true, false}} {
		t.Run(c.name, func(t *testing.T) {
			server := httptest.NewUnstartedServer(c.handler)
			server.Config.ErrorLog = log.New(io.Discard, "", 0)
			var trust *tls.Config
			if c.secure {
				server.StartTLS()
				trust = server.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
				trust.ServerName, trust.NextProtos = "example.com", nil
			} else {
				server.Start()
			}
			defer server.Close()
			l := newLoader(trust)
			client := l.client(server.Listener.Addr().String(), c.secure)
			defer client.close()
			for range 2 {
				a, err := client.get(t.Context(), "/", "")
				if (err == nil) != c.ok || c.ok && a.Bytes != 1_000_000 {
					t.Errorf("%+v, %v", a, err)
				}
			}
			if c.ok && l.bytes.Load() < 2_000_000-2*tlsSlack {
				t.Errorf("%d bytes counted", l.bytes.Load())
			}
		})
	}
}

func TestLoaderStops(t *testing.T) {
	arrived := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
	}))
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-arrived
		cancel()
	}()
	c := newLoader(nil).client(server.Listener.Addr().String(), false)
	defer c.close()
	if _, err := c.get(ctx, "/", ""); err != context.Canceled {
		t.Errorf("stopped with %v", err)
	}
}

func TestPullFetchesEverythingOnce(t *testing.T) {
	img := testImage(t, 5, 10_000)
	o, err := openOrigin(shape{}, img)
	if err != nil {
		t.Fatal(err)
	}
	defer o.close()
	l := newLoader(nil)
	got, wall, err := l.pulls(t.Context(), o.address, img, 4, 3)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range got {
		if p.Manifest <= 0 || p.Layer <= 0 || p.Whole < p.Manifest || p.Whole > wall {
			t.Errorf("%+v of %s", p, wall)
		}
	}
	if c := o.counts(); c.Requests != 4*7 || c.Bytes != 4*img.size() || l.bytes.Load() != 4*img.size() {
		t.Errorf("%+v, %d bytes for 4 images of %d", c, l.bytes.Load(), img.size())
	}
	delete(o.content, img.blob(img.layers[3]))
	if _, _, err := l.pulls(t.Context(), o.address, img, 2, 3); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("a layer is missing: %v", err)
	}
}
