package ctl

import (
	"context"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"dray/cmd/dray/config"
	"dray/mirror/admin"
	"dray/mirror/admin/api"
)

// write puts a configuration into a new directory and returns its path.
func write(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dray.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAdminURL(t *testing.T) {
	off := write(t, "admin: {address: off}\n")
	elsewhere := write(t, "admin: {address: 0.0.0.0:7000}\n")
	bad := write(t, "bogus: 1\n")
	for _, tc := range []struct{ config, flag, want, err string }{
		{want: "http://localhost:6060"},
		{config: elsewhere, want: "http://localhost:7000"},
		{config: elsewhere, flag: "10.0.0.7:6060", want: "http://10.0.0.7:6060"},
		{config: bad, flag: ":6061", want: "http://localhost:6061"},
		{flag: "[::]:6061", want: "http://localhost:6061"},
		{flag: "[::1]:6061", want: "http://[::1]:6061"},
		{flag: "http://dray.internal:6060/", want: "http://dray.internal:6060"},
		{flag: "6060", err: "write one like localhost:6060"},
		{flag: "http://u:SECRET@dray.internal:6060/", err: "write one like localhost:6060"},
		{flag: "https://dray.internal", err: "write one like localhost:6060"},
		{config: off, err: "the admin listener is off"},
		{config: bad, err: "no configuration is needed if you set --admin ADDRESS"},
	} {
		o := Options{Load: func() (config.Config, error) { return config.Load(tc.config, nil) }}
		var found operator
		err := o.find(&found, tc.flag, "")
		got := found.base
		if got != tc.want || fmt.Sprint(err) != "<nil>" && (tc.err == "" || !strings.Contains(err.Error(), tc.err) || strings.Contains(err.Error(), "SECRET")) || err == nil && tc.err != "" {
			t.Errorf("%+v: %s, %v", tc, got, err)
		}
	}
}

// TestListing: a list ends as the API says that it ended, and one that is incomplete is never taken
// for a whole.
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
		{fixed(`{"items": ["a", `), "", "a", "is incomplete"},
		{fixed(`{"items": ["a"`), "", "a", "is incomplete"},
		{fixed(`{"items": ["a"], "more": 1}`), "", "a", "unexpected more"},
		{fixed(`<html>`), "", "", "is incomplete"},
		{fixed(``), "", "", "is incomplete"},
	} {
		params, _ := url.ParseQuery(tc.query)
		got, failed := listing[string](t.Context(), &operator{base: tc.base, client: http.DefaultClient}, "names", params)
		if strings.Join(got, " ") != tc.want || (failed == nil) != (tc.err == "") || failed != nil && !strings.Contains(failed.Error(), tc.err) {
			t.Errorf("%s?%s: %q, %v", tc.base, tc.query, got, failed)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

// TestStatsWords: the table says what the sources of the metrics mean, and nothing of sources that
// gave no bytes.
func TestStatsWords(t *testing.T) {
	var out strings.Builder
	statsTable(&out, api.Stats{Opens: map[string]int64{"flight": 2, "direct": 1}, Upstreams: map[string]map[string]int64{"hub": {"origin": 0, "flight": 1500}}})
	for _, want := range []string{"blobs shared\t2\n", "blobs uncached\t1\n", "hub, shared\t1.5 kB\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "hub, from origin") || strings.Contains(out.String(), "flight\t") {
		t.Error(out.String())
	}
}

// TestLongPage: a page is whole, or there is an error.
func TestLongPage(t *testing.T) {
	size := maxPage
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for part := make([]byte, 1<<20); size > 0; size -= len(part) {
			if _, err := w.Write(part[:min(size, len(part))]); err != nil {
				return
			}
		}
	}))
	defer s.Close()
	o := &operator{base: s.URL, client: s.Client()}
	if page, err := o.page(t.Context(), "/metrics"); err != nil || len(page) != maxPage {
		t.Errorf("%d bytes, %v", len(page), err)
	}
	size = maxPage + 1
	if page, err := o.page(t.Context(), "/metrics"); err == nil || !strings.Contains(err.Error(), "/metrics has more than") {
		t.Errorf("%d bytes of a longer page, %v", len(page), err)
	}
}
