package admin_test

import (
	"bytes"
	"context"
	"iter"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"dray/mirror/admin"
	"dray/mirror/admin/api"
)

// TestPanic: a panic of an endpoint is logged once, as an error, and answered with 500 in the
// form of the API; during a list it cuts the connection.
func TestPanic(t *testing.T) {
	var log bytes.Buffer
	h := admin.NewHandler(admin.Options{
		Gatherer: prometheus.NewRegistry(), Logger: slog.New(slog.NewTextHandler(&log, nil)),
		API: []admin.Endpoint{
			admin.Query("thing", func(context.Context, url.Values) (wish, error) { panic("a nil in it") }),
			admin.Change("grant", func(context.Context, wish) (wish, error) { panic("a nil in it") }),
			admin.List("things", func(context.Context, url.Values) iter.Seq2[wish, error] {
				return func(yield func(wish, error) bool) {
					yield(wish{}, nil)
					panic("a nil in it")
				}
			}),
		},
	})
	logged := func(what string) {
		t.Helper()
		if text := log.String(); strings.Count(text, "level=ERROR msg=panic") != 1 || !strings.Contains(text, `value="a nil in it"`) || !strings.Contains(text, "recover_test.go") {
			t.Errorf("%s: the log has %s", what, text)
		}
		log.Reset()
	}
	for what, w := range map[string]*httptest.ResponseRecorder{"query": get(h, "/api/v1/thing"), "change": send(h, "/api/v1/grant", "{}", "Content-Type", "application/json")} {
		if e := failure(t, w); w.Code != http.StatusInternalServerError || e.Code != api.CodeInternal || !strings.Contains(e.Message, "a nil in it") {
			t.Errorf("%s: %d %+v", what, w.Code, e)
		}
	}
	if n := strings.Count(log.String(), "level=ERROR msg=panic"); n != 2 {
		t.Errorf("%d panics in the log: %s", n, log.String())
	}
	log.Reset()
	func() {
		defer func() {
			if v := recover(); v != http.ErrAbortHandler {
				t.Errorf("the list ended with %v", v)
			}
		}()
		get(h, "/api/v1/things")
	}()
	logged("list")
}
