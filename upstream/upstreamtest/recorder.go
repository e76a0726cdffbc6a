// Package upstreamtest has what tests of upstreams and of their users share: a Recorder that
// compares the exact list of requests with a budget, a well-behaved registry, images, and the
// suites that every Source and Sink passes.
//
// Nothing here starts a goroutine that outlives the test it was given.
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

// Recorder keeps the list of requests that passed it, in order, one line each: method, path, and
// the query with its names sorted. Ids of upload sessions become "*". It may stand before a server,
// behind a client, or both.
type Recorder struct {
	// Home, when set, is the host:port whose requests are recorded by path by Transport. The
	// requests to other hosts are recorded as "METHOD elsewhere", because signed URLs differ from
	// run to run.
	Home string

	mu    sync.Mutex // guards lines
	lines []string
}

var uploadPath = regexp.MustCompile(`(/blobs/uploads/)[^/?]+`)

// Line is the recorded form of a request.
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

// Handler records what next is asked.
func (r *Recorder) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.add(Line(req))
		next.ServeHTTP(w, req)
	})
}

// Transport records what next is asked to send.
func (r *Recorder) Transport(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(req *http.Request) (*http.Response, error) {
		if r.Home != "" && req.URL.Host != r.Home {
			r.add(req.Method + " elsewhere")
		} else {
			r.add(Line(req))
		}
		return next.RoundTrip(req)
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Take returns the lines so far and forgets them.
func (r *Recorder) Take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	lines := r.lines
	r.lines = nil
	return lines
}

// Expect compares the lines so far with the whole list wanted, and forgets them.
func (r *Recorder) Expect(tb testing.TB, want ...string) {
	tb.Helper()
	if diff := cmp.Diff(want, r.Take()); diff != "" {
		tb.Errorf("requests (-want +got):\n%s", diff)
	}
}

// ExpectSet is Expect for requests whose order is not determined.
func (r *Recorder) ExpectSet(tb testing.TB, want ...string) {
	tb.Helper()
	got := r.Take()
	slices.Sort(got)
	want = slices.Sorted(slices.Values(want))
	if diff := cmp.Diff(want, got); diff != "" {
		tb.Errorf("requests in any order (-want +got):\n%s", diff)
	}
}
