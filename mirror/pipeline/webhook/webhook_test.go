package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"dray/mirror/pipeline"
)

var image = &pipeline.Image{
	Upstream: "ecr", Repository: "team/app", Tag: "1", Digest: "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
	Manifests: []*pipeline.Manifest{{Kind: pipeline.KindImage, MediaType: "application/vnd.oci.image.manifest.v1+json"}},
}

// service answers a request with the result of say.
func service(t *testing.T, say func(r *http.Request, body []byte) (status int, answer string)) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		status, answer := say(r, body)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, answer)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// at is a service that gets no headers and no signatures.
func at(url string) Service { return Service{URL: func() string { return url }} }

func stage(t *testing.T, c Config) *Stage {
	t.Helper()
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func uid(body []byte) string {
	var q review
	_ = json.Unmarshal(body, &q)
	return q.Request.UID
}

func TestReview(t *testing.T) {
	allowed := true
	url := service(t, func(r *http.Request, body []byte) (int, string) {
		var q map[string]any
		if err := json.Unmarshal(body, &q); err != nil || r.Header.Get("Content-Type") != "application/json" || r.Method != http.MethodPost {
			t.Errorf("%s %s: %v", r.Method, body, err)
		}
		if img := q["request"].(map[string]any)["image"].(map[string]any); q["kind"] != "ImageReview" || q["apiVersion"] != "dray/v1" || img["repository"] != "team/app" || img["tag"] != "1" {
			t.Errorf("asked with %s", body)
		}
		return 200, fmt.Sprintf(`{"response":{"uid":%q,"allowed":%t,"message":"no","findings":[{"rule":"owner","message":"nobody owns it","fix":"set the label owner"},{"rule":"Not A Label","message":"x"}]}}`, uid(body), allowed)
	})
	s := stage(t, Config{Service: at(url)})
	if found, err := s.CheckImage(t.Context(), image); err != nil || found != nil {
		t.Errorf("allowed: %v, %v", found, err)
	}
	allowed = false
	found, err := s.CheckImage(t.Context(), image)
	if err != nil || len(found) != 2 || found[0].Rule != "owner" || found[0].What != "nobody owns it" || found[0].Fix != "set the label owner" || found[1].Rule != "other" {
		t.Errorf("refused: %+v, %v", found, err)
	}
}

// The shapes are those of OPA's data API: an undefined document is {}.
func TestOPA(t *testing.T) {
	answer := `{"result":{"allowed":false,"message":"no team may push on Fridays"}}`
	url := service(t, func(_ *http.Request, body []byte) (int, string) {
		var q struct{ Input pipeline.Image }
		if err := json.Unmarshal(body, &q); err != nil || q.Input.Repository != "team/app" {
			t.Errorf("asked with %s: %v", body, err)
		}
		return 200, answer
	})
	s := stage(t, Config{Service: at(url), Form: OPA})
	found, err := s.CheckImage(t.Context(), image)
	if err != nil || len(found) != 1 || found[0].Rule != RuleRefused || found[0].What != "no team may push on Fridays" {
		t.Errorf("%+v, %v", found, err)
	}
	answer = `{}`
	if _, err := s.CheckImage(t.Context(), image); err == nil {
		t.Error("an undefined policy has judged")
	}
}

func TestSignature(t *testing.T) {
	secret := []byte("between the two of us")
	url := service(t, func(r *http.Request, body []byte) (int, string) {
		mac := hmac.New(sha256.New, secret)
		fmt.Fprintf(mac, "%s.%s", r.Header.Get("X-Dray-Time"), body)
		if want := "sha256=" + hex.EncodeToString(mac.Sum(nil)); r.Header.Get("X-Dray-Signature") != want {
			t.Errorf("signed %q, want %q", r.Header.Get("X-Dray-Signature"), want)
		}
		return 200, fmt.Sprintf(`{"response":{"uid":%q,"allowed":true}}`, uid(body))
	})
	s := stage(t, Config{Service: Service{URL: at(url).URL, Secret: func() []byte { return secret }}})
	if _, err := s.CheckImage(t.Context(), image); err != nil {
		t.Error(err)
	}
	secret = []byte("a newer one")
	if _, err := s.CheckImage(t.Context(), image); err != nil {
		t.Error(err)
	}
	other := stage(t, Config{Service: Service{URL: at(url + "/another").URL, Secret: func() []byte { return []byte("another") }}})
	if s.Revision() != other.Revision() {
		t.Error("a secret is part of the revision")
	}
	if s.Revision() == stage(t, Config{Service: at("http://another.example/")}).Revision() {
		t.Error("another service has the same revision")
	}
}

func TestWhatIsNoVerdict(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		answer string
	}{
		"an error":           {500, `{"response":{"uid":"UID","allowed":true}}`},
		"a redirect":         {307, ``},
		"no JSON":            {200, `allowed`},
		"another's answer":   {200, `{"response":{"uid":"somebody","allowed":true}}`},
		"no word of allowed": {200, `{"response":{"uid":"UID"}}`},
		"the other form":     {200, `{"result":{"allowed":true}}`},
		"too much":           {200, `{"response":{"uid":"UID","allowed":true,"message":"` + strings.Repeat("x", maxAnswer) + `"}}`},
	} {
		t.Run(name, func(t *testing.T) {
			url := service(t, func(_ *http.Request, body []byte) (int, string) {
				return c.status, strings.Replace(c.answer, "UID", uid(body), 1)
			})
			if found, err := stage(t, Config{Service: at(url)}).CheckImage(t.Context(), image); err == nil {
				t.Errorf("judged: %+v", found)
			}
		})
	}
}

// transport is a service without a network.
type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestServiceThatFailsIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		broken := true
		s := stage(t, Config{Service: at("http://policy.internal/"), Failures: 3, Pause: 10 * time.Second, Timeout: time.Second, Transport: transport(func(r *http.Request) (*http.Response, error) {
			asked.Add(1)
			if broken {
				<-r.Context().Done() // it hangs
				return nil, r.Context().Err()
			}
			body, _ := io.ReadAll(r.Body)
			return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(fmt.Sprintf(`{"response":{"uid":%q,"allowed":true}}`, uid(body))))}, nil
		})})
		check := func() error { _, err := s.CheckImage(t.Context(), image); return err }
		start := time.Now()
		for range 3 {
			if err := check(); err == nil || errors.Is(err, ErrPaused) {
				t.Fatalf("a service that hangs: %v", err)
			}
		}
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("three timeouts of a second took %s", took)
		}
		for range 5 {
			if err := check(); !errors.Is(err, ErrPaused) {
				t.Fatalf("during the pause: %v", err)
			}
		}
		time.Sleep(10 * time.Second)
		if err := check(); errors.Is(err, ErrPaused) {
			t.Error("no probe after the pause")
		}
		if err := check(); !errors.Is(err, ErrPaused) {
			t.Error("no pause after a probe that failed")
		}
		time.Sleep(10 * time.Second)
		broken = false
		for range 2 {
			if err := check(); err != nil {
				t.Errorf("mended: %v", err)
			}
		}
		if n := asked.Load(); n != 6 {
			t.Errorf("asked %d times", n)
		}
	})
}

func TestBadConfiguration(t *testing.T) {
	if _, err := New(Config{Service: at("http://x"), Form: "soap"}); err == nil {
		t.Error("an unknown form is accepted")
	}
	for _, url := range []string{"", "policy.example", "file:///etc/passwd", "http://", "http:///hook", "http://x\x00", "ftp://policy.example"} {
		if CheckURL(url) == nil {
			t.Errorf("%q is accepted", url)
		}
	}
	if err := CheckURL("https://policy.example/hook?token=x"); err != nil {
		t.Error(err)
	}
}

// The error about a service that cannot be reached is shown to clients, so it must not have the
// URL.
func TestErrorsKeepTheAddress(t *testing.T) {
	s := stage(t, Config{Service: at("http://user:hidden@127.0.0.1:1/hook?token=hidden")})
	if _, err := s.CheckImage(t.Context(), image); err == nil || strings.Contains(err.Error(), "hidden") {
		t.Errorf("%v", err)
	}
}

// If the service returns too many findings, one more finding says so. A waiver for the others
// does not waive it.
func TestFurtherFindings(t *testing.T) {
	const maxFindings = 100
	all := strings.Repeat(`{"rule":"cve","message":"x","path":"a"},`, maxFindings+2)
	url := service(t, func(*http.Request, []byte) (int, string) {
		return 200, `{"result":{"allowed":false,"findings":[` + strings.TrimSuffix(all, ",") + `]}}`
	})
	found, err := stage(t, Config{Service: at(url), Form: OPA}).CheckImage(t.Context(), image)
	if err != nil || len(found) != maxFindings+1 || found[maxFindings].Rule != "more" {
		t.Errorf("%d findings, %v", len(found), err)
	}
}
