package wire

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// telling writes down what it is told, and what is written meanwhile.
type telling struct {
	*httptest.ResponseRecorder
	events  []string
	broken  error
	release error
}

func (g *telling) Hold()          { g.events = append(g.events, "hold") }
func (g *telling) Release() error { g.events = append(g.events, "release"); return g.release }

func (g *telling) WriteHeader(status int) {
	g.events = append(g.events, "header")
	g.ResponseRecorder.WriteHeader(status)
}

func (g *telling) Write(p []byte) (int, error) {
	if g.broken != nil {
		return 0, g.broken
	}
	g.events = append(g.events, "write")
	return g.ResponseRecorder.Write(p)
}

// Of what is encrypted only writes of many records are gathered, each for itself, and released
// on each way out; headers and small answers never. Without TLS the beginning of a file is
// gathered with its rest.
func TestBodiesAreGathered(t *testing.T) {
	layer := bytes.Repeat([]byte("layer"), 100_000)
	path := filepath.Join(t.TempDir(), "layer")
	if err := os.WriteFile(path, layer, 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	large := Content{ETag: `"layer"`, Size: int64(len(layer)), Body: file, File: file}
	small := Content{ETag: `"layer"`, Size: 300, Body: bytes.NewReader(layer[:300]), Small: true}
	failing := errors.New("the connection is gone")
	for _, test := range []struct {
		name            string
		content         Content
		span            string
		plain           bool
		broken, release error
		want            []string
	}{
		{name: "large", content: large, want: []string{"header", "hold", "write", "release", "hold", "write", "release"}},
		{name: "plain", content: large, plain: true, want: []string{"header", "hold", "write", "release"}},
		{name: "plain and small", content: small, plain: true, want: []string{"header", "write"}},
		{name: "plain, fails", content: large, plain: true, broken: failing, want: []string{"header", "hold", "release"}},
		{name: "plain, fails late", content: large, plain: true, release: failing, want: []string{"header", "hold", "write", "release"}},
		{name: "small", content: small, want: []string{"header", "write"}},
		{name: "one record", content: large, span: "bytes=0-16383", want: []string{"header", "write"}},
		{name: "fails", content: large, broken: failing, want: []string{"header", "hold", "release"}},
		{name: "fails late", content: large, release: failing, want: []string{"header", "hold", "write", "release"}},
	} {
		g := &telling{ResponseRecorder: httptest.NewRecorder(), broken: test.broken, release: test.release}
		r := httptest.NewRequestWithContext(context.WithValue(t.Context(), gathererKey{}, g), "GET", "/", http.NoBody)
		if !test.plain {
			r.TLS = &tls.ConnectionState{}
		}
		if test.span != "" {
			r.Header.Set("Range", test.span)
		}
		w := NewResponse(g, r, Options{Stall: time.Minute})
		err := w.Send(test.content)
		if fails := test.broken != nil || test.release != nil; (err != nil) != fails || w.Broken() != fails {
			t.Errorf("%s: %v, broken %v", test.name, err, w.Broken())
		}
		if test.plain { // recorders take no file, and net/http decides how to copy it
			g.events = slices.Compact(g.events)
		}
		if !slices.Equal(g.events, test.want) {
			t.Errorf("%s: %v, want %v", test.name, g.events, test.want)
		}
	}
}

// FuzzMatches: a list of entity tags matches when the tag is in it.
func FuzzMatches(f *testing.F) {
	f.Add(`"a", W/"b"`)
	f.Add(`*`)
	f.Add(`,,"`)
	f.Fuzz(func(t *testing.T, header string) {
		const etag = `"sha256:abc"`
		if matches(header, etag) && !strings.Contains(header, etag) && !strings.Contains(header, "*") {
			t.Fatalf("%q matches", header)
		}
		if !matches(header+","+etag, etag) || !matches("W/"+etag+" , "+header, etag) {
			t.Fatalf("the tag after %q does not match", header)
		}
	})
}
