package auth

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// locked is a registry that counts each showing of a password other than the right one.
type locked struct {
	right atomic.Pointer[string]
	wrong atomic.Int64
}

func (l *locked) accepts(r *http.Request) bool {
	_, pw, ok := r.BasicAuth()
	if !ok || pw != *l.right.Load() {
		l.wrong.Add(1)
		return false
	}
	return true
}

// bearer is the registry with a token endpoint.
func (l *locked) bearer() *world {
	return &world{
		tokens: func(r *http.Request) *http.Response {
			time.Sleep(100 * time.Millisecond)
			if !l.accepts(r) {
				return answer(401, "")
			}
			return answer(200, `{"token":"t","expires_in":60}`)
		},
		registry: func(r *http.Request) *http.Response {
			if r.Header.Get("Authorization") == "Bearer t" {
				return answer(200, "")
			}
			return answer(401, "", "WWW-Authenticate", hubChallenge)
		},
	}
}

// basic is the registry without one.
func (l *locked) basic() *world {
	return &world{registry: func(r *http.Request) *http.Response {
		time.Sleep(100 * time.Millisecond)
		if r.Header.Get("Authorization") == "" || !l.accepts(r) {
			return answer(401, "", "WWW-Authenticate", `Basic realm="x"`)
		}
		return answer(200, "")
	}}
}

// TestRefusedPasswordIsNotShownAgain has a crowd pull with a password that is wrong, is put right
// at the registry, is changed there, and is changed here.
func TestRefusedPasswordIsNotShownAgain(t *testing.T) {
	for name, of := range map[string]func(*locked) *world{"token": (*locked).bearer, "basic": (*locked).basic} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &locked{}
				right, mine := "right", atomic.Pointer[string]{}
				l.right.Store(&right)
				wrong := "old"
				mine.Store(&wrong)
				rt := newTransport(t, of(l), func(o *Options) {
					o.Credentials = func(context.Context, string) (Credential, error) {
						return Credential{Username: "ann", Password: Secret(*mine.Load())}, nil
					}
				})
				crowd := func(n int) (refused int) {
					var mu sync.Mutex
					var wg sync.WaitGroup
					for i := range n {
						wg.Go(func() {
							status, _, err := do(t, rt, "GET", fmt.Sprintf("https://registry.example/v2/a%d/manifests/1", i), nil)
							mu.Lock()
							defer mu.Unlock()
							if err != nil && !errors.Is(err, ErrRefused) || err == nil && status != 200 {
								t.Errorf("%d, %v", status, err)
							}
							if err != nil {
								refused++
							}
						})
					}
					wg.Wait()
					return refused
				}
				l.wrong.Store(0)
				for range 60 {
					if crowd(20) != 20 {
						t.Fatal("a wrong password was accepted")
					}
					time.Sleep(time.Second)
				}
				if n := l.wrong.Load(); n < 4 || n > 8 {
					t.Errorf("1200 pulls in a minute showed the wrong password %d times, want 5 or so", n)
				}
				l.right.Store(&wrong)
				time.Sleep(lastRefusal)
				if n := crowd(20); n != 0 {
					t.Errorf("%d of 20 pulls are refused after the registry took the password", n)
				}

				l.right.Store(&right)
				l.wrong.Store(0)
				time.Sleep(2 * trustedFor)
				for range 20 {
					crowd(1)
					time.Sleep(100 * time.Millisecond)
				}
				if n := l.wrong.Load(); n < 1 || n > 3 {
					t.Errorf("a password that was changed at the registry was shown %d times in 2 s", n)
				}
				mine.Store(&right)
				if n := crowd(20); n != 0 {
					t.Errorf("%d of 20 pulls are refused with the new password", n)
				}
			})
		})
	}
}

// TestRefusedRepository tells a refused repository from refused credentials.
func TestRefusedRepository(t *testing.T) {
	granted := func(*http.Request) *http.Response { return answer(200, `{"token":"t"}`) }
	of := func(status, without int) func(*http.Request) *http.Response {
		return func(r *http.Request) *http.Response {
			switch scope := r.URL.Query().Get("scope"); {
			case scope == "" && without != 200:
				return answer(without, "")
			case strings.Contains(scope, "alpine"):
				return answer(status, "")
			}
			return granted(r)
		}
	}
	takes := func(authorization string, base int) func(*http.Request) *http.Response {
		return func(r *http.Request) *http.Response {
			given := r.Header.Get("Authorization")
			switch {
			case r.URL.Path == "/v2/" && base == 401 && given != "":
				return answer(401, "", "WWW-Authenticate", `Basic realm="x"`)
			case r.URL.Path == "/v2/" && (base != 401 || given == authorization) && (given != "" || base == 200):
				return answer(200, "")
			case r.URL.Path == "/v2/" && base == 503:
				return answer(503, "")
			case given == authorization && !strings.Contains(r.URL.Path, "alpine"):
				return answer(200, "")
			case strings.HasPrefix(authorization, "Bearer"):
				return answer(401, "", "WWW-Authenticate", hubChallenge)
			}
			return answer(401, "", "WWW-Authenticate", `Basic realm="x"`)
		}
	}
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte("ann:pw"))
	for name, c := range map[string]struct {
		anonymous        bool
		tokens, registry func(*http.Request) *http.Response
		want             error // nil: the answer 401
		others           bool  // other repositories can be used
	}{
		"anonymous, by the token endpoint, 403":     {true, of(403, 200), takes("Bearer t", 0), ErrDenied, true},
		"anonymous, by the token endpoint, 401":     {true, of(401, 401), takes("Bearer t", 0), ErrDenied, true},
		"anonymous, by the registry":                {true, granted, takes("Bearer t", 0), nil, true},
		"by the token endpoint, 403":                {false, of(403, 200), takes("Bearer t", 0), ErrDenied, true},
		"by the token endpoint, 401":                {false, of(401, 200), takes("Bearer t", 0), ErrDenied, true},
		"by the token endpoint, also without scope": {false, of(401, 401), takes("Bearer t", 0), ErrRefused, false},
		"by one that wants a scope":                 {false, of(401, 400), takes("Bearer t", 0), ErrRefused, false},
		"by the registry, with a token":             {false, granted, takes("Bearer t", 0), nil, true},
		"by the registry, with Basic":               {false, nil, takes(basic, 0), nil, true},
		"by /v2/ as well":                           {false, nil, takes(basic, 401), ErrRefused, false},
		"by one with /v2/ for everybody":            {false, nil, takes(basic, 200), ErrRefused, false},
	} {
		t.Run(name, func(t *testing.T) {
			rt := newTransport(t, &world{tokens: c.tokens, registry: c.registry}, func(o *Options) {
				if !c.anonymous {
					o.Credentials = Static("ann", "pw")
				}
			})
			if c.others {
				want(t, rt, "GET", busy, 200)
			}
			for range 2 {
				status, _, err := do(t, rt, "GET", alpine, nil)
				if !errors.Is(err, c.want) || c.want == nil && status != 401 || errors.Is(err, ErrRefused) != (c.want == ErrRefused) {
					t.Fatalf("%d, %v; want %v", status, err, c.want)
				}
			}
			if c.others {
				want(t, rt, "GET", busy, 200)
			}
		})
	}
}

// TestUnansweredDoubt has a token endpoint that refuses a repository and then fails.
func TestUnansweredDoubt(t *testing.T) {
	w := &world{registry: func(*http.Request) *http.Response { return answer(401, "", "WWW-Authenticate", hubChallenge) }}
	w.tokens = func(r *http.Request) *http.Response {
		if r.URL.Query().Has("scope") {
			return answer(401, "")
		}
		return answer(503, "", "Retry-After", "7")
	}
	rt := newTransport(t, w, func(o *Options) { o.Credentials = Static("ann", "pw") })
	_, _, err := do(t, rt, "GET", alpine, nil)
	if e, ok := errors.AsType[*TokenError](err); !ok || e.Status != 503 || errors.Is(err, ErrRefused) || errors.Is(err, ErrDenied) {
		t.Errorf("%v, want that of the endpoint", err)
	}
}

// TestCredentialsOfAnOpenRegistry has a registry that lets anybody read, tells nobody without
// credentials that there is private content, and is down at first.
func TestCredentialsOfAnOpenRegistry(t *testing.T) {
	for name, challenge := range map[string]string{"basic": `Basic realm="x"`, "bearer": hubChallenge, "none": ""} {
		t.Run(name, func(t *testing.T) {
			var down atomic.Bool
			down.Store(true)
			w := &world{
				tokens: func(r *http.Request) *http.Response {
					if _, pw, _ := r.BasicAuth(); pw != "pw" {
						return answer(200, `{"token":"nobody"}`)
					}
					return answer(200, `{"token":"ann"}`)
				},
				registry: func(r *http.Request) *http.Response {
					_, pw, _ := r.BasicAuth()
					known := pw == "pw" || r.Header.Get("Authorization") == "Bearer ann"
					switch {
					case down.Load():
						return answer(503, "")
					case r.URL.Path == "/v2/" && !known && challenge != "":
						return answer(401, "", "WWW-Authenticate", challenge)
					case r.URL.Path != "/v2/" && !known && strings.Contains(r.URL.Path, "alpine"):
						return answer(404, "")
					}
					return answer(200, "")
				},
			}
			rt := newTransport(t, w, func(o *Options) { o.Credentials = Static("ann", "pw") })
			if status, _, err := do(t, rt, "GET", "https://registry.example/v2/", nil); status != 503 || err != nil {
				t.Errorf("greeting while down: %d, %v", status, err)
			}
			if status, _, err := do(t, rt, "GET", alpine, nil); err == nil || errors.Is(err, ErrRefused) {
				t.Errorf("while nothing is known of the registry: %d, %v; want an error", status, err)
			}
			down.Store(false)
			want(t, rt, "GET", alpine, 200)
			want(t, rt, "GET", busy, 200)
			n := 0
			for _, line := range w.log {
				if strings.Contains(line, "/v2/ ") || strings.HasSuffix(line, "/v2/") {
					n++
				}
			}
			if n > 4 {
				t.Errorf("/v2/ was asked %d times: %q", n, w.log)
			}
		})
	}
}

// TestOrderOfChallenges has a registry that offers both schemes.
func TestOrderOfChallenges(t *testing.T) {
	const basicLine = `Basic realm="x"`
	for name, c := range map[string]struct {
		header []string
		user   bool
	}{
		"Basic first, two lines":           {[]string{basicLine, hubChallenge}, false},
		"Basic first, one line":            {[]string{basicLine + ", " + hubChallenge}, false},
		"Bearer first":                     {[]string{hubChallenge, basicLine}, false},
		"behind a scheme that nobody has":  {[]string{"Negotiate", `Digest realm="y"`, basicLine, hubChallenge}, false},
		"Basic first, with a user":         {[]string{basicLine, hubChallenge}, true},
		"Bearer with a bad realm, a user":  {[]string{`Bearer realm="::"`, basicLine}, true},
		"Bearer without realm, and Bearer": {[]string{"Bearer", hubChallenge}, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{
				tokens: func(*http.Request) *http.Response { return answer(200, `{"token":"t"}`) },
				registry: func(r *http.Request) *http.Response {
					if r.Header.Get("Authorization") != "" {
						return answer(200, "")
					}
					resp := answer(401, "")
					resp.Header["Www-Authenticate"] = c.header
					return resp
				},
			}
			rt := newTransport(t, w, func(o *Options) {
				if c.user {
					o.Credentials = Static("ann", "pw")
				}
			})
			want(t, rt, "GET", alpine, 200)
			want(t, rt, "GET", busy, 200)
		})
	}
}

// TestNewPasswordDuringTheCallForTheOldOne has a caller with a new password arrive while the
// registry still answers to the old one. The old answer does not concern this caller.
func TestNewPasswordDuringTheCallForTheOldOne(t *testing.T) {
	for name, of := range map[string]func(*locked) *world{"token": (*locked).bearer, "basic": (*locked).basic} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, right, wrong := &locked{}, "new", "old"
				var mine atomic.Pointer[string]
				l.right.Store(&right)
				mine.Store(&right)
				rt := newTransport(t, of(l), func(o *Options) {
					o.Credentials = func(context.Context, string) (Credential, error) {
						return Credential{Username: "ann", Password: Secret(*mine.Load())}, nil
					}
				})
				if _, _, err := do(t, rt, "GET", "https://registry.example/v2/first/manifests/1", nil); err != nil {
					t.Fatal(err) // from now on, the challenge is known
				}
				l.wrong.Store(0)
				mine.Store(&wrong)
				var pulls sync.WaitGroup
				const most = 5
				pull := func(n int, refused bool) {
					for i := range n {
						pulls.Go(func() {
							status, _, err := do(t, rt, "GET", fmt.Sprintf("https://registry.example/v2/a%d/manifests/1", i%most), nil)
							if errors.Is(err, ErrRefused) != refused || !refused && (err != nil || status != 200) {
								t.Errorf("%d, %v; want a refusal: %v", status, err, refused)
							}
						})
					}
					synctest.Wait()
				}
				pull(most, true)
				mine.Store(&right)
				pull(4*most, false)
				pulls.Wait()
				want := map[string]int64{"token": 2, "basic": 1}[name] // a token is also asked for without scopes
				if n := l.wrong.Load(); n != want {
					t.Errorf("the old password was shown %d times, want %d", n, want)
				}
			})
		})
	}
}

// TestPanicOfACall has the call of a crowd panic. Callers that wait for it get an error, and the
// next caller makes a call of its own.
func TestPanicOfACall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c crowd
		begin := make(chan struct{})
		go func() {
			defer func() { _ = recover() }()
			_, _ = c.do(t.Context(), "x", func(context.Context) error {
				<-begin
				panic("a fault")
			})
		}()
		synctest.Wait()
		waited := make(chan error, 1)
		go func() {
			_, err := c.do(t.Context(), "x", nil)
			waited <- err
		}()
		synctest.Wait()
		close(begin)
		synctest.Wait()
		select {
		case err := <-waited:
			if err == nil {
				t.Error("the caller that waited takes the call for a success")
			}
		default:
			t.Error("a caller waits for a call that has ended")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if led, err := c.do(ctx, "x", func(context.Context) error { return nil }); !led || err != nil {
			t.Errorf("the next caller: %v, %v", led, err)
		}
	})
}

// TestPanicOfATokenRequest has a token request panic. The next request gets a token.
func TestPanicOfATokenRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := &issuer{life: 3600}
		fault := true
		rt := newTransport(t, &world{registry: is.newest(""), tokens: func(r *http.Request) *http.Response {
			if fault {
				panic("a fault")
			}
			return is.issue(r)
		}}, nil)
		func() {
			defer func() { _ = recover() }()
			_, _, _ = do(t, rt, "GET", alpine, nil)
		}()
		fault = false
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			want(t, rt, "GET", alpine, 200)
		}()
		select {
		case <-ended:
		case <-time.After(time.Minute):
			t.Fatal("the next request waits for the token request that has ended")
		}
	})
}
