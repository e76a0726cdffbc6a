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

	"github.com/google/go-cmp/cmp"

	"dray/upstream/oci"
)

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

// If the body cannot be read again, the refusal is judged as any other one is, for each reason why
// the body cannot be read.
func TestRefusalWithoutReplay(t *testing.T) {
	const upload = "https://registry.example/v2/a/blobs/uploads/1"
	for name, getBody := range map[string]func() (io.ReadCloser, error){
		"a stream": nil,
		"a file":   func() (io.ReadCloser, error) { return nil, errors.New("the file is gone") },
	} {
		send := func(t *testing.T, rt http.RoundTripper) (*http.Response, error) {
			req, err := http.NewRequestWithContext(t.Context(), "PATCH", upload, io.MultiReader(strings.NewReader("layer")))
			if err != nil {
				t.Fatal(err)
			}
			req.GetBody = getBody
			return rt.RoundTrip(req)
		}
		w := &world{registry: func(*http.Request) *http.Response {
			return answer(401, "", "WWW-Authenticate", `Basic realm="x"`)
		}}
		expired := false
		rt := newTransport(t, w, func(o *Options) {
			o.Credentials = func(context.Context, string) (Credential, error) {
				if expired {
					return Credential{Username: "ann", Password: "new", Preemptive: true}, nil
				}
				return Credential{Username: "ann", Password: "old", Preemptive: true, Invalidate: func() { expired = true }}, nil
			}
		})
		if _, err := send(t, rt); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: a refused credential: %v, want ErrRefused", name, err)
		}

		synctest.Test(t, func(t *testing.T) {
			is := &issuer{life: 300}
			w := &world{tokens: is.issue, registry: is.newest("")}
			rt := newTransport(t, w, nil)
			if status, _, err := do(t, rt, "PUT", upload, strings.NewReader("layer")); status != 200 || err != nil {
				t.Fatalf("%s: %d, %v", name, status, err)
			}
			time.Sleep(11 * time.Second) // the token is old enough to have ended
			w.registry = func(*http.Request) *http.Response {
				resp := answer(403, "")
				resp.Status = "403 Forbidden"
				return resp
			}
			resp, err := send(t, rt)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != 401 || resp.Status != "401 Unauthorized" {
				t.Errorf("%s: an expired token: %d, %s", name, resp.StatusCode, resp.Status)
			}
		})
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
