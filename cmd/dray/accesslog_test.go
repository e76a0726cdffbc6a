package main

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/upstream/ecrtest"
)

// lines are the access log's lines by a text in them.
func (r *recording) lines() []string {
	var out []string
	for l := range strings.Lines(r.String()) {
		if strings.Contains(l, "msg=request") {
			out = append(out, l)
		}
	}
	return out
}

// Every request gets one line that says who wanted what, where it came from, and what became of it.
func TestAccessLog(t *testing.T) {
	log := &recording{}
	s := startLogging(t, log, ecrtest.Start(t, ecrtest.Options{}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()}), t.TempDir(), withAuth(usersOf(t, ""), "")...)
	img := seed(t, s.ecr, "team/app", "v1", 10<<10)
	size := img.manifest.Layers[0].Size
	alice := []string{"Authorization", basic("alice", "wonderland"), "User-Agent", "docker/29.0"}
	blob := "/v2/team/app/blobs/" + img.layer.String()
	requests := 0
	for _, tc := range []struct {
		method, path string
		headers      []string
		want         []string
		not          string
	}{
		{"GET", "/v2/", nil, []string{"method=GET", "kind=base", "status=401", "error="}, "user="},
		{"GET", "/v2/team/app/manifests/v1", alice, []string{"listener=main", "client=127.0.0.1:", "user=alice", "upstream=ecr", "repository=team/app", "reference=v1", "kind=manifest", "status=200", "source=origin", "agent=docker/29.0", "took=", "digest=" + img.manifest.Digest.String()}, "error="},
		{"GET", "/aws/v2/team/app/manifests/v1", alice, []string{"source=cache", "upstream=ecr", "repository=team/app", "digest=" + img.manifest.Digest.String()}, "size="},
		{"GET", blob, alice, []string{"kind=blob", "source=origin", "bytes=" + jsonOf(size), "reference=" + img.layer.String()}, "error="},
		{"GET", blob, alice, []string{"source=disk", "bytes=" + jsonOf(size)}, "error="},
		{"HEAD", blob, alice, []string{"method=HEAD", "bytes=0", "status=200", "size=" + jsonOf(size)}, "error="},
		{"GET", blob, append([]string{"Range", "bytes=7-9"}, alice...), []string{"status=206", "bytes=3 ", "size=" + jsonOf(size)}, "digest="},
		{"GET", "/v2/hub/alpine/manifests/9", alice, []string{"upstream=hub", "repository=library/alpine", "status=404", `error="name unknown`}, "source="},
		{"GET", "/v2/Team/App/manifests/v1", alice, []string{"status=400", `error="name invalid`}, "upstream="},
		{"BREW", "/v2/team/app/manifests/v1", alice, []string{"method=BREW", "status=405"}, "source="},
		{"POST", "/v2/team/app/blobs/uploads/?digest=" + digest.FromString("x").String(), alice, []string{"kind=blob-upload", "status=400", "user=alice"}, "wonderland"},
	} {
		requests++
		s.do(tc.method, tc.path, nil, tc.headers...)
		line := ""
		for give := time.Now().Add(time.Minute); line == "" && time.Now().Before(give); runtime.Gosched() { // it is written after the answer
			for _, l := range log.lines() {
				if strings.Contains(l, "method="+tc.method) && containsAll(l, tc.want) {
					line = l
				}
			}
		}
		if line == "" || strings.Contains(line, tc.not) {
			t.Errorf("%s %s: no line with %q and without %s:\n%s", tc.method, tc.path, tc.want, tc.not, strings.Join(log.lines(), ""))
		}
	}
	s.stop()
	if n := len(log.lines()); n != requests {
		t.Errorf("%d lines for %d requests", n, requests)
	}
}

func jsonOf(v any) string { p, _ := json.Marshal(v); return string(p) }

func containsAll(s string, parts []string) bool {
	for _, p := range parts {
		if !strings.Contains(s, p) {
			return false
		}
	}
	return true
}

// Without the access log there are no lines, and the metrics still count.
func TestAccessLogOff(t *testing.T) {
	log := &recording{}
	s := startLogging(t, log, ecrtest.Start(t, ecrtest.Options{}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()}), t.TempDir(), "cache: {", "log: {access: false}\ncache: {")
	s.want(200, "GET", "/v2/", nil)
	s.want(404, "GET", "/v2/hub/alpine/manifests/9", nil)
	s.stop()
	if lines := log.lines(); len(lines) > 0 {
		t.Errorf("lines: %q", lines)
	}
	families, err := s.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	total := 0.0
	for _, f := range families {
		if f.GetName() == "dray_requests_total" {
			for _, m := range f.GetMetric() {
				total += m.GetCounter().GetValue()
			}
		}
	}
	if total != 2 {
		t.Errorf("%v requests counted, want 2", total)
	}
}

// counting is a listener whose connections say how many bytes they were given by ReadFrom, which is
// how the kernel is made to send a file.
type counting struct {
	net.Listener
	files, copied atomic.Int64
}

func (l *counting) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &countingConn{c.(*net.TCPConn), l}, nil
}

type countingConn struct {
	*net.TCPConn
	l *counting
}

func (c *countingConn) ReadFrom(r io.Reader) (int64, error) {
	n, err := c.TCPConn.ReadFrom(r)
	if limited, ok := r.(*io.LimitedReader); ok {
		if _, ok := limited.R.(*os.File); ok {
			c.l.files.Add(n)
			return n, err
		}
	}
	c.l.copied.Add(n)
	return n, err
}

// A blob that is held leaves by sendfile on plain HTTP, ranges of it too: no wrapper of the
// response hides the way.
func TestAccessLogKeepsSendfile(t *testing.T) {
	s := startStack(t, t.TempDir())
	img := seed(t, s.ecr, "team/app", "v1", 3<<20)
	total := img.manifest.Layers[0].Size
	path := "/v2/team/app/blobs/" + img.layer.String()
	s.want(200, "GET", "/v2/team/app/manifests/v1", nil)
	s.want(200, "GET", path, nil)

	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &counting{Listener: plain}
	server := &http.Server{Handler: s.servers[0]}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	defer func() {
		server.Close()
		<-served
	}()
	for _, tc := range []struct {
		header string
		want   int64
	}{{"", total}, {"bytes=1048576-", total - 1<<20}} {
		before := l.files.Load()
		req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+plain.Addr().String()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if tc.header != "" {
			req.Header.Set("Range", tc.header)
		}
		resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err != nil || n != tc.want {
			t.Fatalf("%d bytes of %d, %v", n, tc.want, err)
		}
		if files := l.files.Load() - before; files < tc.want-4096 { // net/http copies the first bytes itself
			t.Errorf("range %q: %d of %d bytes by way of the kernel, %d copied", tc.header, files, tc.want, l.copied.Load())
		}
	}
}

// TestLogToFindAFailure: the log has what an operator needs to find out what became of one request:
// its ID, what the client sent, what a tag became, and at level debug each request to the registry.
// A right that dray lacks is a warning, because only an operator can grant it.
func TestLogToFindAFailure(t *testing.T) {
	log := &recording{}
	s := startLogging(t, log, ecrtest.Start(t, ecrtest.Options{}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()}), t.TempDir())
	s.ecr.CreateRepository("team/app")
	has := func(parts ...string) {
		t.Helper()
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
			for line := range strings.Lines(log.String()) {
				if containsAll(line, parts) {
					return
				}
			}
		}
		t.Errorf("no line with %q in\n%s", parts, log.String())
	}
	layer := layerOf(1, 50_000)
	man := s.push("team/app", "v1", layer)
	has("method=PATCH", "received="+jsonOf(len(layer)))
	has("method=PUT", "kind=manifest", "reference=v1", "digest="+man.Digest.String(), "received="+jsonOf(len(man.Raw)))

	img := seed(t, s.ecr, "team/base", "v1", 10<<10)
	blob := s.want(200, "GET", "/v2/team/base/blobs/"+img.layer.String(), nil, "X-Request-Id", "from-the-proxy:7")
	if id := blob.Header["X-Request-Id"]; len(id) != 1 || id[0] != "from-the-proxy:7" {
		t.Errorf("the answer has the ID %q", id)
	}
	has("msg=request", "kind=blob", "request_id=from-the-proxy:7")
	has("level=DEBUG", `msg="upstream request"`, "upstream=ecr", "method=GET", "path=/v2/team/base/blobs/"+img.layer.String(), "status=307", "attempt=1", "took=")
	has("level=DEBUG", `msg="upstream request"`, "host=", "status=200", "bytes="+jsonOf(len(blob.body)))
	if strings.Contains(log.String(), "Signature=") {
		t.Error("a signed query is in the log")
	}
	ids := map[string]bool{}
	for _, bad := range []string{"", "two words", strings.Repeat("x", 129), "a\"quote"} {
		made := s.want(200, "GET", "/v2/", nil, "X-Request-Id", bad).Header.Get("X-Request-Id")
		if made == bad || made == "" || ids[made] {
			t.Errorf("for %q the ID is %q", bad, made)
		}
		ids[made] = true
	}

	s.ecr.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindManifestGet}, Count: -1, Status: 500})
	failed := s.want(500, "GET", "/v2/team/other/manifests/v1", nil)
	if id := failed.Header.Get("X-Request-Id"); !strings.Contains(string(failed.body), `"detail":{"request_id":"`+id+`"}`) {
		t.Errorf("the failure of %s does not say its ID: %s", id, failed.body)
	}
	has(`msg="upstream request"`, "path=/v2/team/other/manifests/v1", "status=500", "attempt=2")
	s.ecr.ClearFaults()

	s.ecr.SetDenials(ecrtest.Denial{Action: "ecr:BatchGetImage"})
	denied := s.do("GET", "/v2/team/app/manifests/unheard-of", nil)
	if denied.StatusCode != 403 || strings.Contains(string(denied.body), "request_id") {
		t.Errorf("%s %s", denied.Status, denied.body)
	}
	has("level=WARN", "msg=request", "status=403", "is not authorized to perform: ecr:BatchGetImage")
	s.want(404, "GET", "/v2/hub/none/manifests/v1", nil)
	has("level=INFO", "msg=request", "status=404")
}
