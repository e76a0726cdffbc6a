package pipeline

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
)

// wideLayer is a layer that is compressed with zstd in a window.
func wideLayer(t *testing.T, window int) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b, zstd.WithWindowSize(window), zstd.WithEncoderConcurrency(1), zstd.WithSingleSegment(false))
	if err != nil {
		t.Fatal(err)
	}
	plain := archive(t, file{name: "a", text: string(make([]byte, 1<<20))})
	for len(plain) > 0 { // not known as a whole, so the frame has the window
		n := min(len(plain), 1<<18)
		if _, err := w.Write(plain[:n]); err != nil {
			t.Fatal(err)
		}
		plain = plain[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestLargeWindows(t *testing.T) {
	skipped := append([]byte{0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 'x', 'y', 'z'}, wideLayer(t, 64<<20)...)
	later := append(wideLayer(t, 1<<20), wideLayer(t, 64<<20)...)
	const raise, one = "archive.max_window", "one frame"
	for _, tc := range []struct {
		name  string
		layer []byte
		most  int64
		fix   string // "": no finding
	}{
		{"32 MiB", wideLayer(t, 32<<20), 0, ""},
		{"128 MiB", wideLayer(t, 128<<20), 0, ""},
		{"256 MiB", wideLayer(t, 256<<20), 0, raise},
		{"64 MiB behind a frame that is skipped", skipped, 0, ""},
		{"64 MiB, and 32 are allowed", wideLayer(t, 64<<20), 32 << 20, raise},
		{"64 MiB, and 256 are allowed", wideLayer(t, 64<<20), 256 << 20, ""},
		{"8 MiB, and 4 are allowed", wideLayer(t, 8<<20), 4 << 20, raise},
		{"64 MiB, but not at first", later, 0, one},
		{"64 MiB, but not at first, and 32 are allowed", later, 32 << 20, raise},
	} {
		p, err := New(Options{Limits: Limits{MaxWindow: tc.most}, Steps: []Step{{Stage: &noting{name: "v"}}}})
		if err != nil {
			t.Fatal(err)
		}
		s, err := p.Scan(t.Context(), Layer{}, bytes.NewReader(tc.layer), func() (digest.Digest, error) { return digest.FromBytes(tc.layer), nil })
		if err != nil {
			t.Fatal(err)
		}
		r := &Report{}
		p.addScanned(s, Place{}, r)
		found := len(r.Findings) == 1 && r.Findings[0].Rule == "window"
		if found != (tc.fix != "") || found && !strings.Contains(r.Findings[0].Fix, tc.fix) || !found && len(r.Findings)+len(r.Unknowns) > 0 || s.Archive.Format != FormatZstd {
			t.Errorf("%s: %+v, %+v", tc.name, s.Archive, r.Findings)
		}
		if len(p.o.Workers.windows) != 0 {
			t.Errorf("%s: the turn was kept", tc.name)
		}
	}
}

// Layers with large windows take turns, and do not keep others from being worked on.
func TestLargeWindowsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := NewWorkers(1)
		w.slots <- struct{}{}
		release, err := w.wide(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		<-w.slots // its client is slow
		var second error = errors.New("still waits")
		go func() {
			w.slots <- struct{}{}
			defer func() { <-w.slots }()
			release, err := w.wide(t.Context())
			if second = err; err == nil {
				release()
			}
		}()
		synctest.Wait()
		if second == nil || len(w.slots) != 0 {
			t.Errorf("the second: %v, with %d slots taken", second, len(w.slots))
		}
		release()
		synctest.Wait()
		if second != nil || len(w.windows) != 0 {
			t.Errorf("the second has no turn: %v", second)
		}
	})
}
