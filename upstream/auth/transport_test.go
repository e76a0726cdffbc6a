package auth

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"dray/upstream/oci"
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

func TestOneTokenPerScope(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := &issuer{life: 300, latency: time.Second}
		taken := map[string]string{} // token → scope
		var mu sync.Mutex
		w := &world{}
		w.tokens = func(r *http.Request) *http.Response {
			resp := is.issue(r)
			mu.Lock()
			defer mu.Unlock()
			taken[fmt.Sprintf("Bearer t%d", is.n.Load())] = strings.Join(r.URL.Query()["scope"], " ")
			return resp
		}
		w.registry = func(r *http.Request) *http.Response {
			scope := strings.Join(Scope(r), " ")
			mu.Lock()
			defer mu.Unlock()
			if scope != "" && taken[r.Header.Get("Authorization")] == scope {
				return answer(200, "")
			}
			return answer(401, "", "WWW-Authenticate", hubChallenge+`,scope="`+scope+`"`)
		}
		rt := newTransport(t, w, nil)
		want(t, rt, "GET", alpine, 200)
		w.expect(t, "GET registry.example/v2/library/alpine/manifests/3", "GET auth.example/token",
			"GET registry.example/v2/library/alpine/manifests/3 Bearer")

		// The challenge is known now, so a further repository costs no refusal, and a crowd costs
		// one token.
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() { want(t, rt, "GET", busy, 200) })
		}
		wg.Wait()
		get := "GET registry.example/v2/library/busybox/manifests/1 Bearer"
		w.expect(t, "GET auth.example/token", get, get, get, get, get)
		if q := *is.lastQuery.Load(); q.Get("service") != "registry.example" {
			t.Errorf("service %q was asked for", q.Get("service"))
		}

		want(t, rt, "DELETE", alpine, 200) // another scope of the same repository
		w.expect(t, "GET auth.example/token", "DELETE registry.example/v2/library/alpine/manifests/3 Bearer")
	})
}

func TestTokenIsRenewedBeforeItExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := &issuer{life: 400}
		w := &world{tokens: is.issue, registry: func(r *http.Request) *http.Response {
			if r.Header.Get("Authorization") == "" {
				return answer(401, "", "WWW-Authenticate", hubChallenge)
			}
			return answer(200, "")
		}}
		rt := newTransport(t, w, nil)
		want(t, rt, "GET", alpine, 200)
		time.Sleep(299 * time.Second)
		want(t, rt, "GET", alpine, 200)
		if n := is.n.Load(); n != 1 {
			t.Fatalf("%d tokens before three quarters of the life, want 1", n)
		}
		time.Sleep(2 * time.Second)
		is.fail.Store(503) // the renewal fails: the old token serves, and the endpoint is left alone for a while
		for range 10 {
			want(t, rt, "GET", alpine, 200)
		}
		if n := is.n.Load(); n != 2 {
			t.Fatalf("%d token requests, want 2", n)
		}
		time.Sleep(6 * time.Second)
		is.fail.Store(0)
		want(t, rt, "GET", alpine, 200)
		want(t, rt, "GET", alpine, 200)
		if n := is.n.Load(); n != 3 {
			t.Fatalf("%d token requests, want 3", n)
		}
		time.Sleep(500 * time.Second)
		is.fail.Store(503) // nothing valid is left
		if _, _, err := do(t, rt, "GET", alpine, nil); err == nil {
			t.Error("an expired token was used")
		}
	})
}

func TestNobodyWaitsForARenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := &issuer{life: 400, latency: time.Second}
		w := &world{tokens: is.issue, registry: func(r *http.Request) *http.Response {
			if r.Header.Get("Authorization") == "" {
				return answer(401, "", "WWW-Authenticate", hubChallenge)
			}
			return answer(200, r.Header.Get("Authorization"))
		}}
		rt := newTransport(t, w, nil)
		want(t, rt, "GET", alpine, 200)
		time.Sleep(350 * time.Second)
		var renewing sync.WaitGroup
		renewing.Go(func() { want(t, rt, "GET", alpine, 200) })
		synctest.Wait()
		began := time.Now()
		if _, used, err := do(t, rt, "GET", alpine, nil); used != "Bearer t1" || err != nil || time.Since(began) != 0 {
			t.Errorf("during a renewal: %q after %v, %v; want the held token at once", used, time.Since(began), err)
		}
		renewing.Wait()
		if _, used, _ := do(t, rt, "GET", alpine, nil); used != "Bearer t2" {
			t.Errorf("after a renewal: %q", used)
		}
	})
}

func TestCallersHaveNoSayInAuthorization(t *testing.T) {
	w := &world{registry: func(r *http.Request) *http.Response { return answer(200, r.Header.Get("Authorization")) }}
	req, err := http.NewRequestWithContext(t.Context(), "GET", alpine, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer of-a-client")
	resp, err := newTransport(t, w, nil).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if sent, _ := io.ReadAll(resp.Body); len(sent) != 0 {
		t.Errorf("the registry got %q", sent)
	}
	if req.Header.Get("Authorization") == "" {
		t.Error("the caller's request was changed")
	}
}

func TestRefusedTokenIsReplacedOnce(t *testing.T) {
	is := &issuer{life: 300}
	w := &world{tokens: is.issue, registry: is.newest("")}
	rt := newTransport(t, w, nil)
	want(t, rt, "GET", alpine, 200)
	w.expect(t, "GET registry.example/v2/library/alpine/manifests/3", "GET auth.example/token",
		"GET registry.example/v2/library/alpine/manifests/3 Bearer")
	is.n.Add(1) // the held token is not the newest any more
	want(t, rt, "GET", alpine, 200)
	w.expect(t, "GET registry.example/v2/library/alpine/manifests/3 Bearer", "GET auth.example/token",
		"GET registry.example/v2/library/alpine/manifests/3 Bearer")

	w.registry = func(*http.Request) *http.Response { return answer(401, "no", "WWW-Authenticate", hubChallenge) }
	if status, body, err := do(t, rt, "GET", alpine, nil); status != 401 || body != "no" || err != nil {
		t.Errorf("refused twice: %d %q, %v; want the second refusal", status, body, err)
	}
	w.expect(t, "GET registry.example/v2/library/alpine/manifests/3 Bearer", "GET auth.example/token",
		"GET registry.example/v2/library/alpine/manifests/3 Bearer")
}

// TestDeniedScope has a registry that accepts the token and refuses the repository: another token
// would be the same.
func TestDeniedScope(t *testing.T) {
	is := &issuer{life: 300}
	scope := `,scope="repository:library/alpine:pull",error="insufficient_scope"`
	w := &world{tokens: is.issue, registry: func(*http.Request) *http.Response {
		return answer(401, "", "WWW-Authenticate", hubChallenge+scope)
	}}
	rt := newTransport(t, w, nil)
	for range 5 {
		want(t, rt, "GET", alpine, 401)
	}
	if n := is.n.Load(); n != 1 {
		t.Errorf("%d tokens for a repository that is refused, want 1", n)
	}
	scope = `,scope="repository:library/alpine:pull,push",error="insufficient_scope"`
	want(t, rt, "GET", alpine, 401) // more is wanted than was asked for, so it is asked for, once
	want(t, rt, "GET", alpine, 401)
	if n := is.n.Load(); n != 2 {
		t.Errorf("%d tokens after the registry wanted a wider scope, want 2", n)
	}
}

// TestTokenThatEndsEarly has a registry that refuses a token before its life is over, by statuses
// without a challenge. The token is renewed once, and not again and again if that does not help.
func TestTokenThatEndsEarly(t *testing.T) {
	for _, status := range []int{400, 401, 403} {
		synctest.Test(t, func(t *testing.T) {
			is := &issuer{life: 3600}
			denied, refusal := false, ""
			newest := is.newest("")
			w := &world{tokens: is.issue, registry: func(r *http.Request) *http.Response {
				if resp := newest(r); (resp.StatusCode == 200 && !denied) || r.Header.Get("Authorization") == "" {
					return resp
				}
				return answer(status, "no", "WWW-Authenticate", refusal)
			}}
			rt := newTransport(t, w, nil)
			want(t, rt, "GET", alpine, 200)
			is.n.Add(1) // the token has ended
			time.Sleep(11 * time.Second)
			for _, method := range []string{"GET", "HEAD", "PUT", "DELETE"} {
				var body io.Reader
				if method == "PUT" {
					body = strings.NewReader("manifest")
				}
				if got, _, err := do(t, rt, method, alpine, body); got != 200 || err != nil {
					t.Errorf("%d: %s is answered %d, %v", status, method, got, err)
				}
				is.n.Add(1)
				time.Sleep(11 * time.Second)
			}
			is.fail.Store(503) // a renewal that fails leaves the refusal as it is, and the token to others
			want(t, rt, "GET", alpine, status)
			is.fail.Store(0)

			denied = true
			time.Sleep(time.Minute)
			want(t, rt, "GET", alpine, status)
			before := is.n.Load()
			for range 50 {
				want(t, rt, "GET", alpine, status)
			}
			if n := is.n.Load() - before; n != 0 {
				t.Errorf("%d: %d tokens for a repository that is refused", status, n)
			}
			time.Sleep(time.Minute)
			refusal = `Bearer error="insufficient_scope"`
			want(t, rt, "GET", alpine, status)
			if n := is.n.Load() - before; n != 0 {
				t.Errorf("%d: %d tokens although the registry says that the token is good", status, n)
			}
		})
	}
}

// TestEndedTokenAtOnce: all requests that meet the end of a token wait for one new token.
func TestEndedTokenAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := &issuer{life: 3600, latency: time.Second}
		newest := is.newest("")
		w := &world{tokens: is.issue, registry: func(r *http.Request) *http.Response {
			if resp := newest(r); resp.StatusCode == 200 || r.Header.Get("Authorization") == "" {
				return resp
			}
			return answer(403, "")
		}}
		rt := newTransport(t, w, nil)
		want(t, rt, "GET", alpine, 200)
		is.n.Add(1)
		time.Sleep(time.Minute)
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() { want(t, rt, "GET", alpine, 200) })
		}
		all.Wait()
		if n := is.n.Load(); n != 3 { // the first, the end of it, and the second
			t.Errorf("%d, want one more token", n)
		}
	})
}

// TestScopeOfBase has a registry whose /v2/ asks for a scope of its own, and whose repositories ask
// for theirs. Each repository gets a token of its own, also if many ask at once.
func TestScopeOfBase(t *testing.T) {
	is := &issuer{life: 300}
	var mu sync.Mutex
	scopes := map[string]string{} // by token
	w := &world{}
	w.tokens = func(r *http.Request) *http.Response {
		mu.Lock()
		defer mu.Unlock()
		resp := is.issue(r)
		scopes[fmt.Sprintf("Bearer t%d", is.n.Load())] = r.URL.Query().Get("scope")
		return resp
	}
	w.registry = func(r *http.Request) *http.Response {
		scope, problem := "registry:catalog:*", ""
		if q, err := oci.Parse(r); err == nil && q.Repo != "" {
			scope, problem = PullScope(q.Repo), `,error="insufficient_scope"`
		}
		mu.Lock()
		defer mu.Unlock()
		if scopes[r.Header.Get("Authorization")] == scope {
			return answer(200, "ok")
		}
		return answer(401, "", "WWW-Authenticate", hubChallenge+`,scope="`+scope+`"`+problem)
	}
	rt := newTransport(t, w, nil)
	var all sync.WaitGroup
	for round := range 4 {
		want(t, rt, "GET", "https://registry.example/v2/", 200)
		for i := range 20 {
			all.Go(func() { want(t, rt, "GET", fmt.Sprintf("https://registry.example/v2/app%d/manifests/1", i), 200) })
		}
		all.Wait()
		if n := is.n.Load(); n > 24 { // 20, and those of /v2/
			t.Errorf("%d tokens after %d rounds", n, round+1)
		}
	}
}

func TestBodyDecidesOnReplay(t *testing.T) {
	is := &issuer{life: 300}
	w := &world{tokens: is.issue, registry: is.newest("")}
	rt := newTransport(t, w, nil)
	const upload = "https://registry.example/v2/a/blobs/uploads/1"
	stream := io.MultiReader(strings.NewReader("layer"))
	if status, _, err := do(t, rt, "PATCH", upload, stream); status != 401 || err != nil {
		t.Errorf("a stream was answered %d, %v; want the refusal", status, err)
	}
	w.expect(t, "PATCH registry.example/v2/a/blobs/uploads/1", "GET auth.example/token")
	if status, _, err := do(t, rt, "PATCH", upload, io.MultiReader(strings.NewReader("layer"))); status != 200 || err != nil {
		t.Errorf("the next stream was answered %d, %v; want what the refusal taught", status, err)
	}
	is.n.Add(1)
	if status, _, err := do(t, rt, "PUT", upload, strings.NewReader("manifest")); status != 200 || err != nil {
		t.Errorf("a body that can be read again was answered %d, %v", status, err)
	}
}

func TestChallengeScopes(t *testing.T) {
	for name, c := range map[string]struct {
		scope string
		want  []string
		again int // tokens for a second repository
	}{
		"derived where none is named":  {"", []string{"repository:library/alpine:pull"}, 2},
		"as the challenge says":        {`,scope="repository:mirror/alpine:pull repository:x:pull"`, []string{"repository:mirror/alpine:pull", "repository:x:pull"}, 3},
		"one for the whole of ECR Pub": {`,scope="aws"`, []string{"aws"}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			is := &issuer{life: 300}
			w := &world{tokens: is.issue, registry: is.newest(c.scope)}
			rt := newTransport(t, w, nil)
			want(t, rt, "GET", alpine, 200)
			if diff := cmp.Diff(c.want, (*is.lastQuery.Load())["scope"]); diff != "" {
				t.Errorf("scopes (-want +got):\n%s", diff)
			}
			if name == "as the challenge says" { // a derived token that the registry refuses
				is.n.Add(1)
			}
			want(t, rt, "GET", busy, 200)
			if n := is.n.Load(); n != int64(c.again) {
				t.Errorf("%d tokens, want %d", n, c.again)
			}
		})
	}
}

func TestBasic(t *testing.T) {
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte("ann:pw"))
	w := &world{registry: func(r *http.Request) *http.Response {
		if r.Header.Get("Authorization") == basic {
			return answer(200, "")
		}
		return answer(401, "", "WWW-Authenticate", `Basic realm="x"`)
	}}
	line := "GET registry.example/v2/library/alpine/manifests/3"

	base := "GET registry.example/v2/"
	rt := newTransport(t, w, func(o *Options) { o.Credentials = Static("ann", "pw") })
	want(t, rt, "GET", alpine, 200)
	want(t, rt, "GET", alpine, 200)
	w.expect(t, base, base+" Basic", line+" Basic", line+" Basic")

	rt = newTransport(t, w, func(o *Options) { o.Credentials = Static("ann", "pw") })
	want(t, rt, "GET", "https://registry.example/v2/", 200) // a greeting teaches as much
	want(t, rt, "GET", alpine, 200)
	w.expect(t, base, base+" Basic", line+" Basic")

	rt = newTransport(t, w, func(o *Options) {
		o.Credentials = func(context.Context, string) (Credential, error) {
			return Credential{Username: "ann", Password: "pw", Preemptive: true}, nil
		}
	})
	want(t, rt, "GET", alpine, 200)
	w.expect(t, line+" Basic")

	want(t, newTransport(t, w, nil), "GET", alpine, 401) // anonymous: the refusal stands
	w.expect(t, line)

	rt = newTransport(t, w, func(o *Options) { o.Credentials = Static("ann", "wrong") })
	for range 3 {
		if _, _, err := do(t, rt, "GET", alpine, nil); !errors.Is(err, ErrRefused) {
			t.Errorf("with a wrong password: %v, want ErrRefused", err)
		}
	}
	w.expect(t, base, base+" Basic")
}

func TestExpiredCredential(t *testing.T) {
	var invalidated, current atomic.Int64
	current.Store(1)
	w := &world{registry: func(r *http.Request) *http.Response {
		_, pw, _ := r.BasicAuth()
		if pw == "p2" {
			return answer(200, "")
		}
		return answer(403, `{"errors":[{"code":"DENIED","message":"expired"}]}`)
	}}
	options := func(o *Options) {
		o.Credentials = func(_ context.Context, host string) (Credential, error) {
			if host != "real.name" {
				t.Errorf("credentials were asked for %q", host)
			}
			return Credential{
				Username: "AWS", Password: Secret(fmt.Sprintf("p%d", current.Load())), Preemptive: true,
				Invalidate: func() { invalidated.Add(1); current.Store(2) },
			}, nil
		}
		o.Expired = func(r Refusal) bool { return bytes.Contains(r.Body, []byte("expired")) }
		o.Host = "real.name"
	}
	rt := newTransport(t, w, options)
	want(t, rt, "GET", alpine, 200)
	want(t, rt, "GET", alpine, 200)
	line := "GET registry.example/v2/library/alpine/manifests/3 Basic"
	w.expect(t, line, line, line)
	if n := invalidated.Load(); n != 1 {
		t.Errorf("invalidated %d times, want 1", n)
	}

	w.registry = func(*http.Request) *http.Response { return answer(403, "expired for good") }
	if status, body, err := do(t, rt, "GET", alpine, nil); status != 403 || body != "expired for good" || err != nil {
		t.Errorf("with nothing else to show: %d %q, %v; want the whole refusal", status, body, err)
	}
	w.expect(t, line) // the credential is the same, so a repetition would be pointless
	w.registry = func(*http.Request) *http.Response { return answer(403, "not authorized to perform") }
	want(t, rt, "GET", alpine, 403)
	w.expect(t, line)
	if n := invalidated.Load(); n != 2 {
		t.Errorf("a refusal by policy invalidated the credential")
	}
}

func TestOtherHostsGetNothing(t *testing.T) {
	w := &world{registry: func(*http.Request) *http.Response {
		return answer(401, "", "WWW-Authenticate", `Basic realm="x"`)
	}}
	rt := newTransport(t, w, func(o *Options) {
		o.Credentials = func(context.Context, string) (Credential, error) {
			return Credential{Username: "ann", Password: "pw", Preemptive: true}, nil
		}
	})
	for _, u := range []string{"https://storage.example/x", "http://registry.example/v2/", "https://registry.example:444/v2/", "https://registry.example.evil/v2/"} {
		want(t, rt, "GET", u, 401)
	}
	w.expect(t, "GET storage.example/x", "GET registry.example/v2/", "GET registry.example:444/v2/", "GET registry.example.evil/v2/")
}

func TestTokenEndpointErrors(t *testing.T) {
	for name, c := range map[string]struct {
		challenge string
		tokens    func(*http.Request) *http.Response
		refused   bool
	}{
		"refused":    {hubChallenge, func(*http.Request) *http.Response { return answer(401, "t0psecret") }, true},
		"forbidden":  {hubChallenge, func(*http.Request) *http.Response { return answer(403, "") }, true},
		"throttled":  {hubChallenge, func(*http.Request) *http.Response { return answer(429, "", "Retry-After", "7") }, false},
		"down":       {hubChallenge, func(*http.Request) *http.Response { return answer(503, "", "Retry-After", "7") }, false},
		"in circles": {hubChallenge, func(r *http.Request) *http.Response { return answer(302, "", "Location", r.URL.String()) }, false},
		"nowhere":    {hubChallenge, func(*http.Request) *http.Response { return answer(302, "", "Location", "::") }, false},
		"off TLS":    {hubChallenge, func(*http.Request) *http.Response { return answer(307, "", "Location", "http://auth.example/token") }, true},
		"not json":   {hubChallenge, func(*http.Request) *http.Response { return answer(200, `t0psecret`) }, false},
		"no token":   {hubChallenge, func(*http.Request) *http.Response { return answer(200, `{"expires_in":3}`) }, false},
		"plain http": {`Bearer realm="http://auth.example/token"`, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{tokens: c.tokens, registry: func(*http.Request) *http.Response {
				return answer(401, "", "WWW-Authenticate", c.challenge)
			}}
			_, _, err := do(t, newTransport(t, w, func(o *Options) { o.Credentials = Static("ann", "t0psecret") }), "GET", alpine, nil)
			te, ok := errors.AsType[*TokenError](err)
			if !ok || errors.Is(err, ErrRefused) != c.refused {
				t.Fatalf("%v: a TokenError %v, refused %v; want refused %v", err, ok, errors.Is(err, ErrRefused), c.refused)
			}
			if strings.Contains(fmt.Sprintf("%+v %v", err, err), "t0psecret") {
				t.Errorf("the error shows a secret: %v", err)
			}
			if (te.Status == 429 || te.Status == 503) && te.RetryAfter != 7*time.Second {
				t.Errorf("RetryAfter %v, want 7s", te.RetryAfter)
			}
			if c.tokens == nil {
				w.expect(t, "GET registry.example/v2/") // the password stayed here
			}
		})
	}
}

func TestCredentialsFail(t *testing.T) {
	cause := errors.New("sts is down")
	rt := newTransport(t, &world{}, func(o *Options) {
		o.Credentials = func(context.Context, string) (Credential, error) { return Credential{}, cause }
	})
	if _, _, err := do(t, rt, "GET", alpine, nil); !errors.Is(err, ErrRefused) || !errors.Is(err, ErrMissing) || !errors.Is(err, cause) {
		t.Errorf("got %v, want ErrRefused with its cause", err)
	}
}

func TestAccessTokenAndShortLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		w := &world{
			tokens: func(*http.Request) *http.Response { calls++; return answer(200, `{"access_token":"a"}`) },
			registry: func(r *http.Request) *http.Response {
				if r.Header.Get("Authorization") == "Bearer a" {
					return answer(200, "")
				}
				return answer(401, "", "WWW-Authenticate", hubChallenge)
			},
		}
		rt := newTransport(t, w, nil)
		want(t, rt, "GET", alpine, 200)
		time.Sleep(44 * time.Second) // no expires_in means 60 s
		want(t, rt, "GET", alpine, 200)
		if calls != 1 {
			t.Errorf("%d tokens within a minute", calls)
		}
		time.Sleep(2 * time.Second)
		want(t, rt, "GET", alpine, 200)
		if calls != 2 {
			t.Errorf("%d tokens after renewal, want 2", calls)
		}
	})
}

func TestTokensAreBounded(t *testing.T) {
	c := &tokens{fetch: func(context.Context, []string) (token, error) {
		return token{value: "x", renew: time.Now().Add(time.Hour), expires: time.Now().Add(time.Hour)}, nil
	}}
	for i := range maxTokens + 100 {
		if _, err := c.get(t.Context(), fmt.Sprint(i), nil, nil, ""); err != nil {
			t.Fatal(err)
		}
	}
	if len(c.entries) > maxTokens {
		t.Errorf("%d tokens are held, bound is %d", len(c.entries), maxTokens)
	}
}

func TestScope(t *testing.T) {
	for _, c := range []struct {
		method, url string
		want        []string
	}{
		{"GET", "https://r/v2/", nil},
		{"GET", "https://r/v2/_catalog", nil},
		{"HEAD", "https://r/v2/a/b/manifests/latest", []string{"repository:a/b:pull"}},
		{"GET", "https://r/base/v2/a/tags/list?n=5", []string{"repository:a:pull"}},
		{"PUT", "https://r/v2/a/manifests/latest", []string{"repository:a:pull,push"}},
		{"POST", "https://r/v2/a/blobs/uploads/", []string{"repository:a:pull,push"}},
		{"POST", "https://r/v2/a/blobs/uploads/?mount=sha256:" + strings.Repeat("0", 64) + "&from=b", []string{"repository:a:pull,push", "repository:b:pull"}},
		{"PATCH", "https://r/artifacts-uploads/x", nil},
	} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, c.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, Scope(req)); diff != "" {
			t.Errorf("%s %s (-want +got):\n%s", c.method, c.url, diff)
		}
		req = req.WithContext(WithScope(t.Context(), "told"))
		if got := Scope(req); len(got) != 1 || got[0] != "told" {
			t.Errorf("%s %s: told scope was lost: %v", c.method, c.url, got)
		}
	}
}

func TestSecretIsNeverShown(t *testing.T) {
	const value = "t0psecret"
	s := Secret(value)
	cred := Credential{Username: "AWS", Password: s}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "secret", s, "credential", cred.Password)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "secret", s, "credential", cred.Password)
	js, err := json.Marshal(struct {
		A Secret
		B map[string]*Secret
	}{s, map[string]*Secret{"k": &s}})
	if err != nil {
		t.Fatal(err)
	}
	shown := []string{log.String(), string(js), s.String()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		shown = append(shown, fmt.Sprintf(verb, s), fmt.Sprintf(verb, cred), fmt.Sprintf(verb, &cred))
	}
	for _, out := range shown {
		if strings.Contains(out, value) || strings.Contains(strings.ToLower(out), fmt.Sprintf("%x", value)) {
			t.Errorf("secret in %q", out)
		}
	}
	if s.Reveal() != value {
		t.Error("Reveal does not give the secret")
	}
}
