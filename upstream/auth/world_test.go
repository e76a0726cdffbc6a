package auth

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a registry and a token endpoint without a network. The lines of log are "METHOD
// host/path?query auth".
type world struct {
	mu  sync.Mutex
	log []string

	registry func(*http.Request) *http.Response
	tokens   func(*http.Request) *http.Response
}

func (w *world) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		_, _ = io.Copy(io.Discard, r.Body)
		_ = r.Body.Close()
	}
	scheme, _, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	w.mu.Lock()
	w.log = append(w.log, strings.TrimSpace(fmt.Sprintf("%s %s%s %s", r.Method, r.URL.Host, r.URL.Path, scheme)))
	w.mu.Unlock()
	if r.URL.Host == "auth.example" {
		return w.tokens(r), nil
	}
	return w.registry(r), nil
}

func (w *world) expect(t *testing.T, want ...string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if diff := cmp.Diff(want, w.log); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	w.log = nil
}

func answer(status int, body string, header ...string) *http.Response {
	h := http.Header{}
	for i := 0; i+1 < len(header); i += 2 {
		h.Add(header[i], header[i+1])
	}
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body))}
}

const hubChallenge = `Bearer realm="https://auth.example/token",service="registry.example"`

// issuer gives the tokens t1, t2 … and remembers which of them the registry takes.
type issuer struct {
	n         atomic.Int64
	life      int
	latency   time.Duration
	fail      atomic.Int64 // status in place of a token
	lastQuery atomic.Pointer[url.Values]
}

func (i *issuer) issue(r *http.Request) *http.Response {
	time.Sleep(i.latency)
	q := r.URL.Query()
	i.lastQuery.Store(&q)
	n := i.n.Add(1)
	if s := i.fail.Load(); s != 0 {
		return answer(int(s), `{"details":"t0psecret"}`, "Retry-After", "7")
	}
	return answer(200, fmt.Sprintf(`{"token":"t%d","expires_in":%d}`, n, i.life))
}

// newest is a registry that takes only the newest token.
func (i *issuer) newest(scope string) func(*http.Request) *http.Response {
	return func(r *http.Request) *http.Response {
		if n := i.n.Load(); n > 0 && r.Header.Get("Authorization") == fmt.Sprintf("Bearer t%d", n) {
			return answer(200, "ok")
		}
		return answer(401, "", "WWW-Authenticate", hubChallenge+scope)
	}
}

func newTransport(t *testing.T, w *world, change func(*Options)) *Transport {
	t.Helper()
	origin, err := url.Parse("https://registry.example")
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Base: w, Origin: origin}
	if change != nil {
		change(&o)
	}
	return New(o)
}

func do(t *testing.T, rt http.RoundTripper, method, u string, body io.Reader) (int, string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, u, body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return resp.StatusCode, string(text), nil
}

func want(t *testing.T, rt http.RoundTripper, method, u string, status int) {
	t.Helper()
	if got, _, err := do(t, rt, method, u, nil); got != status || err != nil {
		t.Errorf("%s %s: %d, %v; want %d", method, u, got, err, status)
	}
}

const (
	alpine = "https://registry.example/v2/library/alpine/manifests/3"
	busy   = "https://registry.example/v2/library/busybox/manifests/1"
)
