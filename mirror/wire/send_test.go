package wire

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
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
	large := Content{ETag: `"layer"`, Size: int64(len(layer)), Body: inFile(layer, file)}
	short := inFile(layer, file)
	short.broken = true // nothing more of the file can be read, as at its end
	ended := Content{ETag: `"layer"`, Size: int64(len(layer)), Body: short}
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
		{name: "plain, fails at the end of the file", content: ended, plain: true, release: failing, want: []string{"header", "hold", "write", "release"}},
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

// coming is a body of which the first bytes have come, in a file; the rest comes with Read, and
// fails where fails says so.
type coming struct {
	*bytes.Reader
	file  *os.File
	there int64
	fails error
	asked int
	until int64
	// broken says that the file is the cause of the errors of sending it.
	broken bool
}

// inFile returns a body that is in a file as a whole.
func inFile(data []byte, file *os.File) *coming {
	return &coming{Reader: bytes.NewReader(data), file: file, there: int64(len(data))}
}

func (c *coming) Until(end int64) { c.until = end }

func (c *coming) Stretch(n int64) (*os.File, int64, error) {
	c.asked++
	at := c.Size() - int64(c.Len())
	if n = min(n, c.there-at); n <= 0 {
		return nil, 0, c.fails
	}
	if _, err := c.file.Seek(at, io.SeekStart); err != nil {
		return nil, 0, err
	}
	return c.file, n, nil
}

func (c *coming) Passed(sent int64, err error) error {
	if _, failed := c.Seek(sent, io.SeekCurrent); failed != nil {
		return failed
	}
	if err != nil && c.broken {
		c.there = 0 // the rest comes with Read
		return nil
	}
	return err
}

// An arriving body is read from its file as far as possible, and then from the body; it is never
// read from the file if files are to be copied. An error breaks the answer.
func TestSendArriving(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 200_000)
	path := filepath.Join(t.TempDir(), "growing")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	failing := errors.New("the origin is gone")
	for _, test := range []struct {
		name, span string
		copied     bool
		fails      error
		from       int
		sent       int
		asked      bool
		until      int // 0: all
	}{
		{name: "whole", sent: len(data), asked: true},
		{name: "range", span: "bytes=1000000-", from: 1_000_000, sent: len(data) - 1_000_000, asked: true},
		{name: "middle", span: "bytes=1000-2999", from: 1000, sent: 2000, asked: true, until: 3000},
		{name: "copied", copied: true, sent: len(data)},
		{name: "middle copied", span: "bytes=1000-2999", copied: true, from: 1000, sent: 2000, until: 3000},
		{name: "fails", fails: failing, sent: 2_000_000, asked: true},
	} {
		body := &coming{Reader: bytes.NewReader(data), file: file, there: 2_000_000, fails: test.fails}
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/", http.NoBody)
		if test.span != "" {
			r.Header.Set("Range", test.span)
		}
		recorder := httptest.NewRecorder()
		w := NewResponse(recorder, r, Options{Stall: time.Minute, CopyFiles: test.copied})
		err := w.Send(Content{ETag: `"layer"`, Size: int64(len(data)), Body: body, Arriving: true})
		if !errors.Is(err, test.fails) || w.Broken() != (test.fails != nil) {
			t.Errorf("%s: %v, broken %v", test.name, err, w.Broken())
		}
		if got := recorder.Body.Bytes(); !bytes.Equal(got, data[test.from:test.from+test.sent]) || w.Sent() != int64(test.sent) {
			t.Errorf("%s: %d bytes of %d, or others", test.name, len(got), test.sent)
		}
		if !recorder.Flushed || (body.asked > 0) != test.asked {
			t.Errorf("%s: flushed %v, asked for a file %d times", test.name, recorder.Flushed, body.asked)
		}
		if until := cmp.Or(test.until, len(data)); body.until != int64(until) {
			t.Errorf("%s: the body was told that %d bytes are wanted, want %d", test.name, body.until, until)
		}
	}
}

// A file that cannot be read to its end costs nothing: the body goes on with Read. The answer
// breaks if the connection is the cause.
func TestSendBrokenFile(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 200_000)
	path := filepath.Join(t.TempDir(), "truncated")
	if err := os.WriteFile(path, data[:1_500_000], 0o600); err != nil {
		t.Fatal(err)
	}
	for _, flag := range []int{os.O_RDONLY, os.O_WRONLY} {
		for _, broken := range []bool{true, false} {
			file, err := os.OpenFile(path, flag, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			handler := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				w := NewResponse(rw, r, Options{Stall: time.Minute})
				body := inFile(data, file)
				body.broken = broken
				err := w.Send(Content{
					ETag: `"layer"`, Size: int64(len(data)),
					Body: body,
				})
				if (err == nil) != broken || w.Broken() == broken {
					t.Errorf("broken file %v: %v, broken answer %v", broken, err, w.Broken())
				}
				if w.Broken() {
					panic(http.ErrAbortHandler)
				}
			})
			_, address := startServer(t, ServerOptions{Splice: true, Handler: handler})
			req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+address, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			resp, err := client.Do(req)
			if err != nil {
				if broken {
					t.Error(err)
				}
				continue
			}
			got, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if (err == nil) != broken || broken && !bytes.Equal(got, data) {
				t.Errorf("broken file %v: %d bytes or others, %v", broken, len(got), err)
			}
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
