package auth

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"

	"dray/upstream/oci"
)

// maxRefusal is how much of a refusal's body Expired gets to see.
const maxRefusal = 8 << 10

// Refusal is an answer that may mean an expired credential.
type Refusal struct {
	Request *http.Request
	Status  int
	Header  http.Header
	// Body is the beginning of the answer, at most 8 KiB; empty for HEAD.
	Body []byte
	// Credential is what was shown as Basic; zero for a bearer token.
	Credential Credential
}

// Options configure a Transport.
type Options struct {
	// Base sends the requests, those to the token endpoint too. Required.
	Base http.RoundTripper
	// Origin is the registry's base URL as it is dialled. Only requests to its scheme, host and
	// port are authorised.
	Origin *url.URL
	// Host is the name of the registry given to Credentials; empty means the host of Origin.
	Host string
	// Credentials gives the credential; nil means anonymous.
	Credentials Credentials
	// Expired recognises refusals without a challenge that mean an expired credential (ECR answers
	// 403). It sees the statuses 400, 401 and 403. Nil means none.
	Expired func(Refusal) bool
	// UserAgent is sent to the token endpoint; empty means "dray".
	UserAgent string
}

// Transport authorises the requests to one registry. Requests to any other host pass through
// without credentials.
type Transport struct {
	o      Options
	origin string // scheme and host
	secure bool

	challenge atomic.Pointer[bearer] // the last Bearer challenge; nil before the first
	shared    atomic.Pointer[string] // the scope of a registry that has one for everything (ECR Public)
	basic     atomic.Bool            // the registry asks for Basic
	tokens    tokens
}

var _ http.RoundTripper = (*Transport)(nil)

// New returns a Transport. It sends nothing before the first request.
func New(o Options) *Transport {
	o.Host, o.UserAgent = cmp.Or(o.Host, o.Origin.Host), cmp.Or(o.UserAgent, "dray")
	t := &Transport{o: o, origin: o.Origin.Scheme + "://" + o.Origin.Host, secure: o.Origin.Scheme == "https"}
	t.tokens.fetch = t.requestToken
	return t
}

// presented is what one attempt carried.
type presented struct {
	header Secret
	cred   Credential // for Basic
	key    string     // for a bearer token: its place in the cache
	token  Secret
}

// RoundTrip sends the request with what the registry is known to want, and once more when the
// registry says that this was not it. A request whose body cannot be read again is not repeated:
// its refusal is returned, and what was learnt from it serves the next request.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme+"://"+req.URL.Host != t.origin {
		return t.o.Base.RoundTrip(req)
	}
	s, err := t.authorize(req)
	if err != nil {
		closeBody(req)
		return nil, err
	}
	resp, err := t.o.Base.RoundTrip(s.on(req))
	if err != nil {
		return nil, err
	}
	next, err := t.reconsider(req, resp, s)
	if err != nil {
		_ = resp.Body.Close()
		return nil, err
	}
	if next == nil || req.Body != nil && req.Body != http.NoBody && req.GetBody == nil {
		return resp, nil
	}
	again := next.on(req)
	if req.GetBody != nil {
		if again.Body, err = req.GetBody(); err != nil {
			return resp, nil
		}
	}
	_, _ = io.CopyN(io.Discard, resp.Body, maxRefusal) // so that the connection can be used again
	_ = resp.Body.Close()
	return t.o.Base.RoundTrip(again)
}

// on returns a copy of the request that carries s.
func (s presented) on(req *http.Request) *http.Request {
	c := req.Clone(req.Context())
	c.Header.Del("Authorization")
	if s.header != "" {
		c.Header.Set("Authorization", s.header.Reveal())
	}
	return c
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		_ = req.Body.Close()
	}
}

func (t *Transport) credential(ctx context.Context) (Credential, error) {
	if t.o.Credentials == nil {
		return Credential{}, nil
	}
	c, err := t.o.Credentials(ctx, t.o.Host)
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w for %s: %w", ErrMissing, t.o.Host, err)
	}
	return c, err
}

// authorize chooses what to show before the registry has said anything about this request.
func (t *Transport) authorize(req *http.Request) (presented, error) {
	if t.challenge.Load() != nil {
		return t.bearer(req, nil)
	}
	cred, err := t.credential(req.Context())
	if err != nil || cred.Anonymous() || !cred.Preemptive && !t.basic.Load() {
		return presented{}, err
	}
	return presented{header: cred.basic(), cred: cred}, nil
}

// bearer gets a token for the request; asked are the scopes of its challenge, nil when there was
// none yet.
func (t *Transport) bearer(req *http.Request, asked []string) (presented, error) {
	key, scopes := t.scope(req)
	tok, err := t.tokens.get(req.Context(), key, scopes, asked)
	return presented{header: "Bearer " + tok.value, key: key, token: tok.value}, err
}

// scope returns the cache key of the request's token, and the scopes to ask for when the key is
// new. A key that was widened by a challenge keeps its scopes.
func (t *Transport) scope(req *http.Request) (key string, scopes []string) {
	if s := t.shared.Load(); s != nil {
		return *s, strings.Fields(*s)
	}
	scopes = Scope(req)
	return strings.Join(scopes, " "), scopes
}

// Scope is what a request needs to be allowed to do, in the form of the token specification
// (https://distribution.github.io/distribution/spec/auth/scope/): nothing for what is not below a
// repository.
func Scope(req *http.Request) []string {
	if s, ok := req.Context().Value(scopeKey{}).([]string); ok {
		return s
	}
	q, err := oci.Parse(req)
	if err != nil || q.Repo == "" {
		return nil
	}
	scopes := []string{PullScope(q.Repo)}
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		scopes[0] = PushScope(q.Repo)
	}
	if q.From != "" && q.From != q.Repo {
		scopes = append(scopes, PullScope(q.From))
	}
	return scopes
}

// PullScope is the scope for reading a repository (distribution, "Token Scope Documentation").
func PullScope(repo string) string { return "repository:" + repo + ":pull" }

// PushScope is the scope for reading and writing a repository.
func PushScope(repo string) string { return "repository:" + repo + ":pull,push" }

// DeleteScope is the scope for deleting from a repository.
func DeleteScope(repo string) string { return "repository:" + repo + ":pull,delete" }

type scopeKey struct{}

// WithScope tells the scopes of requests whose URL does not show them: the upload URLs of some
// registries do not name the repository.
func WithScope(ctx context.Context, scopes ...string) context.Context {
	return context.WithValue(ctx, scopeKey{}, scopes)
}

// reconsider looks at an answer and returns what to show instead, or nil when the answer stands.
func (t *Transport) reconsider(req *http.Request, resp *http.Response, s presented) (*presented, error) {
	switch resp.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusBadRequest:
	default:
		return nil, nil
	}
	if resp.StatusCode == http.StatusUnauthorized {
		for _, c := range ParseChallenges(resp.Header.Values("Www-Authenticate")) {
			switch c.Scheme {
			case "bearer":
				asked, ok := t.remember(req, c)
				if ok && c.Params["error"] == "insufficient_scope" && s.token != "" && t.tokens.covers(s.key, asked) {
					return nil, nil // the endpoint has given what it gives (RFC 6750 section 3.1)
				}
				if ok {
					return t.again(req, s, asked)
				}
			case "basic":
				t.basic.Store(true)
				return t.again(req, s, nil)
			}
		}
	}
	if t.o.Expired != nil && t.o.Expired(t.refusal(req, resp, s)) {
		return t.again(req, s, nil)
	}
	return nil, nil
}

// remember keeps what a Bearer challenge says about the registry, and returns the scopes it asks
// for.
func (t *Transport) remember(req *http.Request, c Challenge) (asked []string, ok bool) {
	realm, err := req.URL.Parse(c.Params["realm"])
	if err != nil || realm.Host == "" || realm.Scheme != "https" && realm.Scheme != "http" || realm.User != nil {
		return nil, false
	}
	t.challenge.Store(&bearer{realm: realm, service: c.Params["service"]})
	asked = strings.Fields(c.Params["scope"])
	if len(asked) == 0 {
		return nil, true
	}
	if !slices.ContainsFunc(asked, func(s string) bool { return strings.HasPrefix(s, "repository:") }) {
		shared := strings.Join(asked, " ")
		t.shared.Store(&shared)
	}
	return asked, true
}

// again forgets what was refused and gets something else. It returns nil when there is nothing else
// to show.
func (t *Transport) again(req *http.Request, s presented, asked []string) (*presented, error) {
	var next presented
	var err error
	if t.challenge.Load() != nil {
		if s.token != "" {
			t.tokens.drop(s.key, s.token)
		}
		next, err = t.bearer(req, asked)
	} else {
		if s.cred.Invalidate != nil {
			s.cred.Invalidate()
		}
		next.cred, err = t.credential(req.Context())
		if err == nil && !next.cred.Anonymous() {
			next.header = next.cred.basic()
		}
	}
	if err != nil || next.header == "" || next.header == s.header {
		return nil, err
	}
	return &next, nil
}

// refusal shows an answer to Expired and puts what it read back.
func (t *Transport) refusal(req *http.Request, resp *http.Response, s presented) Refusal {
	head, err := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
	rest := io.Reader(resp.Body)
	if err != nil {
		rest = &failing{err}
	}
	resp.Body = &spliced{io.MultiReader(bytes.NewReader(head), rest), resp.Body}
	return Refusal{Request: req, Status: resp.StatusCode, Header: resp.Header, Body: head, Credential: s.cred}
}

type spliced struct {
	io.Reader
	io.Closer
}

type failing struct{ err error }

func (f *failing) Read([]byte) (int, error) { return 0, f.err }
