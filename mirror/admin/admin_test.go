package admin_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"dray/mirror/admin"
	"dray/mirror/admin/api"
	"dray/mirror/identity"
	"dray/upstream/oci"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func ask(h http.Handler, method, target, host string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, nil)
	r.Host = host
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func get(h http.Handler, target string) *httptest.ResponseRecorder {
	return ask(h, http.MethodGet, target, "localhost:6060")
}

func plain() http.Handler { return admin.NewHandler(admin.Options{Gatherer: prometheus.NewRegistry()}) }

func TestRoutes(t *testing.T) {
	for _, c := range []struct {
		method, target string
		status         int
		body           string
	}{
		{"GET", "/", 200, "/metrics"},
		{"GET", "/healthz", 200, "ok\n"},
		{"HEAD", "/healthz", 200, ""},
		{"GET", "/readyz", 200, `"ready"`},
		{"GET", "/metrics", 200, ""},
		{"GET", "/debug/pprof/", 200, "goroutine"},
		{"GET", "/debug/pprof/heap?debug=1", 200, "heap profile"},
		{"GET", "/debug/pprof/goroutine?debug=1", 200, "goroutine profile"},
		{"GET", "/debug/pprof/cmdline", 200, "admin.test"},
		{"GET", "/debug/pprof/symbol", 200, "num_symbols"},
		{"POST", "/debug/pprof/symbol", 200, "num_symbols"},
		{"GET", "/debug/pprof/none", 404, ""},
		{"GET", "/none", 404, ""},
		{"POST", "/healthz", 405, ""},
		{"DELETE", "/metrics", 405, ""},
		{"POST", "/debug/pprof/profile", 405, ""},
	} {
		w := ask(plain(), c.method, c.target, "localhost:6060")
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.body) {
			t.Errorf("%s %s: %d %.200s", c.method, c.target, w.Code, w.Body)
		}
	}
}

// TestTrace takes a real, short trace and profile over a server.
func TestTrace(t *testing.T) {
	server := httptest.NewServer(plain())
	defer server.Close()
	for _, path := range []string{"/debug/pprof/trace?seconds=0.01", "/debug/pprof/profile?seconds=1"} {
		resp, err := server.Client().Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != 200 || len(body) < 100 {
			t.Errorf("%s: %d, %d bytes, %v", path, resp.StatusCode, len(body), err)
		}
	}
	server.Client().CloseIdleConnections()
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	counter := prometheus.NewCounter(prometheus.CounterOpts{Name: "dray_test_total", Help: "Test."})
	broken := prometheus.NewDesc("dray_broken", "Broken.", nil, nil)
	reg.MustRegister(counter, failing{broken})
	counter.Add(3)
	var log bytes.Buffer
	h := admin.NewHandler(admin.Options{Gatherer: reg, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	w := get(h, "/metrics")
	if w.Code != 200 || !strings.Contains(w.Body.String(), "\ndray_test_total 3\n") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if !strings.Contains(log.String(), "no luck") {
		t.Errorf("the broken collector was not logged: %s", log.String())
	}
	w = ask(h, "GET", "/metrics", "localhost", "Accept", "application/openmetrics-text;version=1.0.0")
	if !strings.HasSuffix(w.Body.String(), "# EOF\n") {
		t.Errorf("OpenMetrics: %s", w.Body)
	}
}

type failing struct{ desc *prometheus.Desc }

func (f failing) Describe(ch chan<- *prometheus.Desc) { ch <- f.desc }
func (f failing) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.NewInvalidMetric(f.desc, errors.New("no luck"))
}

func TestReadiness(t *testing.T) {
	good := func(context.Context) error { return nil }
	bad := func(context.Context) error { return errors.New("connection refused") }
	check := func(name string, run func(context.Context) error, critical bool) admin.Check {
		return admin.Check{Name: name, Run: run, Critical: critical}
	}
	result := func(name string, critical bool, err string) api.Result {
		return api.Result{Name: name, OK: new(err == ""), Critical: critical, Error: err}
	}
	for name, c := range map[string]struct {
		checks []admin.Check
		code   int
		want   api.Readiness
	}{
		"nothing to check": {nil, 200, api.Readiness{Status: api.Ready, Checks: []api.Result{}}},
		"ready": {
			[]admin.Check{check("disk", good, true), check("redis", good, false)}, 200,
			api.Readiness{Status: api.Ready, Checks: []api.Result{result("disk", true, ""), result("redis", false, "")}},
		},
		"not known yet": {
			[]admin.Check{check("redis", func(context.Context) error { return fmt.Errorf("%w", admin.ErrUnknown) }, true)}, 200,
			api.Readiness{Status: api.Ready, Checks: []api.Result{{Name: "redis", Critical: true}}},
		},
		"degraded": {
			[]admin.Check{check("disk", good, true), check("redis", bad, false)}, 200,
			api.Readiness{Status: api.Degraded, Checks: []api.Result{result("disk", true, ""), result("redis", false, "connection refused")}},
		},
		"not ready": {
			[]admin.Check{check("disk", bad, true), check("redis", bad, false)}, 503,
			api.Readiness{Status: api.NotReady, Checks: []api.Result{result("disk", true, "connection refused"), result("redis", false, "connection refused")}},
		},
		"panic": {
			[]admin.Check{check("disk", func(context.Context) error { panic("oh") }, true)}, 503,
			api.Readiness{Status: api.NotReady, Checks: []api.Result{result("disk", true, "panic: oh")}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := get(admin.NewHandler(admin.Options{Gatherer: prometheus.NewRegistry(), Checks: c.checks}), "/readyz")
			var got api.Readiness
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
				t.Fatalf("%v in %s", err, w.Body)
			}
			for i := range got.Checks {
				got.Checks[i].Seconds = 0
			}
			if diff := cmp.Diff(c.want, got); diff != "" || w.Code != c.code {
				t.Errorf("%d, (-want +got):\n%s", w.Code, diff)
			}
			if ct := w.Header().Get("Content-Type"); ct != "application/json" {
				t.Errorf("content type %s", ct)
			}
		})
	}
}

// TestSlowChecks shows that checks run side by side and are cut off.
func TestSlowChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wait := func(d time.Duration) func(context.Context) error {
			return func(ctx context.Context) error {
				select {
				case <-time.After(d):
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		}
		h := admin.NewHandler(admin.Options{Gatherer: prometheus.NewRegistry(), Checks: []admin.Check{
			{Name: "a", Run: wait(time.Second)}, {Name: "b", Run: wait(time.Second)}, {Name: "c", Run: wait(time.Hour)},
		}})
		start := time.Now()
		w := get(h, "/readyz")
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("took %v", took)
		}
		var got api.Readiness
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		want := api.Readiness{Status: api.Degraded, Checks: []api.Result{
			{Name: "a", OK: new(true), Seconds: 1}, {Name: "b", OK: new(true), Seconds: 1},
			{Name: "c", OK: new(false), Seconds: 2, Error: context.DeadlineExceeded.Error()},
		}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestHosts(t *testing.T) {
	h := admin.NewHandler(admin.Options{Gatherer: prometheus.NewRegistry(), Hosts: []string{"Dray.example"}})
	for _, host := range []string{
		"localhost", "localhost:6060", "LOCALHOST:1", "dray.localhost", "localhost.", "127.0.0.1:6060", "127.0.0.2", "[::1]:6060", "[::1]",
		"10.1.2.3:6060", "dray.example", "DRAY.example:6060", "",
	} {
		for _, path := range []string{"/", "/healthz", "/readyz", "/metrics", "/debug/pprof/"} {
			if w := ask(h, "GET", path, host); w.Code != 200 {
				t.Errorf("%s of host %q: %d", path, host, w.Code)
			}
		}
	}
	for _, host := range []string{
		"evil.example", "evil.example:6060", "127.0.0.1.evil.example", "localhost.evil.example", "notlocalhost", "evil.dray.example",
		"127.0.0.1.", "0x7f.1", "127.1", "[::1", "localhost:6060:1", "1:2:3", "@localhost", "localhost,evil",
	} {
		for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
			if w := ask(h, "GET", path, host); w.Code != 200 {
				t.Errorf("%s of host %q: %d", path, host, w.Code)
			}
		}
		for _, path := range []string{"/", "/debug/pprof/", "/none", "/metrics/", "/healthz/x", "/api/v1/stats"} {
			w := ask(h, "GET", path, host)
			if w.Code != http.StatusMisdirectedRequest || strings.Contains(w.Body.String(), "pprof") {
				t.Errorf("%s of host %q: %d %s", path, host, w.Code, w.Body)
			}
		}
	}
}

// TestToken: with a token, health and metrics are for everybody, and all else is for those who have
// the token.
func TestToken(t *testing.T) {
	token := "one"
	h := admin.NewHandler(admin.Options{
		Gatherer: prometheus.NewRegistry(), Operators: identity.Operators{Token: func() string { return token }},
		API: []admin.Endpoint{admin.Change("purge", func(context.Context, struct{}) (string, error) { return "purged", nil })},
	})
	request := func(method, path, authorization string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, path, strings.NewReader("{}"))
		r.Host = "localhost"
		r.Header.Set("Content-Type", "application/json")
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
		if w := request("GET", path, ""); w.Code != 200 {
			t.Errorf("%s without the token: %d", path, w.Code)
		}
	}
	for _, q := range [][2]string{{"GET", "/"}, {"GET", "/debug/pprof/"}, {"GET", "/debug/pprof/cmdline"}, {"POST", "/api/v1/purge"}, {"GET", "/api/v1/none"}, {"POST", "/metrics"}} {
		for _, authorization := range []string{"", "Bearer two", "Bearer ", "Bearer one ", "Basic b25l", "one"} {
			w := request(q[0], q[1], authorization)
			if w.Code != 401 || w.Header().Get("WWW-Authenticate") != "Bearer" || !strings.Contains(w.Body.String(), `"unauthorized"`) {
				t.Errorf("%s %s with %q: %d %s", q[0], q[1], authorization, w.Code, w.Body)
			}
		}
		if w := request(q[0], q[1], "Bearer one"); w.Code == 401 {
			t.Errorf("%s %s with the token: %d", q[0], q[1], w.Code)
		}
	}
	if token = "two"; request("GET", "/", "Bearer one").Code != 401 || request("GET", "/", "Bearer two").Code != 200 {
		t.Error("the token was not replaced")
	}
}

// byName recognises everybody by the name alone.
type byName struct{}

func (byName) Authenticate(r *http.Request, _ []identity.Need) (identity.Principal, error) {
	name, _, ok := r.BasicAuth()
	if !ok {
		e := oci.ErrUnauthorized.WithStatus(http.StatusUnauthorized)
		e.Challenge = []string{`Basic realm="dray"`}
		return identity.Principal{}, e
	}
	if name == "nobody knows" {
		return identity.Principal{}, errors.New("the password file cannot be read")
	}
	return identity.Principal{Name: name}, nil
}

// TestOperators: reading is one right, and changes and profiles are another. The log names who made
// a change.
func TestOperators(t *testing.T) {
	var log bytes.Buffer
	h := admin.NewHandler(admin.Options{
		Gatherer: prometheus.NewRegistry(), Logger: slog.New(slog.NewTextHandler(&log, nil)),
		Operators: identity.Operators{Access: &identity.Access{Authenticator: byName{}, Rules: []identity.Rule{
			{Users: []string{"viewer"}, Actions: []identity.Action{identity.View}}, {Users: []string{"operator"}, Actions: []identity.Action{identity.Operate}},
		}}},
		API: []admin.Endpoint{
			admin.Change("purge", func(context.Context, struct{}) (string, error) { return "purged", nil }),
			admin.Query("stats", func(context.Context, url.Values) (string, error) { return "few", nil }),
		},
	})
	for _, test := range []struct {
		method, path                 string
		viewer, operator, nobody, no int // the status for each
	}{
		{"GET", "/", 200, 200, 401, 500},
		{"GET", "/metrics", 200, 200, 200, 200},
		{"GET", "/readyz", 200, 200, 200, 200},
		{"GET", "/api/v1/stats", 200, 200, 401, 500},
		{"GET", "/api/v1/none", 404, 404, 401, 500},
		{"POST", "/api/v1/purge", 403, 200, 401, 500},
		{"GET", "/debug/pprof/", 403, 200, 401, 500},
		{"POST", "/debug/pprof/symbol", 403, 200, 401, 500},
	} {
		for user, want := range map[string]int{"viewer": test.viewer, "operator": test.operator, "": test.nobody, "nobody knows": test.no} {
			r := httptest.NewRequest(test.method, test.path, strings.NewReader("{}"))
			r.Host = "localhost"
			r.Header.Set("Content-Type", "application/json")
			if user != "" {
				r.SetBasicAuth(user, "a password")
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != want {
				t.Errorf("%s %s by %q: %d %s", test.method, test.path, user, w.Code, w.Body)
			}
			if asks := w.Header().Get("WWW-Authenticate") != ""; asks != (want == 401) {
				t.Errorf("%s %s by %q: challenge %q", test.method, test.path, user, w.Header().Get("WWW-Authenticate"))
			}
			if strings.Contains(w.Body.String(), "password file") {
				t.Errorf("%s %s by %q: the answer shows the cause: %s", test.method, test.path, user, w.Body)
			}
		}
	}
	if text := log.String(); !strings.Contains(text, "the password file cannot be read") || strings.Count(text, "did=purge") != 1 || !strings.Contains(text, "user=operator") {
		t.Errorf("the log has %s", text)
	}
}

// TestHealthAlone: the listener of health and metrics serves them under any name, and nothing else.
func TestHealthAlone(t *testing.T) {
	h := admin.NewHealth(admin.Options{
		Gatherer:  prometheus.NewRegistry(),
		Operators: identity.Operators{Token: func() string { return "a token" }},
		API:       []admin.Endpoint{admin.Change("purge", func(context.Context, struct{}) (string, error) { return "purged", nil })},
	})
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/metrics": 200, "/": 404, "/api/v1/purge": 404, "/debug/pprof/": 404} {
		for _, host := range []string{"dray.monitoring.svc:9090", "10.1.2.3", ""} {
			if w := ask(h, "GET", path, host, "Authorization", "Bearer a token"); w.Code != want {
				t.Errorf("%s of host %q: %d", path, host, w.Code)
			}
		}
	}
}

func TestOtherSites(t *testing.T) {
	for site, want := range map[string]int{"cross-site": 403, "same-site": 403, "same-origin": 200, "none": 200} {
		if w := ask(plain(), "GET", "/debug/pprof/", "localhost:6060", "Sec-Fetch-Site", site); w.Code != want {
			t.Errorf("%s: %d", site, w.Code)
		}
	}
}

// TestDefaultMux shows that nothing here serves what net/http/pprof puts there.
func TestDefaultMux(t *testing.T) {
	if w := get(plain(), "/debug/vars"); w.Code != 404 {
		t.Errorf("the default mux shows through: %d", w.Code)
	}
}

// TestPage: browsers get the page, and other programs the list of addresses. A link on another site
// leads to the page, but a site can neither show it nor fetch it.
func TestPage(t *testing.T) {
	h := admin.NewHandler(admin.Options{Gatherer: prometheus.NewRegistry(), Page: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "page of ", r.URL.Path) })})
	link := []string{"Accept", "text/html", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}
	for _, c := range []struct {
		what, method, path string
		header             []string
		status             int
		body               string
	}{
		{"curl", "GET", "/", []string{"Accept", "*/*"}, 200, "/readyz"},
		{"a browser", "GET", "/", []string{"Accept", "text/html,application/xhtml+xml,*/*;q=0.8"}, 200, "page of /"},
		{"another page", "GET", "/ui/images", nil, 200, "page of /ui/images"},
		{"a change", "POST", "/ui/images", nil, 405, ""},
		{"a link", "GET", "/ui/images", link, 200, "page of /ui/images"},
		{"a link to the first page", "GET", "/", link, 200, "page of /"},
		{"a link to a profile", "GET", "/debug/pprof/", link, 403, ""},
		{"a link to the API", "GET", "/api/v1/live", link, 403, ""},
		{"a form", "POST", "/", link, 403, ""},
		{"a frame", "GET", "/", append(link[:len(link)-1:len(link)-1], "iframe"), 403, ""},
		{"an image", "GET", "/", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "image"}, 403, ""},
		{"another host name", "GET", "/ui/images", []string{"Host", "evil.example"}, 421, ""},
	} {
		host := "localhost:6060"
		if len(c.header) == 2 && c.header[0] == "Host" {
			host = c.header[1]
		}
		if w := ask(h, c.method, c.path, host, c.header...); w.Code != c.status || !strings.Contains(w.Body.String(), c.body) {
			t.Errorf("%s: %d %s, want %d with %q", c.what, w.Code, w.Body, c.status, c.body)
		}
	}
}
