package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"dray/mirror/admin"
	"dray/mirror/admin/api"

	"github.com/prometheus/client_golang/prometheus"
)

// admin is the address of the stack's admin listener, which is served from the first call on.
func (s *stack) admin() string {
	s.Helper()
	if s.adminURL == "" {
		server := httptest.NewServer(s.servers[len(s.servers)-1].Handler)
		s.Cleanup(server.Close)
		s.adminURL = server.URL
	}
	return strings.TrimPrefix(s.adminURL, "http://")
}

// operator runs a subcommand against the stack.
func (s *stack) operator(args ...string) (code int, stdout, stderr string) {
	s.Helper()
	var out, errs bytes.Buffer
	code = run(s.Context(), append(args, "--admin", s.admin()), nil, strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

// operated is what a subcommand that succeeds prints with --json.
func operated[A any](s *stack, args ...string) A {
	s.Helper()
	var a A
	code, stdout, stderr := s.operator(append(args, "--json")...)
	if code != 0 {
		s.Fatalf("%q: %d %s", args, code, stderr)
	}
	if err := json.Unmarshal([]byte(stdout), &a); err != nil {
		s.Fatalf("%q: %v in %s", args, err, stdout)
	}
	return a
}

func TestAdminURL(t *testing.T) {
	off := write(t, "dray.yaml", "admin: {address: off}\n")
	elsewhere := write(t, "dray.yaml", "admin: {address: 0.0.0.0:7000}\n")
	bad := write(t, "dray.yaml", "bogus: 1\n")
	for _, tc := range []struct{ config, flag, want, err string }{
		{want: "http://localhost:6060"},
		{config: elsewhere, want: "http://localhost:7000"},
		{config: elsewhere, flag: "10.0.0.7:6060", want: "http://10.0.0.7:6060"},
		{config: bad, flag: ":6061", want: "http://localhost:6061"},
		{flag: "[::]:6061", want: "http://localhost:6061"},
		{flag: "[::1]:6061", want: "http://[::1]:6061"},
		{flag: "http://dray.internal:6060/", want: "http://dray.internal:6060"},
		{flag: "6060", err: "write an address like localhost:6060"},
		{flag: "https://dray.internal", err: "write an address like localhost:6060"},
		{config: off, err: "the admin listener is off"},
		{config: bad, err: "with --admin ADDRESS no configuration is needed"},
	} {
		in := &invocation{configPath: tc.config}
		got, err := in.adminURL(tc.flag)
		if got != tc.want || fmt.Sprint(err) != "<nil>" && (tc.err == "" || !strings.Contains(err.Error(), tc.err)) || err == nil && tc.err != "" {
			t.Errorf("%+v: %s, %v", tc, got, err)
		}
	}
}

// hangsUp is the address of a server that reads a request and closes the connection.
func hangsUp(t *testing.T) string {
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	t.Cleanup(s.Close)
	return s.URL
}

// TestOperatorFailures: whatever is wrong, the user is told what, and the exit code says of which kind it is.
func TestOperatorFailures(t *testing.T) {
	answer := func(status int, body string) *httptest.Server {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}))
		t.Cleanup(s.Close)
		return s
	}
	for _, tc := range []struct {
		address string
		code    int
		stderr  string
	}{
		{"127.0.0.1:" + freePort(t), exitAbsent, "dray is not running, or its admin listener is elsewhere"},
		{hangsUp(t), exitFailed, "did not answer: it closed the connection"},
		{answer(404, "404 page not found\n").URL, exitFailed, "answered 404 Not Found: 404 page not found"},
		{answer(200, "<html>").URL, exitFailed, "is not understood"},
		{answer(409, `{"error": {"code": "conflict", "message": "somebody reads it"}}`).URL, exitFailed, "somebody reads it\n"},
		{"nonsense", exitUsage, "write an address like"},
	} {
		code, stdout, stderr := runDray(t, nil, "stats", "--admin", tc.address)
		if code != tc.code || stdout != "" || !strings.Contains(stderr, tc.stderr) {
			t.Errorf("%s: %d\nstdout %s\nstderr %s", tc.address, code, stdout, stderr)
		}
	}
}

// TestListing: a list ends as the API says that it ended, and one that breaks off is never taken for a whole.
func TestListing(t *testing.T) {
	names := func(_ context.Context, params url.Values) iter.Seq2[string, error] {
		return func(yield func(string, error) bool) {
			for _, n := range params["name"] {
				var err error
				if n == "broken" {
					err = api.Errorf(api.CodeUnavailable, "no more")
				}
				if !yield(n, err) || err != nil {
					return
				}
			}
		}
	}
	good := httptest.NewServer(admin.NewHandler(admin.Options{Gatherer: prometheus.NewRegistry(), API: []admin.Endpoint{admin.List("names", names)}}))
	defer good.Close()
	fixed := func(body string) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }))
		t.Cleanup(s.Close)
		return s.URL
	}
	for _, tc := range []struct {
		base, query, want, err string
	}{
		{good.URL, "", "", ""},
		{good.URL, "name=a&name=b", "a b", ""},
		{good.URL, "name=a&name=broken", "a", "no more"},
		{good.URL, "name=broken", "", "no more"},
		{fixed(`{"items": ["a", `), "", "a", "breaks off"},
		{fixed(`{"items": ["a"`), "", "a", "not complete"},
		{fixed(`{"items": ["a"], "more": 1}`), "", "a", "unexpected more"},
		{fixed(`<html>`), "", "", "breaks off"},
		{fixed(``), "", "", "not complete"},
	} {
		params, _ := url.ParseQuery(tc.query)
		var got []string
		var failed error
		for n, err := range listing[string](t.Context(), &operator{base: tc.base, client: http.DefaultClient}, "names", params) {
			if failed = err; err == nil {
				got = append(got, n)
			}
		}
		if strings.Join(got, " ") != tc.want || (failed == nil) != (tc.err == "") || failed != nil && !strings.Contains(failed.Error(), tc.err) {
			t.Errorf("%s?%s: %q, %v", tc.base, tc.query, got, failed)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 19_800_000: "19.8 MB", -2500: "-2.5 kB", 9_223_372_036_854_775_807: "9.2 EB"} {
		if got := size(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

// TestStats: what was sent and fetched adds up.
func TestStats(t *testing.T) {
	s := startStack(t, t.TempDir())
	img := seed(t, s.ecr, "team/app", "v1", 100<<10)
	layer := img.manifest.Layers[0].Size
	for range 3 {
		s.want(200, "GET", "/v2/team/app/manifests/v1", nil)
		s.want(200, "GET", "/v2/team/app/blobs/"+img.layer.String(), nil)
	}
	got := operated[api.Stats](s, "stats")
	manifest := int64(len(img.manifest.Raw))
	if got.SentBytes != 3*(layer+manifest) || got.FetchedBytes != layer || got.SavedBytes != got.SentBytes-got.FetchedBytes || got.Requests != 6 {
		t.Errorf("%+v for a layer of %d bytes", got, layer)
	}
	if got.Opens["origin"] != 1 || got.Opens["disk"] != 2 || got.Upstreams["ecr"]["disk"] != 2*layer || got.Upstreams["ecr"]["cache"] != 2*manifest {
		t.Errorf("%+v", got)
	}
	code, stdout, stderr := s.operator("stats")
	if code != 0 {
		t.Fatal(stderr)
	}
	golden(t, "testdata/stats.golden", stdout)
}

// TestStatsWords: the table says what the sources of the metrics mean, and nothing of sources that gave no bytes.
func TestStatsWords(t *testing.T) {
	var out strings.Builder
	statsTable(&out, api.Stats{Opens: map[string]int64{"flight": 2, "direct": 1}, Upstreams: map[string]map[string]int64{"hub": {"origin": 0, "flight": 1500}}})
	for _, want := range []string{"blobs shared, from a fetch under way\t2\n", "blobs passed through uncached\t1\n", "hub, shared, from a fetch under way\t1.5 kB\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "hub, from origin") || strings.Contains(out.String(), "flight\t") {
		t.Error(out.String())
	}
}
