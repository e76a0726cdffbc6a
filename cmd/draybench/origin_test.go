package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func testImage(t *testing.T, layers int, size int64) *image {
	t.Helper()
	img, err := newImage("bench/test", "v1", layers, size)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestContentIsTheSameEverywhere(t *testing.T) {
	const want = "sha256:cc239692dab191e3f7337256b3cf87e82c3b26cd5b2a24be9394426800fb9cd3"
	if got := newBlob("seed", 1000).digest; got != want {
		t.Errorf("digest %s instead of %s", got, want)
	}
	img := testImage(t, 2, 1000)
	if img.layers[0].digest == img.layers[1].digest {
		t.Error("two layers are the same")
	}
	if got, want := img.size(), int64(len(img.manifest.bytes)+1024+2000); got != want {
		t.Errorf("size %d instead of %d", got, want)
	}
}

func TestOriginServesAndCounts(t *testing.T) {
	img := testImage(t, 1, 3<<20)
	o, err := openOrigin(shape{}, img)
	if err != nil {
		t.Fatal(err)
	}
	defer o.close()
	layer := img.layers[0]
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	for _, c := range []struct {
		method, path, byteRange string
		status                  int
		body                    []byte
	}{
		{"GET", img.byTag(), "", 200, img.manifest.bytes},
		{"GET", img.byDigest(), "", 200, img.manifest.bytes},
		{"HEAD", img.byTag(), "", 200, nil},
		{"GET", img.blob(layer), "", 200, layer.bytes},
		{"GET", img.blob(layer), "bytes=5-104", 206, layer.bytes[5:105]},
		{"GET", img.blob(layer), "bytes=3145000-", 206, layer.bytes[3145000:]},
		{"GET", img.blob(layer), "bytes=9999999-", 416, nil},
	} {
		t.Run(fmt.Sprint(c.method, c.path, c.byteRange), func(t *testing.T) {
			before := o.counts()
			r, err := http.NewRequestWithContext(t.Context(), c.method, "http://"+o.address+c.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if c.byteRange != "" {
				r.Header.Set("Range", c.byteRange)
			}
			resp, err := transport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != c.status {
				t.Errorf("status %d instead of %d", resp.StatusCode, c.status)
			}
			if c.status < 400 && !bytes.Equal(body, c.body) {
				t.Errorf("%d bytes, not the %d expected", len(body), len(c.body))
			}
			asked := o.counts().since(before)
			if asked.Requests != 1 || c.status < 400 && asked.Bytes != int64(len(c.body)) {
				t.Errorf("counted %+v", asked)
			}
		})
	}
	resp, err := transport.RoundTrip(httptest.NewRequestWithContext(t.Context(), "GET", "http://"+o.address+"/v2/other/manifests/v1", nil))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 404 {
		t.Errorf("status %d for what there is not", resp.StatusCode)
	}
	if got := o.counts().Connections; got < 1 {
		t.Errorf("%d connections", got)
	}
}

// Transfers take as long as the narrower of the two limits requires, to the millisecond of the
// test's fake clock.
func TestOriginThrottles(t *testing.T) {
	const size = 1 << 20
	for _, c := range []struct {
		name        string
		shape       shape
		connections int
		want        time.Duration
	}{
		{"not at all", shape{}, 2, 0},
		{"distance", shape{RTT: 20 * time.Millisecond}, 2, 20 * time.Millisecond},
		{"each connection", shape{PerConnection: size}, 2, time.Second - catchUp},
		{"all together", shape{Total: size}, 2, 2*time.Second - catchUp},
		{"both", shape{PerConnection: size, Total: 4 * size, RTT: 5 * time.Millisecond}, 2, 1005*time.Millisecond - catchUp},
	} {
		t.Run(c.name, func(t *testing.T) {
			img := testImage(t, 1, size)
			synctest.Test(t, func(t *testing.T) {
				o := newOrigin(c.shape, img)
				start := time.Now()
				finished := make(chan error, c.connections)
				for range c.connections {
					go func() {
						r := httptest.NewRequestWithContext(o.connection(context.Background()), "GET", img.blob(img.layers[0]), nil)
						w := httptest.NewRecorder()
						o.ServeHTTP(w, r)
						var err error
						if !bytes.Equal(w.Body.Bytes(), img.layers[0].bytes) {
							err = fmt.Errorf("%d bytes, not the layer", w.Body.Len())
						}
						finished <- err
					}()
				}
				for range c.connections {
					if err := <-finished; err != nil {
						t.Error(err)
					}
				}
				if took := time.Since(start); (took - c.want).Abs() > time.Millisecond {
					t.Errorf("took %s instead of %s", took, c.want)
				}
				want := counts{Requests: int64(c.connections), Connections: int64(c.connections), Bytes: int64(c.connections) * size}
				if diff := cmp.Diff(want, o.counts()); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

func TestOriginStopsForAClientThatLeft(t *testing.T) {
	img := testImage(t, 1, 1<<20)
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin(shape{PerConnection: 1 << 20}, img)
		ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
		defer cancel()
		o.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(o.connection(ctx), "GET", img.blob(img.layers[0]), nil))
		if got := o.counts().Bytes; got < 400<<10 || got > 600<<10 {
			t.Errorf("%d bytes were counted for half of the time", got)
		}
	})
}

func TestNewConnectionsCostARoundTrip(t *testing.T) {
	const rtt = 30 * time.Millisecond
	img := testImage(t, 1, 1000)
	o, err := openOrigin(shape{RTT: rtt}, img)
	if err != nil {
		t.Fatal(err)
	}
	defer o.close()
	c := newLoader(nil).client(o.address, false)
	defer c.close()
	for i, least := range []time.Duration{2 * rtt, rtt} { // a slow machine takes longer
		a, err := c.get(t.Context(), img.byTag(), "")
		if err != nil {
			t.Fatal(err)
		}
		if a.First < least || a.Whole < a.First {
			t.Errorf("request %d: first byte after %s, whole after %s, instead of %s at least", i, a.First, a.Whole, least)
		}
	}
	if got := o.counts().Connections; got != 1 {
		t.Errorf("%d connections for one client", got)
	}
}
