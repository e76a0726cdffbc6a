// Package upstreamtest helps to test upstreams and their users. It has a well-behaved registry,
// images, the suites that every Source and Sink passes, and a Recorder that compares the requests
// with an exact list.
//
// No goroutine of this package outlives the test it was started for.
package upstreamtest

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Recorder records the requests that pass it, in order, one line each: method, path, and the
// query with its names sorted. Ids of upload sessions become "*", and their _state is left out.
// A Recorder may be used by a server, a client, or both.
type Recorder struct {
	// Home, when set, is the host:port of a server. Transport records requests to Home by path, and
	// requests to other hosts as "METHOD elsewhere", because signed URLs differ from run to run.
	Home string

	mu    sync.Mutex // guards lines
	lines []string
}

var uploadPath = regexp.MustCompile(`(/blobs/uploads/)[^/?]+`)

// Line returns the recorded form of a request.
func Line(r *http.Request) string {
	line := r.Method + " " + uploadPath.ReplaceAllString(r.URL.Path, "$1*")
	query := r.URL.Query()
	query.Del("_state")
	if len(query) > 0 {
		line += "?" + strings.ReplaceAll(query.Encode(), "%3A", ":")
	}
	return line
}

func (r *Recorder) add(line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, line)
}

// Handler records the requests to handler.
func (r *Recorder) Handler(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.add(Line(req))
		handler.ServeHTTP(w, req)
	})
}

// Transport records the requests that transport sends.
func (r *Recorder) Transport(transport http.RoundTripper) http.RoundTripper {
	return roundTripper(func(req *http.Request) (*http.Response, error) {
		if r.Home != "" && req.URL.Host != r.Home {
			r.add(req.Method + " elsewhere")
		} else {
			r.add(Line(req))
		}
		return transport.RoundTrip(req)
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Take returns the lines so far and clears them.
func (r *Recorder) Take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	lines := r.lines
	r.lines = nil
	return lines
}

// Expect compares the lines so far with want, and clears them.
func (r *Recorder) Expect(tb testing.TB, want ...string) {
	tb.Helper()
	if diff := cmp.Diff(want, r.Take()); diff != "" {
		tb.Errorf("requests (-want +got):\n%s", diff)
	}
}

// ExpectSet is Expect for requests in any order.
func (r *Recorder) ExpectSet(tb testing.TB, want ...string) {
	tb.Helper()
	got := r.Take()
	slices.Sort(got)
	want = slices.Sorted(slices.Values(want))
	if diff := cmp.Diff(want, got); diff != "" {
		tb.Errorf("requests in any order (-want +got):\n%s", diff)
	}
}
