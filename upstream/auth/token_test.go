package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
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

// TestRequestsInFlightAreKept: the bound is no reason for a second request for a scope.
func TestRequestsInFlightAreKept(t *testing.T) {
	now := time.Now()
	c := &tokens{entries: map[string]*entry{"idle": {token: token{value: "x", expires: now.Add(time.Hour)}}}}
	for i := range maxTokens - 1 {
		c.entries[fmt.Sprint(i)] = &entry{flight: &flight{}}
	}
	for _, key := range []string{"new", "newer"} { // for the second one, nothing can be evicted
		c.entry(key, now).flight = &flight{}
		flights := 0
		for _, e := range c.entries {
			if e.flight != nil {
				flights++
			}
		}
		if flights < maxTokens || c.entries["idle"] != nil {
			t.Errorf("%s: %d requests in flight are left, want %d", key, flights, maxTokens)
		}
	}
}

// TestWiderScopes: a caller whose challenge names further scopes gets a token with these scopes,
// even if a request for a narrower token is in flight, or such a token is held.
func TestWiderScopes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &tokens{fetch: func(_ context.Context, scopes []string) (token, error) {
			time.Sleep(time.Second)
			return token{value: Secret(strings.Join(scopes, " ")), renew: time.Now().Add(time.Hour), expires: time.Now().Add(time.Hour)}, nil
		}}
		get := func(challengeScopes []string, want Secret) {
			t.Helper()
			if tok, err := c.get(t.Context(), "key", []string{"pull"}, challengeScopes, ""); tok.value != want || err != nil {
				t.Errorf("a token for %q, %v; want %q", tok.value, err, want)
			}
		}
		var first sync.WaitGroup
		first.Go(func() { get(nil, "pull") })
		synctest.Wait()
		get([]string{"pull", "push"}, "pull push")
		first.Wait()
		get([]string{"pull"}, "pull push")
		get([]string{"pull", "delete"}, "pull delete")
	})
}

// TestScopesOfTheRefusedToken has two requests that are refused for their scopes. The first widens
// the scopes while the second is under way with a token that does not have them yet.
func TestScopesOfTheRefusedToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wide := ""
		is := &issuer{life: 300}
		w := &world{tokens: func(r *http.Request) *http.Response {
			resp := is.issue(r)
			if strings.Contains(strings.Join(r.URL.Query()["scope"], " "), "extra") {
				wide = fmt.Sprintf("Bearer t%d", is.n.Load())
			}
			return resp
		}}
		slow := false
		w.registry = func(r *http.Request) *http.Response {
			switch auth := r.Header.Get("Authorization"); {
			case auth == "":
				return answer(401, "", "WWW-Authenticate", hubChallenge+`,scope="repository:library/alpine:pull"`)
			case auth == wide:
				return answer(200, "")
			}
			if slow = !slow; slow {
				time.Sleep(time.Second)
			}
			return answer(401, "", "WWW-Authenticate", hubChallenge+`,scope="repository:library/alpine:pull extra",error="insufficient_scope"`)
		}
		rt := newTransport(t, w, nil)
		if err := rt.askChallenge(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := rt.tokens.get(t.Context(), PullScope("library/alpine"), []string{PullScope("library/alpine")}, nil, ""); err != nil {
			t.Fatal(err)
		}
		var late sync.WaitGroup
		late.Go(func() { want(t, rt, "GET", alpine, 200) })
		synctest.Wait()
		want(t, rt, "GET", alpine, 200)
		late.Wait()
	})
}

// TestTokenRedirects follows a token endpoint that redirects. Credentials go to the host that the
// challenge names, and only over TLS.
func TestTokenRedirects(t *testing.T) {
	for name, c := range map[string]struct {
		realm, location string
		anonymous       bool
		want            []string // the token requests
	}{
		"another path":           {"https://auth.example/token", "/real?scope=x", false, []string{"GET auth.example/token Basic", "GET auth.example/real Basic"}},
		"another host":           {"https://auth.example/token", "https://moved.example/real", false, []string{"GET auth.example/token Basic", "GET moved.example/real"}},
		"anonymous":              {"https://auth.example/token", "https://moved.example/real", true, []string{"GET auth.example/token", "GET moved.example/real"}},
		"anonymous off TLS":      {"https://auth.example/token", "http://moved.example/real", true, []string{"GET auth.example/token", "GET moved.example/real"}},
		"own host without TLS":   {"http://registry.example/token", "http://registry.example/real", false, []string{"GET registry.example/token Basic", "GET registry.example/real Basic"}},
		"own host and http port": {"http://registry.example:80/token", "http://registry.example:80/real", false, []string{"GET registry.example/token Basic", "GET registry.example/real Basic"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := &redirecting{challenge: `Bearer realm="` + c.realm + `"`, location: c.location, secure: !c.anonymous || c.location[:5] == "https"}
			rt := newTransport(t, &w.world, func(o *Options) {
				o.Base = w
				if !c.anonymous {
					o.Credentials = Static("ann", "pw")
				}
			})
			want(t, rt, "GET", "https://registry.example/v2/", 200)
			if len(w.log) != 4 {
				t.Fatalf("requests %q", w.log)
			}
			w.log = w.log[1:3]
			w.expect(t, c.want...)
			if w.plain {
				t.Error("a request left TLS")
			}
		})
	}
}

// redirecting is a world whose token endpoint redirects once.
type redirecting struct {
	world
	challenge, location string
	secure, plain       bool
}

func (w *redirecting) RoundTrip(r *http.Request) (*http.Response, error) {
	w.plain = w.plain || w.secure && r.URL.Scheme != "https"
	w.registry = func(r *http.Request) *http.Response {
		switch {
		case r.URL.Path == "/token":
			return answer(301, "", "Location", w.location)
		case r.URL.Path == "/real":
			return answer(200, `{"token":"t"}`)
		case r.Header.Get("Authorization") == "Bearer t":
			return answer(200, "")
		}
		return answer(401, "", "WWW-Authenticate", w.challenge)
	}
	w.tokens = w.registry
	return w.world.RoundTrip(r)
}

func TestTokenLife(t *testing.T) {
	now := time.Now()
	for body, want := range map[string]time.Duration{
		`{"token":"t","expires_in":300}`:            5 * time.Minute,
		`{"token":"t","expires_in":"300"}`:          5 * time.Minute,
		`{"token":"t","expires_in":300.5}`:          5*time.Minute + time.Second/2,
		`{"token":"t","expires_in":3e2}`:            5 * time.Minute,
		`{"token":"t","expires_in":9e99}`:           7 * 24 * time.Hour,
		`{"token":"t","expires_in":-1}`:             minTokenLife,
		`{"token":"t","expires_in":"NaN"}`:          minTokenLife,
		`{"token":"t","expires_in":null}`:           minTokenLife,
		`{"token":"t","expires_in":{"seconds":99}}`: minTokenLife,
		`{"access_token":"t","token":""}`:           minTokenLife,
	} {
		tok, err := parseToken([]byte(body), now)
		if err != nil || tok.value != "t" || tok.expires.Sub(now) != want {
			t.Errorf("%s: %v for %v, want %v", body, err, tok.expires.Sub(now), want)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	for _, s := range []string{`{"token":"t","expires_in":"300"}`, `{"access_token":"t","expires_in":1e400}`, `[]`, `{"token":5}`} {
		f.Add([]byte(s))
	}
	now := time.Now()
	f.Fuzz(func(t *testing.T, body []byte) {
		tok, err := parseToken(body, now)
		life := tok.expires.Sub(now)
		if err == nil && (tok.value == "" || life < minTokenLife || life > 7*24*time.Hour || tok.renew.After(tok.expires)) {
			t.Errorf("%q: a token for %v", body, life)
		}
	})
}

// A token endpoint may name a date, or a time that is too long to wait.
func TestRetryAfterOfTokenEndpoint(t *testing.T) {
	for _, value := range []string{"86400", "99999999999999999999", "Fri, 31 Dec 9999 23:59:59 GMT"} {
		w := &world{
			tokens:   func(*http.Request) *http.Response { return answer(503, "", "Retry-After", value) },
			registry: func(*http.Request) *http.Response { return answer(401, "", "WWW-Authenticate", hubChallenge) },
		}
		_, _, err := do(t, newTransport(t, w, nil), "GET", alpine, nil)
		if te, ok := errors.AsType[*TokenError](err); !ok || te.RetryAfter != time.Hour {
			t.Errorf("%s: %+v, want one hour", value, te)
		}
	}
}
