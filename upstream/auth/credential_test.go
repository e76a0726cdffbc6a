package auth

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

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

func TestCredentialsFail(t *testing.T) {
	cause := errors.New("sts is down")
	rt := newTransport(t, &world{}, func(o *Options) {
		o.Credentials = func(context.Context, string) (Credential, error) { return Credential{}, cause }
	})
	if _, _, err := do(t, rt, "GET", alpine, nil); !errors.Is(err, ErrRefused) || !errors.Is(err, ErrMissing) || !errors.Is(err, cause) {
		t.Errorf("got %v, want ErrRefused with its cause", err)
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
