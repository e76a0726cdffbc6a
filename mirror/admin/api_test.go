package admin_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"dray/mirror/admin"
	"dray/mirror/admin/api"
)

type wish struct {
	Name  string `json:"name"`
	Times int    `json:"times"`
}

// things is an API with one endpoint of each form, and the log of what it changed.
func things(done *[]wish, log io.Writer) http.Handler {
	return admin.NewHandler(admin.Options{
		Gatherer: prometheus.NewRegistry(),
		Logger:   slog.New(slog.NewTextHandler(log, nil)),
		API: []admin.Endpoint{
			admin.Query("thing", func(_ context.Context, params url.Values) (wish, error) {
				switch name := params.Get("name"); name {
				case "":
					return wish{}, api.Errorf(api.CodeInvalid, "name is missing")
				case "broken":
					return wish{}, errors.New("disk on fire")
				case "wrapped":
					return wish{}, fmt.Errorf("find it: %w", api.Errorf(api.CodeNotFound, "no thing"))
				default:
					return wish{Name: name}, nil
				}
			}),
			admin.List("things", func(_ context.Context, params url.Values) iter.Seq2[wish, error] {
				return func(yield func(wish, error) bool) {
					for i, name := range params["name"] {
						if name == "broken" {
							yield(wish{}, api.Errorf(api.CodeUnavailable, "no more"))
							return
						}
						if !yield(wish{name, i}, nil) {
							return
						}
					}
				}
			}),
			admin.Change("grant", func(_ context.Context, w wish) (wish, error) {
				if w.Name == "taken" {
					return w, api.Errorf(api.CodeConflict, "%s is taken", w.Name)
				}
				*done = append(*done, w)
				return w, nil
			}),
		},
	})
}

func send(h http.Handler, target, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, target, strings.NewReader(body))
	r.Host = "localhost:6060"
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

const isJSON = "application/json"

func failure(t *testing.T, w *httptest.ResponseRecorder) *api.Error {
	t.Helper()
	var f api.Failure
	if err := json.Unmarshal(w.Body.Bytes(), &f); err != nil || f.Error == nil {
		t.Fatalf("%d is not a failure in JSON: %v\n%s", w.Code, err, w.Body)
	}
	if w.Code != f.Error.Code.Status() || w.Header().Get("Content-Type") != isJSON {
		t.Errorf("status %d, type %s of code %s", w.Code, w.Header().Get("Content-Type"), f.Error.Code)
	}
	return f.Error
}

func TestQuery(t *testing.T) {
	h := things(nil, io.Discard)
	w := get(h, "/api/v1/thing?name=kettle")
	var got wish
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != 200 || got.Name != "kettle" {
		t.Errorf("%d %v %s", w.Code, err, w.Body)
	}
	if w.Header().Get("Cache-Control") != "no-store" {
		t.Error("the answer may be stored")
	}
	for target, want := range map[string]api.Error{
		"/api/v1/thing":              {Code: api.CodeInvalid, Message: "name is missing"},
		"/api/v1/thing?name=broken":  {Code: api.CodeInternal, Message: "disk on fire"},
		"/api/v1/thing?name=wrapped": {Code: api.CodeNotFound, Message: "find it: no thing"},
		"/api/v1/none":               {Code: api.CodeNotFound, Message: "unknown endpoint GET /api/v1/none"},
		"/api/v1/grant":              {Code: api.CodeNotFound, Message: "unknown endpoint GET /api/v1/grant"},
	} {
		if got := failure(t, get(h, target)); *got != want {
			t.Errorf("%s: %+v", target, got)
		}
	}
}

func TestList(t *testing.T) {
	h := things(nil, io.Discard)
	type answer struct {
		Items []wish     `json:"items"`
		Error *api.Error `json:"error"`
	}
	for target, want := range map[string]answer{
		"/api/v1/things":                           {Items: []wish{}},
		"/api/v1/things?name=a":                    {Items: []wish{{"a", 0}}},
		"/api/v1/things?name=a&name=b":             {Items: []wish{{"a", 0}, {"b", 1}}},
		"/api/v1/things?name=a&name=broken&name=c": {Items: []wish{{"a", 0}}, Error: api.Errorf(api.CodeUnavailable, "no more")},
	} {
		w := get(h, target)
		var got answer
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != 200 || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %d %v %s", target, w.Code, err, w.Body)
		}
	}
	if e := failure(t, get(h, "/api/v1/things?name=broken")); e.Code != api.CodeUnavailable {
		t.Errorf("%+v", e)
	}
}

func TestChange(t *testing.T) {
	var done []wish
	var log bytes.Buffer
	h := things(&done, &log)
	w := send(h, "/api/v1/grant", `{"name": "kettle", "times": 2}`, "Content-Type", "application/json; charset=utf-8")
	if w.Code != 200 || len(done) != 1 || done[0] != (wish{"kettle", 2}) {
		t.Errorf("%d %s %v", w.Code, w.Body, done)
	}
	if strings.Contains(log.String(), "error=<nil>") {
		t.Errorf("an error is told that was none: %s", log.String())
	}
	if !strings.Contains(log.String(), `msg=operator did=grant with="{\"name\": \"kettle\", \"times\": 2}"`) {
		t.Errorf("log: %s", log.String())
	}
	if e := failure(t, send(h, "/api/v1/grant", `{"name": "taken"}`, "Content-Type", isJSON)); e.Code != api.CodeConflict || e.Message != "taken is taken" {
		t.Errorf("%+v", e)
	}
}

// TestWork: each item of work is sent before the next is asked for, an error follows the items, and
// the work ends with the client.
func TestWork(t *testing.T) {
	step := make(chan struct{})
	ended := make(chan error, 1)
	var log bytes.Buffer
	server := httptest.NewServer(admin.NewHandler(admin.Options{
		Gatherer: prometheus.NewRegistry(), Logger: slog.New(slog.NewTextHandler(&log, nil)),
		API: []admin.Endpoint{admin.Work("boil", func(ctx context.Context, w wish) iter.Seq2[wish, error] {
			return func(yield func(wish, error) bool) {
				if w.Name == "" {
					yield(w, api.Errorf(api.CodeInvalid, "name is missing"))
					return
				}
				for i := range w.Times {
					if !yield(wish{w.Name, i}, nil) {
						return
					}
					select {
					case <-step:
					case <-ctx.Done():
						ended <- ctx.Err()
						return
					}
				}
				yield(w, api.Errorf(api.CodeUnavailable, "no more gas"))
			}
		})},
	}))
	defer server.Close()
	post := func(ctx context.Context, body string, header ...string) *http.Response {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+"/api/v1/boil", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i+1 < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		resp, err := server.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	resp := post(t.Context(), `{"name": "kettle", "times": 2}`, "Content-Type", isJSON)
	var read bytes.Buffer
	buf := make([]byte, 1<<10)
	for i := range 2 {
		for !strings.Contains(read.String(), fmt.Sprintf(`"times":%d`, i)) {
			n, err := resp.Body.Read(buf)
			if read.Write(buf[:n]); err != nil {
				t.Fatal(err)
			}
		}
		step <- struct{}{}
	}
	_, _ = read.ReadFrom(resp.Body)
	resp.Body.Close()
	var answer struct {
		Items []wish     `json:"items"`
		Error *api.Error `json:"error"`
	}
	if err := json.Unmarshal(read.Bytes(), &answer); err != nil || len(answer.Items) != 2 || answer.Error == nil || answer.Error.Code != api.CodeUnavailable {
		t.Errorf("%v %s", err, read.String())
	}
	for body, want := range map[string]int{`{}`: 400, `{"nam": "x"}`: 400} {
		if resp := post(t.Context(), body, "Content-Type", isJSON); resp.StatusCode != want {
			t.Errorf("%s: %d", body, resp.StatusCode)
		} else {
			resp.Body.Close()
		}
	}
	resp = post(t.Context(), `{"name": "kettle", "times": 2}`, "Content-Type", isJSON, "Origin", "http://evil.example")
	if resp.Body.Close(); resp.StatusCode != http.StatusForbidden {
		t.Errorf("a page of another site: %d", resp.StatusCode)
	}
	ctx, cancel := context.WithCancel(t.Context())
	resp = post(ctx, `{"name": "kettle", "times": 2}`, "Content-Type", isJSON)
	cancel()
	resp.Body.Close()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	server.Client().CloseIdleConnections()
	server.Close()
	if n := strings.Count(log.String(), "did=boil"); n != 5 {
		t.Errorf("%d lines: %s", n, log.String())
	}
}

// TestChangeIsNotForPages: whatever a page of another site can make a browser send changes nothing.
func TestChangeIsNotForPages(t *testing.T) {
	const body = `{"name": "kettle"}`
	for name, header := range map[string][]string{
		"a form":                 {"Content-Type", "application/x-www-form-urlencoded"},
		"a form of text":         {"Content-Type", "text/plain"},
		"a form of parts":        {"Content-Type", "multipart/form-data; boundary=x"},
		"no type":                {},
		"two types":              {"Content-Type", "text/plain, application/json"},
		"another origin":         {"Content-Type", isJSON, "Origin", "http://evil.example"},
		"no origin":              {"Content-Type", isJSON, "Origin", "null"},
		"another site":           {"Content-Type", isJSON, "Sec-Fetch-Site", "cross-site"},
		"another port of a name": {"Content-Type", isJSON, "Origin", "http://localhost:8080"},
	} {
		var done []wish
		w := send(things(&done, io.Discard), "/api/v1/grant", body, header...)
		if w.Code < 400 || len(done) > 0 {
			t.Errorf("%s: %d, %v", name, w.Code, done)
		}
	}
	var done []wish
	h := things(&done, io.Discard)
	for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"} {
		r := httptest.NewRequest(method, "/api/v1/grant", strings.NewReader(body))
		r.Host = "localhost"
		r.Header.Set("Content-Type", isJSON)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code < 400 || len(done) > 0 {
			t.Errorf("%s: %d, %v", method, w.Code, done)
		}
		if cors := w.Header().Get("Access-Control-Allow-Origin"); cors != "" {
			t.Errorf("%s: pages of %s are let in", method, cors)
		}
	}
	r := httptest.NewRequest("POST", "/api/v1/grant", strings.NewReader(body))
	r.Host = "evil.example"
	r.Header.Set("Content-Type", isJSON)
	w := httptest.NewRecorder()
	if h.ServeHTTP(w, r); w.Code != http.StatusMisdirectedRequest || len(done) > 0 {
		t.Errorf("a rebound name: %d, %v", w.Code, done)
	}
	if w := send(h, "/api/v1/grant", body, "Content-Type", isJSON, "Origin", "http://localhost:6060", "Sec-Fetch-Site", "same-origin"); w.Code != 200 || len(done) != 1 {
		t.Errorf("the listener's own page: %d, %v", w.Code, done)
	}
}

// FuzzChange: whatever is sent, either it is an object of known members and is done once, or it is
// refused in JSON and nothing is done.
func FuzzChange(f *testing.F) {
	for _, body := range []string{
		`{"name":"a","times":1}`, `{}`, ``, `null`, `[]`, `"a"`, `{"name":1}`, `{"name":"a","extra":1}`, `{"name":"a"}{"name":"b"}`, `{"name":"a"} `,
		`{"name":"a"}]`, "\xef\xbb\xbf{}", `{"name":"a","name":"b"}`, `{"NAME":"a"}`, `{"times":1e400}`, `{"name":"\ud800"}`, strings.Repeat(`{"name":`, 1000), "{\x00}",
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var done []wish
		var log bytes.Buffer
		w := send(things(&done, &log), "/api/v1/grant", string(body), "Content-Type", isJSON)
		if w.Code == 200 {
			if len(done) != 1 || !json.Valid(body) || !bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("{")) {
				t.Errorf("%q was done: %v", body, done)
			}
		} else if failure(t, w); len(done) != 0 {
			t.Errorf("%q was refused and done: %v", body, done)
		}
		if strings.Count(log.String(), "\n") > 1 {
			t.Errorf("%q wrote more than a line: %q", body, log.String())
		}
	})
}

// TestLongChange: a body without end is not read to its end.
func TestLongChange(t *testing.T) {
	var done []wish
	w := send(things(&done, io.Discard), "/api/v1/grant", `{"name":"`+strings.Repeat("a", 1<<20)+`"}`, "Content-Type", isJSON)
	if e := failure(t, w); e.Code != api.CodeInvalid || !strings.Contains(e.Message, "65536 bytes") || len(done) != 0 {
		t.Errorf("%+v %v", e, done)
	}
}

// TestWatchEnds: a stream ends after a while, so that its client is authorised again.
func TestWatchEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := admin.NewHandler(admin.Options{API: []admin.Endpoint{admin.Watch("ticks", t.Context(), func(ctx context.Context, _ url.Values) iter.Seq2[int, error] {
			return func(yield func(int, error) bool) {
				for n := 0; ctx.Err() == nil && yield(n, nil); n++ {
					time.Sleep(7 * time.Second) // never ends together with the stream's own time
				}
			}
		})}})
		start := time.Now()
		w := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v1/ticks", nil)
		r.Host = "127.0.0.1"
		api.ServeHTTP(w, r)
		if took := time.Since(start); took != 301*time.Second || strings.Count(w.Body.String(), "data: ") != 43 {
			t.Errorf("%s after %v: %.200s", w.Result().Status, took, w.Body)
		}
	})
}
