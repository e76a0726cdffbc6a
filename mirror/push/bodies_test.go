package push

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"dray/mirror/request"
	"dray/mirror/route"
	"dray/mirror/wire"
	"dray/upstream/oci"
)

// body is a body that a client sends: bytes, and then an end, an error, or nothing for long.
type body struct {
	io.Reader
	end func() error
}

func (b body) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if n == 0 && err == io.EOF {
		return 0, b.end()
	}
	return n, nil
}

func put(b *bodies, from string, length int64, content io.Reader) (raw []byte, release func(), err error) {
	r := httptest.NewRequestWithContext(context.Background(), "PUT", "/v2/team/app/manifests/v1", content)
	r.RemoteAddr, r.ContentLength = from+":1", length
	l := &request.Listener{Routes: &route.Table{Order: []route.Route{{Upstream: "up"}}}}
	x := request.New(l, nil, httptest.NewRecorder(), r, wire.Options{Stall: time.Minute})
	defer x.Close()
	return b.read(x)
}

// A manifest is read whole, or refused for what is wrong with it, whatever length was declared.
func TestReadBody(t *testing.T) {
	eof, cut := func() error { return io.EOF }, func() error { return io.ErrUnexpectedEOF }
	for _, declared := range []bool{true, false} {
		for _, tc := range []struct {
			size int
			end  func() error
			want error
		}{
			{0, eof, nil}, {1, eof, nil}, {smallManifest, eof, nil}, {smallManifest + 1, eof, nil}, {oci.MaxManifestBytes - 1, eof, nil}, {oci.MaxManifestBytes, eof, nil},
			{oci.MaxManifestBytes + 1, eof, oci.ErrSizeInvalid}, {2 * oci.MaxManifestBytes, eof, oci.ErrSizeInvalid},
			{0, cut, oci.ErrManifestInvalid}, {smallManifest, cut, oci.ErrManifestInvalid}, {smallManifest + 1, cut, oci.ErrManifestInvalid}, {1 << 20, cut, oci.ErrManifestInvalid},
		} {
			b, content, length := newBodies(), bytes.Repeat([]byte("x"), tc.size), int64(-1)
			if declared {
				length = int64(tc.size)
				if errors.Is(tc.want, oci.ErrManifestInvalid) {
					length++
				}
			}
			raw, release, err := put(b, "192.0.2.1", length, body{bytes.NewReader(content), tc.end})
			if !errors.Is(err, tc.want) || err == nil && !bytes.Equal(raw, content) {
				t.Errorf("%d bytes, declared %t: %d bytes, %v", tc.size, declared, len(raw), err)
			}
			if held := b.all; err != nil && held != 0 || err == nil && held < len(raw) && len(raw) > smallManifest {
				t.Errorf("%d bytes, declared %t: %d are counted", tc.size, declared, held)
			}
			release()
			release()
			if b.all != 0 || len(b.byOwner) != 0 {
				t.Errorf("%d bytes, declared %t: %d are still counted", tc.size, declared, b.all)
			}
		}
	}
}

// Large manifests that never end take a bounded share of the memory for each client and for all.
// They leave small manifests, and other clients, alone.
func TestBodiesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, left := newBodies(), make(chan struct{})
		endless := func(from string, length int64) {
			_, release, err := put(b, from, length, body{bytes.NewReader(make([]byte, 4_000_000)), func() error { <-left; return io.ErrUnexpectedEOF }})
			if !errors.Is(err, oci.ErrTooManyRequests) && !errors.Is(err, oci.ErrManifestInvalid) {
				t.Error(err)
			}
			release()
		}
		for i := range 500 {
			go endless("192.0.2.66", int64(4_100_000-i%2*4_100_001))
		}
		synctest.Wait()
		if b.all > maxBodiesPerOwner || b.all < maxBodiesPerOwner/2 {
			t.Errorf("one client has %d bytes", b.all)
		}
		if _, release, err := put(b, "192.0.2.66", smallManifest, bytes.NewReader(make([]byte, smallManifest))); err != nil {
			t.Errorf("a small manifest of the same client: %v", err)
		} else {
			release()
		}
		if _, release, err := put(b, "192.0.2.9", 1<<20, bytes.NewReader(make([]byte, 1<<20))); err != nil {
			t.Errorf("a large manifest of another client: %v", err)
		} else {
			release()
		}
		for i := range 500 {
			go endless(fmt.Sprintf("198.51.100.%d", i%250), 4_100_000)
		}
		synctest.Wait()
		if b.all > maxBodies {
			t.Errorf("all clients have %d bytes", b.all)
		}
		// A manifest that is refused is read to its end first.
		if _, _, err := put(b, "192.0.2.66", 4<<20, bytes.NewReader(make([]byte, 4<<20))); !errors.Is(err, oci.ErrTooManyRequests) {
			t.Errorf("a large manifest of the same client: %v", err)
		}
		close(left)
		synctest.Wait()
		if _, release, err := put(b, "192.0.2.66", 4<<20, bytes.NewReader(make([]byte, 4<<20))); err != nil {
			t.Errorf("when memory is free: %v", err)
		} else {
			release()
		}
		synctest.Wait()
		if b.all != 0 || len(b.byOwner) != 0 {
			t.Errorf("%d bytes are still counted", b.all)
		}
	})
}
