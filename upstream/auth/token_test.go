package auth

import (
	"net/http"
	"testing"
	"time"
)

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
